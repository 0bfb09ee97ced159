"""Whether what is there is what is wanted: by digest and by the fields we own, because either alone misses something.

The digest finds a field that we no longer want; the fields find what somebody else changed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gravswell_operator import names, quantities

_QUANTITY_MAPS = {"requests", "limits"}
_QUANTITIES = {"sizeLimit", "cpu", "memory", "averageValue"}
_SHARED_LISTS: Mapping[str, tuple[str, ...]] = {
    "ownerReferences": ("uid",),
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    # Of containers and of Services.
    "ports": ("containerPort", "port", "protocol"),
}
"""The lists whose items the API gives one owner each, and what tells the items apart: others may add some of their own,
an injected container for instance, and an apply of ours would leave those. Every other list is one value of one owner:
a subject too many in a RoleBinding is as wrong as one too few."""
_WHOLE_MAPS = {"selector", "matchLabels", "nodeSelector"}
"""The maps that are one value of one owner: a label too many in a Service's selector finds no pod."""


def difference(wanted: Mapping[str, Any], live: Mapping[str, Any] | None) -> str | None:
    """Where ``live`` is not what is wanted, as a path for the log; None when nothing must be applied."""
    if live is None:
        return "absent"
    annotations = live.get("metadata", {}).get("annotations") or {}
    if annotations.get(names.ANNOTATION_DIGEST) != wanted["metadata"]["annotations"][names.ANNOTATION_DIGEST]:
        return "digest"
    return _compare(wanted, live, "")


def _compare(wanted: Any, live: Any, path: str, name: str = "") -> str | None:
    """``name`` is the field that the two are the values of, the last part of ``path``."""
    if isinstance(wanted, dict):
        return _compare_maps(wanted, live, path, name)
    if isinstance(wanted, (list, tuple)):
        return _compare_lists(wanted, live, path, name)
    if name in _QUANTITIES:
        return _compare_quantity(wanted, live, path, name)
    return None if wanted == live else path


def _compare_quantity(wanted: Any, live: Any, path: str, _: str) -> str | None:
    return None if live is not None and quantities.equal(wanted, live) else path


def _compare_maps(wanted: Mapping[str, Any], live: Any, path: str, name: str) -> str | None:
    if not isinstance(live, dict):
        # The API server drops an empty object, and an emptyDir without settings means the same as none.
        return None if not wanted and live is None else path
    if name in _WHOLE_MAPS and live.keys() - wanted.keys():
        return path
    inside = _compare_quantity if name in _QUANTITY_MAPS else _compare
    for key, value in wanted.items():
        if (found := inside(value, live.get(key), f"{path}.{key}", key)) is not None:
            return found
    return None


def _compare_lists(wanted: Sequence[Any], live: Any, path: str, name: str) -> str | None:
    if not isinstance(live, list):
        return None if not wanted and live is None else path
    fields = _SHARED_LISTS.get(name)
    if fields is None:
        if len(wanted) != len(live):
            return path
        for index, (one, other) in enumerate(zip(wanted, live, strict=True)):
            if (found := _compare(one, other, f"{path}[{index}]")) is not None:
                return found
        return None
    by_key = {_item_key(item, fields): item for item in live if isinstance(item, dict)}
    for item in wanted:
        key = _item_key(item, fields)
        where = item.get("name", key[0])
        if (found := _compare(item, by_key.get(key), f"{path}[{where}]")) is not None:
            return found
    return None


def _item_key(item: Mapping[str, Any], fields: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(item[field] for field in fields if field in item)
