"""Whether what is there is what is wanted: by digest and by the fields we own, because either alone misses something.

The digest finds a field that we no longer want; the fields find what somebody else changed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gravswell_operator import names, quantities

_QUANTITY_MAPS = {"requests", "limits"}
_QUANTITIES = {"sizeLimit", "cpu", "memory"}


def difference(wanted: Mapping[str, Any], live: Mapping[str, Any] | None) -> str | None:
    """Where ``live`` is not what is wanted, as a path for the log; None when nothing must be applied."""
    if live is None:
        return "absent"
    annotations = live.get("metadata", {}).get("annotations") or {}
    if annotations.get(names.ANNOTATION_DIGEST) != wanted["metadata"]["annotations"][names.ANNOTATION_DIGEST]:
        return "digest"
    return _compare(wanted, live, "")


def _compare(wanted: Any, live: Any, path: str) -> str | None:
    name = path.rsplit(".", 1)[-1]
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping):
            # The API server drops an empty object, and an emptyDir without settings means the same as none.
            return None if not wanted and live is None else path
        inside = _compare_quantity if name in _QUANTITY_MAPS else _compare
        for key, value in wanted.items():
            if (found := inside(value, live.get(key), f"{path}.{key}")) is not None:
                return found
        return None
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return _compare_lists(wanted, live, path)
    if name in _QUANTITIES:
        return _compare_quantity(wanted, live, path)
    return None if wanted == live else path


def _compare_quantity(wanted: Any, live: Any, path: str) -> str | None:
    return None if live is not None and quantities.equal(wanted, live) else path


def _compare_lists(wanted: Sequence[Any], live: Any, path: str) -> str | None:
    if not isinstance(live, Sequence):
        return None if not wanted and live is None else path
    key = _map_key(wanted)
    if key is None:
        # Lists without a key belong to one owner as a whole.
        if len(wanted) != len(live):
            return path
        for index, (one, other) in enumerate(zip(wanted, live, strict=True)):
            if (found := _compare(one, other, f"{path}[{index}]")) is not None:
                return found
        return None
    # Lists with a key may hold the items of others, an injected container for instance.
    by_key = {item.get(key): item for item in live if isinstance(item, Mapping)}
    for item in wanted:
        if (found := _compare(item, by_key.get(item[key]), f"{path}[{item[key]}]")) is not None:
            return found
    return None


def _map_key(items: Sequence[Any]) -> str | None:
    for key in ("uid", "name"):
        if items and all(isinstance(item, Mapping) and key in item for item in items):
            return key
    return None
