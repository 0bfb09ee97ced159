"""Waits between attempts at something that others must mend."""

import random
from dataclasses import dataclass


@dataclass
class Backoff:
    """Doubling waits in seconds, each shortened by up to a quarter so that replicas do not call in step."""

    first: float = 1.0
    longest: float = 30.0
    failures: int = 0

    def failed(self) -> float:
        """Count a failure; the seconds to wait before the next attempt."""
        wait = min(self.first * 2.0 ** min(self.failures, 16), self.longest)
        self.failures += 1
        return wait * random.uniform(0.75, 1.0)  # noqa: S311  spreads load, guards nothing

    def succeeded(self) -> None:
        """Begin again."""
        self.failures = 0
