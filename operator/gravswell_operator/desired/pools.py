"""How many nodes a pool shall have now, and since when nobody uses it. Pure: the time is an argument."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from gravswell import durations
from gravswell_operator import conditions
from gravswell_operator.api import GPUNodePool, InferenceServer
from gravswell_operator.desired.autoscaling import sleeps
from gravswell_operator.desired.placement import allows, peak_replicas

_DRAIN_FOR = "1h"
"""How long draining a node may take, where ``drainTimeout`` does not say."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many nodes a pool shall have now: a fixed number where the two are equal."""

    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Idleness:
    """Since when nobody uses a pool, and whether that is long enough to remove its nodes."""

    since: datetime | None = None
    """None: it is in use, or nobody wants to know."""
    remaining: float = 0.0
    """Seconds until its nodes go; 0 where that is now, or never."""

    @property
    def due(self) -> bool:
        """Whether the pool's nodes shall go, or be gone."""
        return self.since is not None and self.remaining <= 0

    @property
    def stamp(self) -> str | None:
        """``since`` as the status writes it."""
        return conditions.stamp(self.since) if self.since is not None else None


def drain_timeout(pool: GPUNodePool) -> str:
    """How long draining one of the pool's nodes may take, as a duration."""
    return pool.spec.drain_timeout or _DRAIN_FOR


def in_use(pool: GPUNodePool, servers: Iterable[InferenceServer]) -> bool:
    """Whether one of the servers that name the pool may use it, and asks for a replica: not one that sleeps."""
    return any(allows(pool, s.metadata.namespace) and peak_replicas(s) > 0 and not sleeps(s) for s in servers)


def idleness(pool: GPUNodePool, *, used: bool, now: datetime) -> Idleness:
    """How long the pool has stood unused, by what its status said last. ``now`` is in UTC.

    Nobody has looked while it was suspended, so that the wait begins anew.
    """
    if pool.spec.idle_after is None or used:
        return Idleness()
    suspended = any(condition.type == conditions.SUSPENDED for condition in pool.status.conditions)
    said = pool.status.idle_since if not suspended else None
    began = datetime.fromisoformat(said) if said is not None else now.replace(microsecond=0)
    since = min(began, now)  # a clock that was put back must not make the wait longer than it is
    end = since + timedelta(seconds=durations.seconds(pool.spec.idle_after))
    return Idleness(since, max((end - now).total_seconds(), 0.0))


def bounds(pool: GPUNodePool, idle: Idleness) -> Bounds:
    """The bounds of a pool by its spec; of one that nobody has used for as long as ``idleAfter`` says, from none.

    A pool of a fixed size then has none at all; one that grows as it is needed may grow at once.
    """
    autoscaling = pool.spec.autoscaling
    if autoscaling is not None:
        return Bounds(0 if idle.due else autoscaling.min, autoscaling.max)
    size = pool.spec.size if pool.spec.size is not None else 1
    return Bounds(0, 0) if idle.due else Bounds(size, size)
