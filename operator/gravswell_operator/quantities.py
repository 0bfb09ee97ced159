"""Kubernetes quantities as exact numbers, so that ``1`` and ``1000m`` compare equal. Pure."""

import re
from decimal import Decimal
from typing import Any

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
    r"^(?P<number>[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?)(?P<suffix>|[numkMGTPE]|[KMGTPE]i)$"
)


def parse(quantity: Any) -> Decimal:
    """The number that ``quantity`` (text or number) stands for.

    Raises :class:`ValueError` for what is no quantity.
    """
    match = _QUANTITY.match(str(quantity))
    if match is None:
        raise ValueError(f"{quantity!r} is not a quantity, such as 500m or 8Gi")
    return Decimal(match["number"]) * _SUFFIXES[match["suffix"]]


def equal(one: Any, other: Any) -> bool:
    """Whether both stand for the same amount."""
    try:
        return parse(one) == parse(other)
    except ValueError:
        return bool(one == other)
