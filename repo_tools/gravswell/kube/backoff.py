"""Waits between attempts at something that others must mend."""

import random
from dataclasses import dataclass

from gravswell.kube.errors import ApiUnavailableError


@dataclass
class Backoff:
    """Doubling waits in seconds, each shortened by up to a quarter so that replicas do not call in step."""

    first: float = 1.0
    longest: float = 30.0
    failures: int = 0

    def failed(self, error: Exception | None = None) -> float:
        """Count a failure; the seconds to wait before the next attempt.

        Never fewer than an API server that raised ``error`` has asked for.
        """
        wait = min(self.first * 2.0 ** min(self.failures, 16), self.longest)
        self.failures += 1
        wait *= random.uniform(0.75, 1.0)  # noqa: S311  spreads load, guards nothing
        asked = error.retry_after if isinstance(error, ApiUnavailableError) else None
        return max(wait, asked or 0.0)

    def succeeded(self) -> None:
        """Begin again."""
        self.failures = 0
