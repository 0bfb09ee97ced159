"""Kubernetes quantities (``500m``, ``2Gi``) as exact numbers."""

import math
import re
from fractions import Fraction

from gravswell.errors import InvalidInputError

_SUFFIXES = {
    **{suffix: Fraction(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
    **{suffix: Fraction(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{suffix: 1 / Fraction(1000) ** power for power, suffix in enumerate(("m", "u", "n"), start=1)},
    "": Fraction(1),
}

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([a-zA-Z]*)")


def parse(text: str) -> Fraction:
    """Return the exact value of quantity ``text``; :class:`InvalidInputError` if it is none."""
    match = _FORM.fullmatch(text)
    if match is None or match[2] not in _SUFFIXES:
        raise InvalidInputError(f"{text!r} is not a quantity such as 500m, 2 or 4Gi")
    return Fraction(match[1]) * _SUFFIXES[match[2]]


def in_units(text: str, divisor: str) -> int:
    """Return how many whole ``divisor`` the quantity is, rounded up as the downward API does.

    >>> in_units("1500m", "1"), in_units("1Gi", "1Mi")
    (2, 1024)
    """
    return math.ceil(parse(text) / parse(divisor))
