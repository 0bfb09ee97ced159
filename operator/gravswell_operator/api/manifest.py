"""Manifests that are checked without an API server, as strictly as one would: types, unknown fields, every rule."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from gravswell.errors import InvalidInputError
from gravswell_operator.api import KINDS
from gravswell_operator.api.common import API_VERSION, DnsLabel, DnsName, Resource
from gravswell_operator.api.crd import schema

_KINDS = {kind.NAMES.kind: kind for kind in KINDS}
_schema = cache(schema)


class _NameRule(NamedTuple):
    """What the API server demands of a name, and how it is said."""

    pattern: TypeAdapter[str]
    words: str

    def fits(self, value: str) -> bool:
        try:
            self.pattern.validate_python(value)
        except ValidationError:
            return False
        return True


_NAME = _NameRule(TypeAdapter(DnsName), "at most 253 lower-case letters, digits, '-' and '.'")
_NAMESPACE = _NameRule(TypeAdapter(DnsLabel), "at most 63 lower-case letters, digits and '-'")


def parse(document: Mapping[str, Any]) -> Resource:
    """The custom resource that a manifest, as read from YAML, describes.

    Raises:
        InvalidInputError: it is none of ours, or the API server would refuse it; one line for each reason, with the
            path of the field.
    """
    kind = _kind(document)
    problems = list(_unknown(document, _schema(kind), ""))
    resource = None
    try:
        # JSON's strictness is the API server's: "1" is no integer, and a list is one.
        resource = kind.model_validate_json(json.dumps(document, default=str), strict=True)
    except ValidationError as error:
        problems += [_line(problem, _schema(kind)) for problem in error.errors()]
    if not any(problem.startswith("metadata.") for problem in problems):
        problems += _names(document)
    if problems or resource is None:
        metadata = document.get("metadata")
        name = metadata.get("name", "") if isinstance(metadata, Mapping) else ""
        lines = "\n  ".join(dict.fromkeys(problems))
        raise InvalidInputError(f"{kind.NAMES.kind} {name or 'without a name'} is invalid:\n  {lines}")
    return resource


def _kind(document: Mapping[str, Any]) -> type[Resource]:
    if not isinstance(document, Mapping):
        raise InvalidInputError(
            f"a manifest is a mapping with apiVersion, kind, metadata and spec, not {document!r:.80}"
        )
    version, name = document.get("apiVersion"), document.get("kind")
    if version != API_VERSION or name not in _KINDS:
        raise InvalidInputError(
            f"apiVersion {version!r}, kind {name!r} is none of gravswell's, which are "
            f"{', '.join(_KINDS)} of {API_VERSION}"
        )
    return _KINDS[name]


def _names(document: Mapping[str, Any]) -> Iterator[str]:
    """A line for each name that no object can have, whatever its kind."""
    metadata = document.get("metadata")
    for field, rule in (("name", _NAME), ("namespace", _NAMESPACE)):
        value = metadata.get(field) if isinstance(metadata, Mapping) else None
        if isinstance(value, str) and not rule.fits(value):
            yield f"metadata.{field}: {value!r} must be {rule.words}, and begin and end with a letter or digit"


def _unknown(value: Any, node: Mapping[str, Any], path: str) -> Iterator[str]:
    """A line for each field that the schema does not have; the API server would refuse or drop it."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, node.get("items", {}), f"{path}[{index}]")
    if not isinstance(value, Mapping) or "properties" not in node or path == "metadata":
        return
    for name, child in value.items():
        below = f"{path}.{name}" if path else str(name)
        if name not in node["properties"]:
            yield f"{below}: unknown field; {path or 'the object'} has {', '.join(node['properties'])}"
        else:
            yield from _unknown(child, node["properties"][name], below)


def _line(problem: ErrorDetails, node: Mapping[str, Any]) -> str:
    """One of pydantic's errors: the field at fault, and the fact."""
    path = _path(problem["loc"], node) + problem.get("ctx", {}).get("field_path", "")
    return f"{path.removeprefix('.') or 'the object'}: {_words(problem)}"


def _words(problem: ErrorDetails) -> str:
    """What is wrong, in pydantic's words but where YAML has made something else of what its writer saw."""
    given = problem["input"]
    if problem["type"] == "string_type" and isinstance(given, bool | int | float):
        taken = json.dumps(given) if isinstance(given, bool) else f"the number {given}"
        return f"must be text, and YAML takes it for {taken}: put it in quotes"
    return problem["msg"]


def _path(location: tuple[int | str, ...], node: Mapping[str, Any]) -> str:
    """pydantic's location as a path in the manifest, without the names of the validators that it adds."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path, node = f"{path}[{part}]", node.get("items", {})
        elif part in node.get("properties", {}):
            path, node = f"{path}.{part}", node["properties"][part]
        elif "additionalProperties" in node or path == ".metadata":
            path, node = f"{path}.{part}", node.get("additionalProperties", {})
    return path
