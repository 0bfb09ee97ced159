"""What to measure next, and what to choose of what was measured. Pure: tables in, one point out.

First a coarse grid over the whole space, with half of the budget at most, in which the members of an ensemble are all
set alike; then uphill from the best point, one step along each axis, the models that limit first; and then what the
best can do without. It ends when no such step is left or the budget is spent. Latency grows with the clients, so where
a few are too many, more are not tried.
"""

from collections.abc import Sequence

from gravswell.tuning.report import Measurement
from gravswell.tuning.space import Point, Setting, Space

ALIKE = 0.03
"""Throughputs within so much of the best are the same: a second run would order them otherwise."""


def next_point(space: Space, measured: Sequence[Measurement], *, limit: float, budget: int) -> Point | None:
    """The point to measure now; None when there is nothing left that is worth it, or the budget is spent.

    :param limit: seconds within which the asked percentile of the answers must come.
    :param budget: measurements in all.
    """
    if len(measured) >= budget:
        return None
    best, enough = leader(measured, limit), choose(measured, limit)
    steps = space.coarse(max(1, budget // 2))
    if best is not None:
        steps += _around(space, best)
    if enough is not None:
        steps += [p for p in _around(space, enough) if _cost(p.settings) < _cost(enough.point.settings)]
    done = {m.point for m in measured}
    over = [m.point for m in measured if not fits(m, limit)]
    return next((p for p in steps if p not in done and not _hopeless(p, over)), None)


def _around(space: Space, m: Measurement) -> list[Point]:
    return space.neighbours(m.point, [model.busy for model in m.models])


def _hopeless(point: Point, over: Sequence[Point]) -> bool:
    return any(
        p.settings == point.settings and p.rows == point.rows and p.concurrency <= point.concurrency for p in over
    )


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

    That is fewer instances in all, which each hold their model in memory; then no batching, or a shorter wait; then the
    lower latency. None if nothing is within the limit.
    """
    within = [m for m in measured if fits(m, limit)]
    if not within:
        return None
    enough = max(m.rows_per_second for m in within) * (1 - ALIKE)
    good = (m for m in within if m.rows_per_second >= enough)
    return min(good, key=lambda m: (_cost(m.point.settings), m.latency_ms))


def _cost(settings: Sequence[Setting]) -> tuple[int, int]:
    """Instances, and waits."""
    waits = sum(-1 if setting.delay is None else setting.delay for setting in settings)
    return sum(setting.instances for setting in settings), waits
