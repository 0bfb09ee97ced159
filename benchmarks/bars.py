"""What figures are held to: a benchmark ends with 1 if one misses its bar, and says which after all of them."""

import sys
from collections.abc import Iterable


def at_least(what: str, figure: float, bar: float, unit: str = "") -> list[str]:
    """The line that names the bar and the figure where that is below it; none where it is met."""
    return [] if figure >= bar else [f"{what}: {figure:g}{unit}, and the bar is at least {bar:g}{unit}"]


def at_most(what: str, figure: float, bar: float, unit: str = "") -> list[str]:
    """The line that names the bar and the figure where that is above it; none where it is met."""
    return [] if figure <= bar else [f"{what}: {figure:g}{unit}, and the bar is at most {bar:g}{unit}"]


def hold(missed: Iterable[str]) -> None:
    """Print these lines to standard error, which leaves the figures alone; SystemExit with 1 if there is any."""
    lines = [f"missed: {line}" for line in missed]
    if lines:
        print("\n".join(lines), file=sys.stderr)
        sys.exit(1)
