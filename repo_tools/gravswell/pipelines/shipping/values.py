"""Values of a module or of a closure, written as Python."""

import ast
import re
from collections.abc import Callable
from typing import Any

import numpy as np

_MAKERS: dict[type, Callable[[Any], str]] = {
    re.Pattern: lambda value: f"__import__('re').compile({value.pattern!r}, {int(value.flags)})",
    np.dtype: lambda value: f"__import__('numpy').dtype({value.str!r})",
    np.generic: lambda value: f"__import__('numpy').dtype({value.dtype.str!r}).type({value.item()!r})",
}

_BRACKETS: dict[type, str] = {
    list: "[{}]",
    tuple: "({})",
    set: "set([{}])",
    frozenset: "frozenset([{}])",
    dict: "dict([{}])",
}


def as_source(value: Any) -> str | None:
    """An expression that makes ``value`` again: of plain values, and of collections of such. None for any other."""
    form = _BRACKETS.get(type(value))
    if form is not None:
        items = [as_source(item) for item in _ordered(value)]
        return None if None in items else form.format("".join(f"{item}, " for item in items))
    if type(value) is float and not np.isfinite(value):
        return f"float({str(value)!r})"
    for kind, made in _MAKERS.items():
        if isinstance(value, kind):
            return made(value)
    return repr(value) if _is_literal(value) else None


def _ordered(value: Any) -> list[Any]:
    """The items of a collection, of a dict its pairs, always in the same order."""
    if isinstance(value, dict):
        return list(value.items())
    return sorted(value, key=repr) if isinstance(value, set | frozenset) else list(value)


def _is_literal(value: Any) -> bool:
    """Whether Python reads its ``repr`` back as the same, which it does of no subclass and no object."""
    text = repr(value)
    try:
        again = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return type(again) is type(value) and repr(again) == text
