"""When a failed probe is proof of a dead backend process. Pure.

A process that died behind a model is never restarted by Triton, and the model still says ready: only an inference shows
it, and only unloading and loading mends it. Both cost a user dearly if they come by mistake, so: a busy model is not
probed, a slow one is not touched, and an error counts only when three follow one another and nothing succeeded between.
"""

from dataclasses import dataclass
from typing import NamedTuple

FAILURES_TO_RELOAD = 3


class InferenceCounts(NamedTuple):
    """Requests that a version answered and failed since it was loaded."""

    succeeded: int
    failed: int


@dataclass
class Health:
    """The probes of one load of one model."""

    counts: InferenceCounts | None = None
    """Triton's counts at the last look."""
    failures: int = 0
    """Probes in a row that got an error or a wrong answer."""

    def busy(self, counts: InferenceCounts) -> bool:
        """Whether others got answers since the last look: then it lives, and needs no probe."""
        before, self.counts = self.counts, counts
        busy = before is not None and counts.succeeded > before.succeeded
        if busy:
            self.failures = 0
        return busy

    def answered(self, counts: InferenceCounts) -> None:
        """The probe got a right answer; ``counts`` includes it."""
        self.failures = 0
        self.counts = counts

    def failed(self) -> bool:
        """The probe got an error or a wrong answer. True when that is proof enough to unload and load."""
        self.failures += 1
        if self.failures < FAILURES_TO_RELOAD:
            return False
        self.failures = 0
        return True
