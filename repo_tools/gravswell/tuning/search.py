"""What to measure next, and what to choose of what was measured. Pure: tables in, one point out.

First a coarse grid over the whole space, with half of the budget at most; then uphill from the best point, one step
along each axis, until no neighbour of the best is left or the budget is spent. Latency grows with the clients, so where
a few are too many, more are not tried.
"""

from collections.abc import Sequence

from gravswell.tuning.report import Measurement
from gravswell.tuning.space import Point, Space

ALIKE = 0.03
"""Throughputs within so much of the best are the same: a second run would order them otherwise."""


def next_point(space: Space, measured: Sequence[Measurement], *, limit: float, budget: int) -> Point | None:
    """The point to measure now; None when there is nothing left that is worth it, or the budget is spent.

    :param limit: seconds within which the asked percentile of the answers must come.
    :param budget: measurements in all.
    """
    if len(measured) >= budget:
        return None
    done = {m.point for m in measured}
    over = [m.point for m in measured if not fits(m, limit)]
    for point in space.coarse(max(1, budget // 2)).points():
        if point not in done and not _hopeless(point, over):
            return point
    best = leader(measured, limit)
    if best is None:
        return None
    open_points = (p for p in space.neighbours(best.point) if p not in done and not _hopeless(p, over))
    return next(open_points, None)


def _hopeless(point: Point, over: Sequence[Point]) -> bool:
    return any(p.setting == point.setting and p.rows == point.rows and p.concurrency <= point.concurrency for p in over)


def fits(measurement: Measurement, limit: float) -> bool:
    """Whether its percentile came within ``limit`` seconds, and nothing failed."""
    return measurement.failure is None and measurement.latency_ms <= limit * 1e3


def leader(measured: Sequence[Measurement], limit: float) -> Measurement | None:
    """The most rows a second within the limit; while nothing is, the least latency. None if everything failed."""
    answered = [m for m in measured if m.failure is None]
    within = [m for m in answered if fits(m, limit)]
    if within:
        return max(within, key=lambda m: m.rows_per_second)
    return min(answered, key=lambda m: m.latency_ms, default=None)


def choose(measured: Sequence[Measurement], limit: float) -> Measurement | None:
    """What to serve with: of those that are as good as the best, the one that asks least of the server.

    That is fewer instances, which each hold the model in memory; then no batching, or a shorter wait; then the lower
    latency. None if nothing is within the limit.
    """
    within = [m for m in measured if fits(m, limit)]
    if not within:
        return None
    enough = max(m.rows_per_second for m in within) * (1 - ALIKE)

    def cost(m: Measurement) -> tuple[int, int, float]:
        return m.instances, -1 if m.queue_delay_us is None else m.queue_delay_us, m.latency_ms

    return min((m for m in within if m.rows_per_second >= enough), key=cost)
