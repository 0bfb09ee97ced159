"""Durations as a user writes them, in custom resources and on the command line: one grammar, and its one reader.

Its law: only the standard library, for the operator's API stands on it too.
"""

import re
from datetime import timedelta

from gravswell.errors import InvalidInputError

PATTERN = "([0-9]{1,4}h)?([0-9]{1,4}m)?([0-9]{1,4}s)?"
"""Hours, minutes and seconds, such as ``1h30m`` or ``45s``: the whole text, and few enough digits for every clock. It
takes an empty text too, which is no duration."""

_UNITS = {"h": 3600, "m": 60, "s": 1}


def seconds(duration: str, *, at_least: int = 0) -> int:
    """The length of ``duration`` in seconds.

    Raises :class:`InvalidInputError` for a text that is none, or one of less than ``at_least`` seconds.
    """
    length = None
    if duration and re.fullmatch(PATTERN, duration):
        length = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9]+)([hms])", duration))
    if length is None or length < at_least:
        raise InvalidInputError(f"{duration!r} is no interval: write 30s, 5m or 1h30m")
    return length


def span(text: str) -> timedelta:
    """The length of ``text``: a duration, or whole days such as ``30d``, which is what people keep things for.

    Raises :class:`InvalidInputError` for a text that is neither.
    """
    days = re.fullmatch(r"([0-9]{1,4})d", text)
    try:
        return timedelta(days=int(days[1])) if days else timedelta(seconds=seconds(text))
    except InvalidInputError:
        raise InvalidInputError(f"{text!r} is no length of time: write 30d, 12h or 1h30m") from None


def fraction(text: str) -> float:
    """The length of ``text`` in seconds, of those that latencies are told in: ``20ms``, ``1.5s``, ``800us``.

    Raises :class:`InvalidInputError` for a text that is none, or no time at all.
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(us|ms|s)", text)
    length = float(found[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[found[2]] if found else 0.0
    if not length:
        raise InvalidInputError(f"{text!r} is no time: write 20ms, 1.5s or 800us")
    return length
