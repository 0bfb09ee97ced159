"""Two protobuf messages, field by field."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message

from gravswell.quiver.fieldpaths import is_map, is_repeated


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """One field, by its path (``instance_group[0].count``); None where it is not set."""

    path: str
    old: str | None
    new: str | None


def differing_fields(old: Message, new: Message) -> list[FieldDifference]:
    """Where two messages of one type differ. Tensors and the like are matched by name, else by their place."""
    return list(_message("", old, new))


def _message(path: str, old: Message, new: Message) -> Iterator[FieldDifference]:
    a, b = ({field.name: value for field, value in message.ListFields()} for message in (old, new))
    for field in old.DESCRIPTOR.fields:
        if field.name not in a and field.name not in b:
            continue
        here = f"{path}.{field.name}" if path else field.name
        if is_repeated(field):
            yield from _many(here, field, getattr(old, field.name), getattr(new, field.name))
        elif field.message_type is not None and field.name in a and field.name in b:
            yield from _message(here, a[field.name], b[field.name])
        else:
            yield from _one(here, field, a.get(field.name), b.get(field.name))


def _many(path: str, field: Any, old: Any, new: Any) -> Iterator[FieldDifference]:
    """Items of a map by key, messages with a name by that, anything else by its place."""
    a, b = _keyed(field, old), _keyed(field, new)
    for key in dict.fromkeys((*a, *b)):
        x, y = a.get(key), b.get(key)
        here = f"{path}[{key}]"
        if isinstance(x, Message) and isinstance(y, Message):
            yield from _message(here, x, y)
        else:
            yield from _one(here, field, x, y)


def _keyed(field: Any, items: Any) -> dict[Any, Any]:
    if is_map(field):
        return {key: items[key] for key in sorted(items)}
    names = [getattr(item, "name", "") for item in items]
    if all(names) and len(set(names)) == len(names):
        return dict(zip(names, items, strict=True))
    return dict(enumerate(items))


def _one(path: str, field: Any, old: Any, new: Any) -> Iterator[FieldDifference]:
    x, y = _shown(field, old), _shown(field, new)
    if x != y:
        yield FieldDifference(path, x, y)


def _shown(field: Any, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, Message):
        return text_format.MessageToString(value, as_one_line=True)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    return str(value)
