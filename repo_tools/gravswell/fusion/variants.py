"""From ``base,1 encoder_deep,2`` to models: each variant so many times, described by a file where its name says too
little."""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gravswell.errors import InvalidInputError, NotFoundError, UnsupportedError
from gravswell.extras import install
from gravswell.quiver.fusion import FEW_BATCHES, ModelInfo

_KEYS = ("model", "inputs", "input_types", "output_names", "rename", "params", "scale")

MOST_COPIES = 10_000
"""Of one variant; each has a row in the table of ids. A slip of the finger is no full memory."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A model that is wanted ``count`` times."""

    name: str
    count: int


def parse_variant(text: str) -> Variant:
    """``base,2``, or ``base`` for one. InvalidInputError for anything else."""
    name, count = (part.strip() for part in (text.rsplit(",", 1) if "," in text else (text, "1")))
    if not name or not (count.isascii() and count.isdecimal()) or not count.strip("0"):
        raise InvalidInputError(f"{text!r} is no variant: write NAME,COUNT with a count from 1 on, such as base,1")
    if len(count) > len(str(MOST_COPIES)) or int(count) > MOST_COPIES:
        raise InvalidInputError(f"{text!r} is a variant more than {MOST_COPIES} times: use a count from 1 to that")
    return Variant(name, int(count))


def read_params(path: Path) -> dict[str, dict[str, Any]]:
    """The descriptions of variants in a TOML, JSON or YAML file, by the variants' names.

    Each may say ``model``, ``inputs`` (shapes, -1 for any size; an ``.npz``; or a Python function that gives batches),
    ``input_types``, ``output_names``, ``rename``, ``params`` and ``scale``. Functions are called with ``params``.
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
        try:
            import yaml  # noqa: PLC0415 - of an extra
        except ModuleNotFoundError:
            raise UnsupportedError(
                f"{path} is YAML, which needs PyYAML: {install('operator')}; or write it as TOML or JSON"
            ) from None
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(" ".join(str(error).split())) from None
    return json.loads(text)


def variant_models(
    variants: Sequence[Variant],
    described: Mapping[str, Mapping[str, Any]],
    load: Callable[[str, Mapping[str, Any] | None], Any],
) -> list[ModelInfo]:
    """The models of ``variants`` in their order, each so many times.

    ``described``: by a variant's name, what :func:`read_params` gives. ``load``: from what names a model, or batches of
    its inputs, and from its params, to that; for each variant once, with its own name where nothing else is said.
    """
    found: dict[str, ModelInfo] = {}
    for variant in variants:
        if variant.name not in found:
            said = dict(described.get(variant.name, {}))
            params, inputs = said.get("params"), said.get("inputs")
            if isinstance(inputs, str):
                batches = load(inputs, params)
                said["inputs"] = batches if isinstance(batches, Mapping) else list(islice(batches, FEW_BATCHES))
            model = load(str(said.pop("model", variant.name)), params)
            found[variant.name] = ModelInfo(model, name=_short(variant.name), **said)
    return [found[variant.name] for variant in variants for _ in range(variant.count)]


def lies_here(name: str) -> bool:
    """Whether a model lies under that path: a file, or the folder of a SavedModel."""
    return Path(name).is_file() or Path(name, "saved_model.pb").is_file()


def _short(name: str) -> str:
    """A variant's name in the table of ids: of a file, or of a Python object, what it is called without where it is."""
    if ":" in name:
        return name.rpartition(":")[2]
    return Path(name).stem if lies_here(name) else name
