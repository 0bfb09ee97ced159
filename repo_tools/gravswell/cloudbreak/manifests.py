"""Templates of Kubernetes objects: YAML with ``{{ name }}`` where values go.

A value is put into the parsed document, never into its text: whatever it is, it cannot become another field.
"""

import re
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from gravswell.errors import InvalidInputError, NotFoundError

_PLACE = re.compile(r"\{\{\s*(?:\.Values\.)?(\w+)\s*\}\}")
_MARK = re.compile(r"⟦(\w+)⟧")
"""What stands for a place while YAML is read: a scalar, alone and inside of others."""


def read(file: str, built_in: Traversable) -> tuple[str, str]:
    """The text of the file, or of the template of that name that comes with the library; and what to call it."""
    path = Path(file)
    if path.is_file():
        return path.read_text(), file
    found = built_in / file if path.name == file else None
    if found is None or not found.is_file():
        known = ", ".join(sorted(item.name for item in built_in.iterdir()))
        raise NotFoundError(f"there is no file {file}, and no template of that name; templates: {known}")
    return found.read_text(), file


def render(text: str, name: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects that a template describes, with ``values`` in their places.

    A place is ``{{ key }}`` or, as Helm writes it, ``{{ .Values.key }}``. One that is a whole field takes the value as
    it is, a number as a number; inside of a text it becomes text. Raises InvalidInputError, a ``ValueError``, for a
    value that is missing or used nowhere, and for what is no list of objects.
    """
    asked = set(_PLACE.findall(text))
    if missing := sorted(asked - set(values)):
        raise InvalidInputError(f"{name} needs a value for {', '.join(missing)}")
    if unused := sorted(set(values) - asked):
        raise InvalidInputError(f"{name} has no place for {', '.join(unused)}; it takes {', '.join(sorted(asked))}")
    try:
        documents = [d for d in yaml.safe_load_all(_PLACE.sub(r"⟦\1⟧", text)) if d is not None]
    except yaml.YAMLError as error:
        raise InvalidInputError(f"{name} is no YAML: {' '.join(str(error).split())}") from None
    filled: list[dict[str, Any]] = []
    for document in documents:
        whole = _filled(document, values)
        if not isinstance(whole, dict) or not {"apiVersion", "kind"} <= set(whole):
            raise InvalidInputError(f"{name} has a document without apiVersion and kind")
        if not isinstance(whole.get("metadata"), dict) or not whole["metadata"].get("name"):
            raise InvalidInputError(f"{name}: a {whole['kind']} has no metadata.name")
        filled.append(whole)
    return filled


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {_filled(key, values): _filled(inner, values) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, values) for inner in value]
    if not isinstance(value, str):
        return value
    if whole := _MARK.fullmatch(value):
        return values[whole[1]]
    return _MARK.sub(lambda mark: str(values[mark[1]]), value)
