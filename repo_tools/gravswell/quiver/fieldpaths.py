"""Fields of a configuration by their paths: ``dynamic_batching.max_queue_delay_microseconds``, ``input[0].dims``.

A path goes through messages by dots, into lists and maps by brackets: ``parameters[key].string_value``. The index one
past the end of a list appends to it.
"""

import json
import re
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor

from gravswell.errors import InvalidInputError
from gravswell.quiver.config import ModelConfig

_QUOTED = re.compile(r"""(["']).*\1""", re.DOTALL)
_PART = re.compile(r"(?P<name>[a-z_0-9]+)(?:\[(?P<key>[^\]]*)\])?")


def completions(path: str) -> list[str]:
    """What may stand there in place of the begun ``path``, for a shell: up to ``=``, or to where one is to go on."""
    parent, dot, begun = path.rpartition(".")
    descriptor = ModelConfig.DESCRIPTOR
    for name, _ in _parts(parent) if parent else ():
        field = descriptor.fields_by_name.get(name)
        inner = None if field is None else _value_of(field).message_type
        if inner is None:
            return []
        descriptor = inner
    fields = descriptor.fields_by_name.items()
    return sorted(f"{parent}{dot}{name}{_goes_on(field)}" for name, field in fields if name.startswith(begun))


def _goes_on(field: Any) -> str:
    if field.message_type is None:
        return "="
    return "[" if is_repeated(field) else "."


def set_field(config: Any, path: str, text: str) -> None:
    """Set the field at ``path`` in the message ``config`` to what ``text`` says in Triton's text form.

    A plain word does for text; a list takes its values with commas, a message ``{ … }``; an empty text clears the
    field, and makes nothing on the way to it.
    InvalidInputError names the path where there is no such field, and what it takes where ``text`` is none of it.
    """
    *inner, (last, key) = _parts(path)
    message = config
    done = ""
    for name, index in inner:
        field = _field(message, name, path, done)
        done = f"{done}.{name}".lstrip(".")
        if _value_of(field).message_type is None:
            raise InvalidInputError(f"{path}: {done} is a value, and has no fields")
        message = _inside(message, field, index, path, make=bool(text))
    field = _field(message, last, path, done)
    if key is not None:
        _set_item(message, field, key, text, path)
        return
    value = _parsed(message, field, text, path)
    message.ClearField(field.name)
    message.MergeFrom(value)


def _parts(path: str) -> list[tuple[str, str | None]]:
    parts = []
    position = 0
    while True:
        match = _PART.match(path, position)
        if match is None:
            raise InvalidInputError(f"{path!r} is no path of a field: write one as dynamic_batching.preserve_ordering")
        parts.append((match["name"], match["key"]))
        position = match.end()
        if position == len(path):
            return parts
        if path[position] != ".":
            raise InvalidInputError(f"{path!r} is no path of a field: {path[position:]!r} does not go on from there")
        position += 1


def _field(message: Any, name: str, path: str, done: str) -> Any:
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        known = ", ".join(sorted(message.DESCRIPTOR.fields_by_name))
        raise InvalidInputError(f"{path}: {done or 'the configuration'} has no field {name!r}; it has {known}")
    return field


def is_repeated(field: Any) -> bool:
    """Whether the field of a message is a list or a map."""
    if hasattr(field, "is_repeated"):  # from protobuf 6.31 on, where label is deprecated
        return bool(field.is_repeated)
    return bool(field.label == FieldDescriptor.LABEL_REPEATED)


def is_map(field: Any) -> bool:
    """Whether it is a map."""
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def _value_of(field: Any) -> Any:
    """The field itself, or of a map the values."""
    return field.message_type.fields_by_name["value"] if is_map(field) else field


