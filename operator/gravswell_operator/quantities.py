"""Kubernetes quantities as exact numbers, so that ``1`` and ``1000m`` compare equal. Pure."""

from decimal import Decimal, InvalidOperation
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


def parse(quantity: Any) -> Decimal:
    """The number that ``quantity`` (text or number) stands for.

    Raises :class:`ValueError` for what is no quantity.
    """
    text = str(quantity).strip()
    number = text.rstrip("numkKMGTPEi")
    suffix = text[len(number) :]
    if suffix == "E" and number == "":
        raise ValueError(f"{text!r} is not a quantity")
    try:
        return Decimal(number) * _SUFFIXES[suffix]
    except (InvalidOperation, KeyError):
        raise ValueError(f"{text!r} is not a quantity, such as 500m or 8Gi") from None


def equal(one: Any, other: Any) -> bool:
    """Whether both stand for the same amount."""
    try:
        return parse(one) == parse(other)
    except ValueError:
        return bool(one == other)
