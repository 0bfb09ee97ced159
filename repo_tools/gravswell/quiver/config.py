"""Triton's ``ModelConfig`` as text, as message and as JSON.

The message classes are those of ``tritonclient``. A configuration may use fields of a newer Triton: they are kept in
the text, and a rewrite that would lose one is refused.
"""

from typing import Any

from google.protobuf import json_format, text_format
from google.protobuf.message import Message
from tritonclient.grpc import model_config_pb2

from gravswell.errors import InvalidInputError
from gravswell.quiver.checks import refuse_new
from gravswell.quiver.pbtxt import Field, split_fields

ModelConfig: Any = model_config_pb2.ModelConfig
"""Triton's message class. Typed as Any: tritonclient ships no stubs."""


def parse_config(text: str, *, where: str = "config.pbtxt") -> Any:
    """The ``ModelConfig`` in ``text``, without fields that this release does not know (:func:`unknown_fields`).

    InvalidInputError names ``where`` and the line when it is no configuration.
    """
    try:
        return text_format.Parse(text, ModelConfig(), allow_unknown_field=True)
    except (text_format.ParseError, UnicodeError) as error:
        raise InvalidInputError(f"{where} is no Triton model configuration: {str(error).rstrip('.')}") from None


def format_config(config: Any) -> str:
    """``config`` as text, one field a line, in the order of Triton's own definition."""
    return text_format.MessageToString(config)


def config_to_json(config: Any) -> str:
    """``config`` as the JSON that Triton's load API takes in its ``config`` parameter."""
    return json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None)


def unknown_fields(text: str, *, where: str = "config.pbtxt") -> list[str]:
    """Names of the top-level fields that are unknown to this release, or that hold something unknown."""
    fields, _ = split_fields(text, where)
    return sorted({field.name for field in fields if not _known(field)})


def _known(field: Field) -> bool:
    try:
        text_format.Parse(field.text, ModelConfig())
    except text_format.ParseError:
        return False
    return True


class ConfigText:
    """A configuration together with the text that it came from.

    Edit :attr:`message`, then :meth:`render`: fields whose value is unchanged keep their text with its comments; those
    of one that was edited stand before it, and go with it where it is cleared. InvalidInputError for what is no
    configuration.
    """

    def __init__(self, text: str, *, where: str = "config.pbtxt") -> None:
        self.where = where
        try:
            self.message = parse_config(text, where=where)
            self._fields, self._tail = split_fields(text, where)
        except InvalidInputError as error:
            raise InvalidInputError(f"{error}; mend that line") from None
        self._before = ModelConfig()
        self._before.CopyFrom(self.message)
        self._plain = text == format_config(self.message)  # as we write it: its fields stay in Triton's order

    @classmethod
    def from_message(cls, config: Any, *, where: str = "config.pbtxt") -> "ConfigText":
        """A configuration that was never written by hand."""
        return cls(format_config(config), where=where)

    def render(self) -> str:
        """The text for the message as it is now.

        InvalidInputError if an edited field holds something unknown: rewriting it would lose that.
        """
        if self._plain:
            return format_config(self.message)
        unchanged = self._before == self.message  # as nearly always, and much sooner known than field by field
        changed = set() if unchanged else {n for n in self._names() if not _same(self._before, self.message, n)}
        lost = sorted({f.name for f in self._fields if f.name in changed and not _known(f)})
        if lost:
            raise InvalidInputError(
                f"{self.where}: {', '.join(lost)} holds a setting that this release does not know and would lose; "
                f"edit the file by hand, or upgrade gravswell"
            )
        parts: list[str] = []
        for field in self._fields:
            if field.name not in changed:
                parts.append(_line(field.text))
            elif self._first(field) and (made := _only(self.message, field.name)):
                parts.extend(other.comments for other in self._fields if other.name == field.name)
                parts.append(made)
        new = [name for name in self._names() if name in changed and name not in {f.name for f in self._fields}]
        parts.extend(_only(self.message, name) for name in new)
        return "".join(parts) + self._tail

    def check(self, *, effective: bool = False) -> None:
        """Refuse what the edits broke. InvalidInputError names each field, what is wrong with it, and the way out.

        :param effective: refuse also what has no effect.
        """
        refuse_new(self._before, self.message, self.where, effective=effective)

    def rewritten(self, text: str) -> "ConfigText":
        """The same message over the text that was rendered from it; parts of the message stay valid."""
        self._fields, self._tail = split_fields(text, self.where)
        self._before.CopyFrom(self.message)
        self._plain = text == format_config(self.message)
        return self

    def _first(self, field: Field) -> bool:
        return next(f for f in self._fields if f.name == field.name) is field

    @staticmethod
    def _names() -> list[str]:
        return [field.name for field in ModelConfig.DESCRIPTOR.fields]


def _line(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def _same(a: Message, b: Message, name: str) -> bool:
    return _only(a, name) == _only(b, name)


def _only(message: Any, name: str) -> str:
    """The text of one top-level field of ``message``; empty when it is not set."""
    part = ModelConfig()
    part.CopyFrom(message)
    for field, _ in message.ListFields():
        if field.name != name:
            part.ClearField(field.name)
    return format_config(part)