def _inside(message: Any, field: Any, index: str | None, path: str, *, make: bool) -> Any:
    """The message at a field; where it is not there, it is made, or an empty one that belongs to nothing is given."""
    part = getattr(message, field.name)
    if not is_repeated(field):
        if index is not None:
            raise InvalidInputError(f"{path}: {field.name} is one, and takes no [{index}]")
        if make:
            part.SetInParent()
        return part if message.HasField(field.name) else type(part)()
    if index is None:
        raise InvalidInputError(f"{path}: {field.name} is several: say which, as {field.name}[{_example(field)}]")
    at: Any = _key(field, index, path) if is_map(field) else _index(part, index, path)
    if not make and (at not in part if is_map(field) else at == len(part)):
        return _value_of(field).message_type._concrete_class()
    return part.add() if not is_map(field) and at == len(part) else part[at]


def _set_item(message: Any, field: Any, key: str, text: str, path: str) -> None:
    if not is_repeated(field):
        raise InvalidInputError(f"{path}: {field.name} is one, and takes no [{key}]")
    part = getattr(message, field.name)
    if is_map(field):
        at = _key(field, key, path)
        if not text:
            part.pop(at, None)
            return
        value = _value_of(field)
        made = _parsed(field.message_type._concrete_class(), value, text, path).value
        if value.message_type is None:
            part[at] = made
        else:
            part[at].CopyFrom(made)
        return
    index = _index(part, key, path)
    if not text:
        del part[index : index + 1]
        return
    values = getattr(_parsed(message, field, text, path), field.name)
    if len(values) != 1:
        raise InvalidInputError(f"{path} is one of {field.name}, and {text!r} are {len(values)}: leave [{key}] out")
    rest = list(part)
    rest[index : index + 1] = values
    message.ClearField(field.name)
    getattr(message, field.name).extend(rest)


def _parsed(message: Any, field: Any, text: str, path: str) -> Any:
    """A message like ``message`` with that field alone, from its text."""
    made = type(message)()
    if not text:
        return made
    try:
        text_format.Parse(f"{field.name}: {_form(field, text)}", made)
    except text_format.ParseError as error:
        raise _no_value(path, field, text) from error
    if any(other.name != field.name for other, _ in made.ListFields()):  # the text goes on with another one
        raise _no_value(path, field, text)
    return made


def _form(field: Any, text: str) -> str:
    """What ``text`` means, in protobuf's text form: plain words are put in quotes, and what has commas in brackets."""
    is_text = field.type == FieldDescriptor.TYPE_STRING
    if text.startswith(("[", "{")) and not (is_text and not is_repeated(field)):  # JSON in a parameter is text
        return text
    texts = [part.strip() for part in text.split(",")] if is_repeated(field) else [text]
    if is_text:
        texts = [part if _QUOTED.fullmatch(part) else json.dumps(part, ensure_ascii=False) for part in texts]
    return f"[{', '.join(texts)}]" if is_repeated(field) else texts[0]


def _key(field: Any, text: str, path: str) -> Any:
    text = text[1:-1] if _QUOTED.fullmatch(text) else text
    if field.message_type.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING:
        return text
    try:
        return int(text)
    except ValueError:
        raise InvalidInputError(f"{path}: the keys of {field.name} are whole numbers, not {text!r}") from None


def _index(part: Any, text: str, path: str) -> int:
    if not text.isdecimal() or int(text) > len(part):
        raise InvalidInputError(f"{path}: there are {len(part)}: write an index from 0 to {len(part)}, which appends")
    return int(text)


def _example(field: Any) -> str:
    return "KEY" if is_map(field) else "0"


def _no_value(path: str, field: Any, text: str) -> InvalidInputError:
    if field.enum_type is not None:
        kind = f"one of {', '.join(field.enum_type.values_by_name)}"
    elif field.message_type is not None:
        names = ", ".join(sorted(field.message_type.fields_by_name))
        kind = f"{{ … }} with {names}" if names else "{}"
    else:
        kind = _KINDS.get(field.type, "a whole number")
    many = ", several with commas" if is_repeated(field) else ""
    return InvalidInputError(f"{path} takes {kind}{many}, not {text!r}")


_KINDS = {
    FieldDescriptor.TYPE_BOOL: "true or false",
    FieldDescriptor.TYPE_STRING: "text",
    FieldDescriptor.TYPE_FLOAT: "a number",
    FieldDescriptor.TYPE_DOUBLE: "a number",
}
