"""Waits between attempts at something that others must mend."""

import random
from dataclasses import dataclass

from gravswell.kube.errors import ApiUnavailableError

SHORT_WATCH_SECONDS = 1.0
"""A watch that ends before this: to open the next one at once would be a busy loop, whatever it said."""
STEADY_WATCH_SECONDS = 2.0
"""A watch that lived this long worked, though nothing happened: what ends it is the first of another fault."""


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

    def watch_ended(self, lived: float, *, heard: bool, error: Exception | None = None) -> float:
        """The seconds to wait after a watch that ended, with ``error`` or as the API server ends it.

        It ``lived`` so many seconds since it was answered, 0 where it was not, and an event or a bookmark was ``heard``
        or none.
        """
        if heard or lived >= STEADY_WATCH_SECONDS:
            self.succeeded()
        return 0.0 if error is None and lived >= SHORT_WATCH_SECONDS else self.failed(error)

    def succeeded(self) -> None:
        """Begin again."""
        self.failures = 0
