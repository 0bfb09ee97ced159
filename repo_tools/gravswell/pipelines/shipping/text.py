"""The text of a function or a class, as its author wrote it, to stand in another file."""

import ast
import inspect
from typing import Any

_WHERE_IT_WAS = "if True:  # as it was written within another, for its texts of several lines to stay as they are\n"


def text_of(defined: Any) -> str:
    """Its source, decorators and all. OSError or TypeError where it cannot be found."""
    text = "".join(inspect.getsourcelines(defined)[0]).rstrip()
    indent = text[: len(text) - len(text.lstrip())]
    if not indent:
        return text
    whole = _WHERE_IT_WAS + text
    texts = [node for node in ast.walk(ast.parse(whole)) if isinstance(node, ast.Constant | ast.JoinedStr)]
    if any(node.end_lineno != node.lineno for node in texts):
        return whole
    return "\n".join(
        line.removeprefix(indent) if line.startswith(indent) else line.lstrip() for line in text.split("\n")
    )


def definition_in(text: str) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | None:
    """The definition that :func:`text_of` gave; None for a text that is none, such as of a lambda."""
    node = ast.parse(text).body[0]
    if isinstance(node, ast.If) and text.startswith(_WHERE_IT_WAS):
        node = node.body[0]
    return node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else None


def without_decorators(text: str, count: int) -> str:
    """The text without the first ``count`` decorators of its definition."""
    node = definition_in(text)
    dropped = node.decorator_list[:count] if node is not None else []
    lines = text.split("\n")
    if dropped:
        del lines[dropped[0].lineno - 1 : dropped[-1].end_lineno]
    return "\n".join(lines)
