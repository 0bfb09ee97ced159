"""The models as CustomResourceDefinitions: pydantic's JSON schema, rewritten into the structural form of Kubernetes.

What pydantic writes and an API server refuses or mistakes: ``$ref`` and ``$defs``, ``anyOf`` with null, ``const``, a
numeric ``exclusiveMinimum``, ``additionalProperties: false``, nulls inside defaults. Pure: models in, data out.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from gravswell_operator.api import KINDS
from gravswell_operator.api.common import GROUP, VERSION, Column, Names, Resource
from gravswell_operator.api.rules import EXTENSION

INT_OR_STRING = "x-kubernetes-int-or-string"

API_VERSION_TEXT = (
    "Version of the schema that this object is written in. Servers convert what they know to the latest one and refuse "
    "the rest."
)
KIND_TEXT = "Kind of the object, in CamelCase; it cannot be changed."

_ORDER = ("description", "type", "enum", "default", "pattern", "minimum", "maximum", "minLength", "maxLength")
_ORDER_LAST = (EXTENSION, "required", "properties", "items", "additionalProperties")
_DROPPED = ("title", "propertyNames", "discriminator", "$defs")

Schema = dict[str, Any]


def crds() -> tuple[Schema, ...]:
    """The CustomResourceDefinitions of all kinds, ready to be applied."""
    return tuple(crd(kind) for kind in KINDS)


def crd(kind: type[Resource]) -> Schema:
    """The CustomResourceDefinition of one kind."""
    names = kind.NAMES
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.plural}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "gravswell"}},
        "spec": {
            "group": GROUP,
            "scope": names.scope,
            "names": {
                "kind": names.kind,
                "listKind": f"{names.kind}List",
                "plural": names.plural,
                "singular": names.kind.lower(),
                "shortNames": list(names.short),
                "categories": list(names.categories),
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [_column(column) for column in names.columns],
                    **_selectable(names),
                    "subresources": _subresources(names),
                    "schema": {"openAPIV3Schema": schema(kind)},
                }
            ],
        },
    }


def schema(kind: type[Resource]) -> Schema:
    """The structural schema of one kind: descriptions, defaults, bounds and CEL rules."""
    raw = kind.model_json_schema(by_alias=True)
    definitions = raw.get("$defs", {})
    properties = {name: _structural(raw["properties"][name], definitions) for name in ("spec", "status")}
    _tell_defaults(properties["spec"])
    _without_defaults(properties["status"])
    root: Schema = {
        "description": _text(raw["description"]),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"description": API_VERSION_TEXT, "type": "string"},
            "kind": {"description": KIND_TEXT, "type": "string"},
            "metadata": {"type": "object"},
            **properties,
        },
    }
    if kind.RULES:
        # With a bound on the name the API server can bound what the rules on it cost.
        root["properties"]["metadata"]["properties"] = {
            "name": {"type": "string", "maxLength": 253},
            "generateName": {"type": "string", "maxLength": 253},
        }
        root[EXTENSION] = raw[EXTENSION]
    return root


def _column(column: Column) -> Schema:
    entry: Schema = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.description:
        entry["description"] = column.description
    if column.wide:
        entry["priority"] = 1
    return entry


def _selectable(names: Names) -> Schema:
    return {"selectableFields": [{"jsonPath": path} for path in names.selectable]} if names.selectable else {}


def _subresources(names: Names) -> Schema:
    subresources: Schema = {"status": {}}
    if names.scale:
        subresources["scale"] = {
            "specReplicasPath": names.scale.spec_replicas,
            "statusReplicasPath": names.scale.status_replicas,
            **({"labelSelectorPath": names.scale.selector} if names.scale.selector else {}),
        }
    return subresources


def _structural(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """``node`` of pydantic's schema, and everything below it, as a structural schema."""
    node = _inlined(node, definitions)
    result: Schema = {key: value for key, value in node.items() if key not in _DROPPED}
    if "description" in result:
        result["description"] = _text(result["description"])
    if "const" in result:
        result["enum"] = [result.pop("const")]
    for bound in ("Minimum", "Maximum"):
        limit = result.get(f"exclusive{bound}")
        if limit is not None and not isinstance(limit, bool):
            result[bound.lower()], result[f"exclusive{bound}"] = limit, True
    if "properties" in result:
        result["properties"] = {name: _structural(child, definitions) for name, child in node["properties"].items()}
        result.pop("additionalProperties", None)
    elif isinstance(result.get("additionalProperties"), Mapping):
        result["additionalProperties"] = _structural(result["additionalProperties"], definitions)
    if "items" in result:
        result["items"] = _structural(result["items"], definitions)
    if result.get(INT_OR_STRING):
        result.pop("type", None)
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "default" in result:
        default = _default(result.pop("default"), result)
        if default is not None:
            result["default"] = default
    return {key: result[key] for key in sorted(result, key=_position)}


def _inlined(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """``node`` with its reference, or its one choice beside null, in its place; what stands beside it wins."""
    while True:
        siblings = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
        if "$ref" in node:
            node = {**definitions[node["$ref"].rpartition("/")[2]], **siblings}
            continue
        choices = [choice for choice in node.get("anyOf", ()) if choice.get("type") != "null"]
        if len(choices) == 1:
            node = {**choices[0], **siblings}
            continue
        if choices and not node.get(INT_OR_STRING):
            raise TypeError(f"a structural schema has no unions but int-or-string: {node}")
        return node


def _default(value: Any, node: Mapping[str, Any]) -> Any:
    """The default to write: without nulls, without what the defaults below say again, and None if that leaves nothing.

    An absent list or map is an empty one, so those are not filled into users' objects.
    """
    if isinstance(value, dict):
        below = node.get("properties", {})
        kept = {key: item for key, item in value.items() if item is not None and item not in ([], {})}
        own = {key: item for key, item in kept.items() if item != below.get(key, {}).get("default")}
        return own if own or kept else None
    if isinstance(value, list):
        return [_default(item, node.get("items", {})) for item in value] or None
    return value


def _tell_defaults(node: Schema) -> None:
    """Put each field's default into its description: ``kubectl explain`` shows nothing else of it."""
    default = node.get("default")
    if isinstance(default, str | int) and not isinstance(default, bool) and default != "":
        node["description"] = f"{node['description']} Default: {default}."
    for child in _below(node):
        _tell_defaults(child)


def _without_defaults(node: Schema) -> None:
    """Take defaults out of a status: what the operator has not said is absent, not zero."""
    node.pop("default", None)
    for child in _below(node):
        _without_defaults(child)


def _below(node: Schema) -> Iterator[Schema]:
    """The schemas of fields, items and values directly below ``node``."""
    yield from node.get("properties", {}).values()
    for key in ("items", "additionalProperties"):
        if key in node:
            yield node[key]


def _position(key: str) -> tuple[int, str]:
    """Where a keyword stands: what a person looks for first, then the rest, then what is nested."""
    if key in _ORDER:
        return _ORDER.index(key) - len(_ORDER), ""
    if key in _ORDER_LAST:
        return 1 + _ORDER_LAST.index(key), ""
    return 0, key


def _text(docstring: str) -> str:
    """A docstring as one line for each paragraph, without the marks of reStructuredText."""
    paragraphs = docstring.replace("``", "").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
