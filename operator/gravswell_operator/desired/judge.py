"""Whether a new version is as good as the old one, by what clients asked of both in the same time. Pure."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from gravswell.serving.contracts import Canary, DesiredModel, ModelReport, Traffic
from gravswell_operator.api.rollout import Judge, fraction


class Verdict(enum.Enum):
    """What is known so far."""

    GOOD = "good"
    UNKNOWN = "unknown"
    """Too few requests to say."""
    BAD = "bad"


@dataclass(frozen=True)
class Requests:
    """What clients asked of one version in a window, on all of its replicas."""

    succeeded: int = 0
    failed: int = 0
    seconds: float = 0.0
    """Sum, of those that succeeded."""

    @classmethod
    def of(cls, told: Iterable[Traffic]) -> "Requests":
        """The sum of what replicas told."""
        found = list(told)
        return cls(sum(t.succeeded for t in found), sum(t.failed for t in found), sum(t.seconds for t in found))

    @classmethod
    def told(cls, reports: Iterable[ModelReport | None], version: DesiredModel | Canary, window: str) -> "Requests":
        """What clients asked of ``version`` in the window, by what replicas say of the model."""
        serving = (r for r in reports if r is not None and r.has_loaded(version))
        return cls.of(r.traffic for r in serving if r.traffic is not None and r.traffic.window == window)

    @property
    def total(self) -> int:
        """All that were accepted."""
        return self.succeeded + self.failed

    @property
    def failing(self) -> Fraction:
        """The share of them that failed."""
        return Fraction(self.failed, self.total) if self.total else Fraction(0)

    @property
    def mean(self) -> float:
        """Seconds for one that succeeded."""
        return self.seconds / self.succeeded if self.succeeded else 0.0

    def __str__(self) -> str:
        return f"{self.failed} of {self.total} failed, {self.mean * 1000:.3g} ms on average"


def judge(rules: Judge, new: Requests, old: Requests) -> tuple[Verdict, str]:
    """The verdict on the new version, and why.

    Of few requests a single failure is a large share, so its failures are held against those of ``minRequests`` at
    least: what would be too many of these is too many of fewer.
    """
    allowed = fraction(rules.max_error_rate) + old.failing
    if new.failed > allowed * max(new.total, rules.min_requests):
        return Verdict.BAD, (
            f"it fails too many requests: {new}, where maxErrorRate {rules.max_error_rate} beyond the old version's "
            f"failures ({old}) is allowed"
        )
    if new.total < rules.min_requests:
        tenths = 10 * new.total // rules.min_requests  # in words that do not change with every request
        return Verdict.UNKNOWN, f"it was asked {10 * tenths}% of the {rules.min_requests} requests of minRequests"
    if _too_slow(rules, new, old):
        return (
            Verdict.BAD,
            f"it is too slow: {new}; the old version: {old}; maxLatencyRatio is {rules.max_latency_ratio}",
        )
    return Verdict.GOOD, f"{new}; the old version: {old}"


def _too_slow(rules: Judge, new: Requests, old: Requests) -> bool:
    if rules.max_latency_ratio is None or min(new.succeeded, old.succeeded) < max(rules.min_requests, 1):
        return False
    return new.mean > fraction(rules.max_latency_ratio) * old.mean
