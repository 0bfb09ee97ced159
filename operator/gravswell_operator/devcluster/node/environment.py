"""A container's environment: ``valueFrom``, ``envFrom`` and ``$(VAR)``, by Kubernetes' rules."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell_operator.quantities import in_units

Document = Mapping[str, Any]

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")


@dataclass(frozen=True)
class Sources:
    """What references are resolved against. Keys of the two mappings are object names in the pod's namespace."""

    pod: Document
    container: Document
    config_maps: Mapping[str, Document] = field(default_factory=dict)
    secrets: Mapping[str, Document] = field(default_factory=dict)
    allocatable: Mapping[str, str] = field(default_factory=dict)
    """The node's, for resource references without a limit."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` by the variable; ``$$`` stands for one dollar, unknown names stay as they are.

    >>> expand("$(A) $(B) $$(A) $5", {"A": "1"})
    '1 $(B) $(A) $5'
    """

    def replace(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return variables.get(match[2], match[0])

    return _REFERENCE.sub(replace, text)


def referenced(container: Document) -> tuple[set[str], set[str]]:
    """Return the names of the ConfigMaps and of the Secrets that the container's environment refers to."""
    maps: set[str] = set()
    secrets: set[str] = set()
    for entry in container.get("envFrom") or ():
        for kind, names in (("configMapRef", maps), ("secretRef", secrets)):
            if kind in entry:
                names.add(entry[kind]["name"])
    for entry in container.get("env") or ():
        source = entry.get("valueFrom") or {}
        for kind, names in (("configMapKeyRef", maps), ("secretKeyRef", secrets)):
            if kind in source:
                names.add(source[kind]["name"])
    return maps, secrets


def variables(sources: Sources, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return ``inherited`` with the container's own ``envFrom`` and ``env`` over it, in Kubernetes' order.

    Raises:
        NotFoundError: a ConfigMap, Secret or key that is not optional and not there.
        InvalidInputError: a field that this node does not offer.
    """
    result = dict(inherited)
    for entry in sources.container.get("envFrom") or ():
        prefix = entry.get("prefix", "")
        result.update({prefix + key: value for key, value in _all_of(entry, sources).items()})
    for entry in sources.container.get("env") or ():
        if "valueFrom" in entry:
            value = _value_from(entry["valueFrom"], sources)
            if value is None:
                continue
            result[entry["name"]] = value
        else:
            result[entry["name"]] = expand(entry.get("value", ""), result)
    return result


def data_of(document: Document) -> dict[str, bytes]:
    """Return the decoded content of a ConfigMap or Secret."""
    if document.get("kind") == "Secret":
        return {key: base64.b64decode(value) for key, value in (document.get("data") or {}).items()}
    content = {key: value.encode() for key, value in (document.get("data") or {}).items()}
    return content | {key: base64.b64decode(value) for key, value in (document.get("binaryData") or {}).items()}


def field_of(path: str, pod: Document) -> str:
    """Return what ``fieldRef`` ``path`` means for ``pod``; labels and annotations as a whole in the downward form."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['([^']*)'\]", path)
    if keyed:
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    if path in {"metadata.labels", "metadata.annotations"}:
        pairs = metadata.get(path.removeprefix("metadata.")) or {}
        return "\n".join(f'{key}="{_escaped(value)}"' for key, value in sorted(pairs.items()))
    simple = {
        "metadata.name": metadata.get("name"),
        "metadata.namespace": metadata.get("namespace"),
        "metadata.uid": metadata.get("uid"),
        "spec.nodeName": spec.get("nodeName"),
        "spec.serviceAccountName": spec.get("serviceAccountName"),
        "status.podIP": status.get("podIP"),
        "status.podIPs": status.get("podIP"),
        "status.hostIP": status.get("hostIP"),
        "status.hostIPs": status.get("hostIP"),
    }
    if path not in simple:
        raise InvalidInputError(f"fieldRef {path!r} is not offered by the local node; it knows {', '.join(simple)}")
    return str(simple[path] or "")


def resource_of(reference: Document, sources: Sources) -> str:
    """Return what ``resourceFieldRef`` means: a limit or request, rounded up to whole ``divisor``."""
    containers = [*sources.pod["spec"]["containers"], *(sources.pod["spec"].get("initContainers") or ())]
    wanted = reference.get("containerName", sources.container.get("name"))
    container = next((c for c in containers if c["name"] == wanted), None)
    if container is None:
        raise InvalidInputError(f"resourceFieldRef names container {wanted!r}, which the pod does not have")
    resources = container.get("resources") or {}
    kind, _, resource = reference["resource"].partition(".")
    value = (resources.get(kind) or {}).get(resource)
    if value is None:
        value = (resources.get("limits") or {}).get(resource) if kind == "requests" else None
    if value is None:
        value = sources.allocatable.get(resource, "0") if kind == "limits" else "0"
    divisor = reference.get("divisor")
    return str(in_units(str(value), "1" if divisor in {None, "", "0"} else str(divisor)))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _all_of(entry: Document, sources: Sources) -> dict[str, str]:
    for kind, objects in (("configMapRef", sources.config_maps), ("secretRef", sources.secrets)):
        if kind in entry:
            reference = entry[kind]
            found = objects.get(reference["name"])
            if found is None:
                if reference.get("optional"):
                    return {}
                raise NotFoundError(f'{_label(kind)} "{reference["name"]}" not found')
            return {key: value.decode(errors="replace") for key, value in data_of(found).items()}
    return {}


def _value_from(source: Document, sources: Sources) -> str | None:
    if "fieldRef" in source:
        return field_of(source["fieldRef"]["fieldPath"], sources.pod)
    if "resourceFieldRef" in source:
        return resource_of(source["resourceFieldRef"], sources)
    for kind, objects in (("configMapKeyRef", sources.config_maps), ("secretKeyRef", sources.secrets)):
        if kind not in source:
            continue
        reference = source[kind]
        found = objects.get(reference["name"])
        value = None if found is None else data_of(found).get(reference["key"])
        if value is not None:
            return value.decode(errors="replace")
        if reference.get("optional"):
            return None
        missing = "" if found is None else f' has no key "{reference["key"]}"'
        raise NotFoundError(f'{_label(kind)} "{reference["name"]}"{missing or " not found"}')
    raise InvalidInputError(f"valueFrom {', '.join(source)} is not offered by the local node")


def _label(kind: str) -> str:
    return "configmap" if kind.startswith("configMap") else "secret"
