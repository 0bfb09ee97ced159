"""The text of a ``config.pbtxt`` cut into its top-level fields, so that a rewrite touches only what was edited.

protobuf's own round trip loses comments and every field that this release of the messages does not know. Here each
top-level field keeps its text, byte for byte, until its value is changed.
"""

import re
from dataclasses import dataclass

from gravswell.errors import InvalidInputError

_TOKEN = re.compile(
    r"""(?P<space>[\s]+|\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<open>[{<\[])
      | (?P<close>[}>\]])
      | (?P<mark>[:,;-])
      | (?P<word>[^\s#"'{}<>\[\]:,;-]+)""",
    re.VERBOSE,
)
_PAIRS = {"{": "}", "<": ">", "[": "]"}


@dataclass(frozen=True, slots=True)
class Field:
    """One top-level field: its name, and its text with the comments and blanks that stand before it."""

    name: str
    text: str

    @property
    def comments(self) -> str:
        """The comments in that text, one a line."""
        found = (match.group() for match in _TOKEN.finditer(self.text) if match.lastgroup == "space")
        return "".join(f"{comment.rstrip()}\n" for comment in found if comment.startswith("#"))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def split_fields(text: str, where: str) -> tuple[list[Field], str]:
    """The fields of ``text`` in order, and what follows the last one; InvalidInputError names the wrong line."""
    tokens = [token for token in _tokens(text, where) if token.kind != "space"]
    fields: list[Field] = []
    position = done = 0
    while position < len(tokens):
        name = tokens[position]
        if name.kind != "word":
            raise _error(text, name.start, where, f"a field name is expected, not {name.text!r}")
        position = _end_of_value(tokens, position + 1, text, where)
        end = _rest_of_line(text, tokens[position - 1].end)
        fields.append(Field(name.text, text[done:end]))
        done = end
    return fields, text[done:]


def _tokens(text: str, where: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _error(text, position, where, "this text is not closed")
        tokens.append(_Token(match.lastgroup or "", match.group(), match.start(), match.end()))
        position = match.end()
    return tokens


def _end_of_value(tokens: list[_Token], position: int, text: str, where: str) -> int:
    """Index of the first token after the value that starts at ``position``, its colon and separator included."""
    start = position
    if position < len(tokens) and tokens[position].text == ":":
        position += 1
    if position < len(tokens) and tokens[position].text == "-":
        position += 1
    if position >= len(tokens) or tokens[position].kind in ("close", "mark"):
        at = tokens[min(start, len(tokens) - 1)].start
        raise _error(text, at, where, "a value is expected")
    if tokens[position].kind == "open":
        position = _end_of_group(tokens, position, text, where)
    elif tokens[position].kind == "string":
        while position < len(tokens) and tokens[position].kind == "string":  # adjacent strings are one
            position += 1
    else:
        position += 1
    if position < len(tokens) and tokens[position].text in (",", ";"):
        position += 1
    return position


def _end_of_group(tokens: list[_Token], position: int, text: str, where: str) -> int:
    expected: list[str] = []
    opened = tokens[position]
    for index in range(position, len(tokens)):
        token = tokens[index]
        if token.kind == "open":
            expected.append(_PAIRS[token.text])
        elif token.kind == "close":
            if token.text != expected.pop():
                raise _error(text, token.start, where, f"{token.text!r} closes nothing")
            if not expected:
                return index + 1
    raise _error(text, opened.start, where, f"{opened.text!r} is never closed")


def _rest_of_line(text: str, position: int) -> int:
    """A comment on the field's last line belongs to it, and so does the line's end."""
    match = re.compile(r"[ \t]*(#[^\n]*)?(\n|$)").match(text, position)
    return match.end() if match else position


def _error(text: str, position: int, where: str, fact: str) -> InvalidInputError:
    line = text.count("\n", 0, position) + 1
    return InvalidInputError(f"{where}, line {line}: {fact}; see Triton's model configuration for the format")
