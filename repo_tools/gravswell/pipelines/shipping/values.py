"""Values of a module or of a closure, written as Python."""

import ast
import re
from typing import Any

import numpy as np

_BRACKETS: dict[type, str] = {
    list: "[{}]",
    tuple: "({})",
    set: "set([{}])",
    frozenset: "frozenset([{}])",
    dict: "dict([{}])",
}


def as_source(value: Any) -> str | None:
    """An expression that makes ``value`` again: of plain values, and of collections of such.

    None for any other, and for one that :func:`is_endless`.
    """
    return None if is_endless(value) else _written(value)


def is_endless(value: Any) -> bool:
    """Whether a collection holds itself, or is nested deeper than Python reads back."""
    try:
        source = _written(value)
        if source is not None and type(value) in _BRACKETS:
            ast.parse(source)
    except (MemoryError, RecursionError, SyntaxError):  # by release and depth
        return True
    return False


def _written(value: Any) -> str | None:
    form = _BRACKETS.get(type(value))
    if form is not None:
        items = [_written(item) for item in _ordered(value)]
        return None if None in items else form.format("".join(f"{item}, " for item in items))
    if type(value) is float and not np.isfinite(value):
        return f"float({str(value)!r})"
    if type(value) is complex:
        return f"complex({_written(value.real)}, {_written(value.imag)})"
    if isinstance(value, re.Pattern):
        return f"__import__('re').compile({value.pattern!r}, {int(value.flags)})"
    if isinstance(value, np.dtype | np.generic):
        return _dtype(value) if isinstance(value, np.dtype) else _scalar(value)
    return repr(value) if _is_literal(value) else None


def _dtype(value: np.dtype[Any]) -> str | None:
    stated: Any = value.str if value.names is None else value.descr
    try:
        same = np.dtype(stated) == value
    except (TypeError, ValueError):
        same = False
    return f"__import__('numpy').dtype({stated!r})" if same else None  # others are of packages, or have gaps


def _scalar(value: np.generic) -> str | None:
    if value.dtype.kind in "mM":  # a count of its unit, of which no text tells all
        return f"__import__('numpy').int64({value.view(np.int64).item()}).view({value.dtype.str!r})"
    if value.dtype.char in "gG":  # wider than Python's own
        return f"__import__('numpy').{type(value).__name__}({str(value)!r})"
    kind, content = _written(value.dtype), _written(value.item())
    return None if value.dtype.kind == "V" or None in (kind, content) else f"{kind}.type({content})"


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
