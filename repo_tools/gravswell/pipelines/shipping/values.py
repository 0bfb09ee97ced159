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
    frozenset: lambda value: f"frozenset({sorted(value, key=repr)!r})",
}


def as_source(value: Any) -> str | None:
    """An expression that makes ``value`` again: of plain values, and of collections of such. None for any other."""
    if type(value) is float and not np.isfinite(value):
        return f"float({str(value)!r})"
    for kind, made in _MAKERS.items():
        if isinstance(value, kind):
            plain = not isinstance(value, frozenset) or _is_literal(list(value))
            return made(value) if plain else None
    return repr(value) if _is_literal(value) else None


def _is_literal(value: Any) -> bool:
    """Whether Python reads its ``repr`` back as the same: that tells a subclass, and an object inside of a list."""
    text = repr(value)
    try:
        again = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return type(again) is type(value) and repr(again) == text
