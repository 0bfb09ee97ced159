"""When failed probes are proof of a dead backend process. Pure.

A process that died behind a model is never restarted by Triton, and the model still says ready: only an inference shows
it, and only unloading and loading mends it. Both cost a user dearly if they come by mistake, so: a model that others
use without errors is not probed, a slow one is not touched, and it takes three failures in a row, or more of them than
of right answers for a while, as when one of two instances is dead.
"""

from dataclasses import dataclass
from typing import NamedTuple

FAILURE = 2
SUCCESS = -1
"""What a probe adds to the suspicion. One instance dead of two fails every other probe, and is found out too."""

PROOF = 3 * FAILURE


class InferenceCounts(NamedTuple):
    """Requests that a version answered and failed since it was loaded."""

    succeeded: int
    failed: int
    nanoseconds: int = 0
    """Sum of what those that succeeded took, their wait in Triton's queue included."""


@dataclass
class Health:
    """The probes of one load of one model."""

    counts: InferenceCounts | None = None
    """Triton's counts at the last look."""
    suspicion: int = 0

    def in_good_use(self, counts: InferenceCounts) -> bool:
        """Whether others got answers since the last look, and no errors: then it lives and needs no probe."""
        before, self.counts = self.counts, counts
        if before is None or counts.succeeded <= before.succeeded or counts.failed > before.failed:
            return False
        self.suspicion = max(0, self.suspicion + SUCCESS)
        return True

    def answered(self, counts: InferenceCounts) -> None:
        """The probe got a right answer; ``counts`` includes it."""
        self.suspicion = max(0, self.suspicion + SUCCESS)
        self.counts = counts

    def failed(self) -> bool:
        """The probe got an error or a wrong answer. True when that is proof enough to unload and load."""
        self.suspicion += FAILURE
        if self.suspicion < PROOF:
            return False
        self.suspicion = 0
        return True
