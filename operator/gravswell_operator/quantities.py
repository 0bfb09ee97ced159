"""Kubernetes quantities as exact numbers, so that ``1`` and ``1000m`` compare equal. Pure."""

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

from gravswell.errors import InvalidInputError

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(1000),
    "M": Decimal(1000**2),
    "G": Decimal(1000**3),
    "T": Decimal(1000**4),
    "P": Decimal(1000**5),
    "E": Decimal(1000**6),
    "Ki": Decimal(1024),
    "Mi": Decimal(1024**2),
    "Gi": Decimal(1024**3),
    "Ti": Decimal(1024**4),
    "Pi": Decimal(1024**5),
    "Ei": Decimal(1024**6),
}
_QUANTITY = re.compile(
    r"(?P<number>[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)(?P<suffix>|[numkMGTPE]|[KMGTPE]i)"
)


def parse(quantity: Any) -> Decimal:
    """The number that ``quantity`` (text or number) stands for.

    Raises :class:`InvalidInputError`, which is a :class:`ValueError`, for what is no quantity.
    """
    match = _QUANTITY.fullmatch(str(quantity))
    if match is None:
        raise InvalidInputError(f"{quantity!r} is not a quantity, such as 500m or 8Gi")
    return Decimal(match["number"]) * _SUFFIXES[match["suffix"]]


def in_units(quantity: Any, divisor: Any) -> int:
    """How many whole ``divisor`` the quantity is, rounded up as the downward API does.

    >>> in_units("1500m", "1"), in_units("1Gi", "1Mi")
    (2, 1024)
    """
    return math.ceil(Fraction(parse(quantity)) / Fraction(parse(divisor)))


def equal(one: Any, other: Any) -> bool:
    """Whether both stand for the same amount."""
    try:
        return parse(one) == parse(other)
    except ValueError:
        return bool(one == other)
