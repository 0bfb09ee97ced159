"""From ``base,1 encoder_deep,2`` to models: each variant so many times, described by a file where its name says too
little."""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.quiver.fusion import ModelInfo

_KEYS = ("model", "inputs", "input_types", "output_names", "rename", "params", "scale")


@dataclass(frozen=True, slots=True)
class Variant:
    """A model that is wanted ``count`` times."""

    name: str
    count: int


def parse_variant(text: str) -> Variant:
    """``base,2``, or ``base`` for one. InvalidInputError for anything else."""
    name, count = (part.strip() for part in (text.rsplit(",", 1) if "," in text else (text, "1")))
    if not name or not (count.isascii() and count.isdecimal()) or int(count) < 1:
        raise InvalidInputError(f"{text!r} is no variant: write NAME,COUNT with a count from 1 on, such as base,1")
    return Variant(name, int(count))


def read_params(path: Path) -> dict[str, dict[str, Any]]:
    """The descriptions of variants in a TOML, JSON or YAML file, by the variants' names.

    Each may say ``model``, ``inputs`` (shapes, -1 for any size), ``input_types``, ``output_names``, ``rename``,
    ``params`` and ``scale``.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    try:
        found = _parsed(path)
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, Mapping) or not all(isinstance(value, Mapping) for value in found.values()):
        raise InvalidInputError(f"{path} describes no variants: a map for each, under its name")
    for name, description in found.items():
        unknown = sorted(set(description) - set(_KEYS))
        if unknown:
            raise InvalidInputError(f"{path}: {name} has {', '.join(unknown)}; it may have {', '.join(_KEYS)}")
    return {str(name): dict(description) for name, description in found.items()}


def _parsed(path: Path) -> Any:
    text = path.read_text()
    if path.suffix == ".toml":
        return tomllib.loads(text)
    if path.suffix in (".yaml", ".yml"):
        import yaml  # noqa: PLC0415 - of an extra

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())) from None
    return json.loads(text)


def variant_models(
    variants: Sequence[Variant], described: Mapping[str, Mapping[str, Any]], load: Callable[[str], Any]
) -> list[ModelInfo]:
    """The models of ``variants`` in their order, each so many times.

    ``described``: by a variant's name, what :func:`read_params` gives. ``load``: from what names a model to the model;
    it is called once for each, with the variant's own name where nothing else is said.
    """
    loaded: dict[str, Any] = {}
    found = []
    for variant in variants:
        said = described.get(variant.name, {})
        given = str(said.get("model", variant.name))
        if given not in loaded:
            loaded[given] = load(given)
        rest = {key: value for key, value in said.items() if key != "model"}
        found += [ModelInfo(loaded[given], name=_short(variant.name), **rest)] * variant.count
    return found


def _short(name: str) -> str:
    """A variant's name in the table of ids: of a file, what it is called without its folder."""
    return name.replace("\\", "/").rpartition("/")[2] if name.endswith(".onnx") else name
