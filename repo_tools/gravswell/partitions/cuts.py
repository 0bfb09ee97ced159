"""Where to cut a sequence into slices of about the same weight, so that little goes from one to the next. Pure."""

from collections.abc import Callable, Sequence

import numpy as np

from gravswell.quiver.golden import Array

SLACK = 0.1
"""By how much the heaviest slice may be heavier than need be, where less goes across the cuts then."""


def cut(weights: Sequence[float], layers: Sequence[bool], crossing: Sequence[float], slices: int) -> list[int]:
    """The ends of ``slices`` consecutive slices of the items: slice k is ``items[ends[k - 1] : ends[k]]``.

    ``weights``: of each item, 0 or more. ``layers``: which items count, of which every slice gets one at least, so
    that there must be as many. ``crossing``: what a cut after each item costs. The heaviest slice is at most
    :data:`SLACK` above the lightest that there could be; within that as little as can be goes across, and where that is
    about the same the others are even too.
    """
    assert 1 <= slices <= sum(layers)
    before = np.concatenate([[0.0], np.cumsum(np.asarray(weights, np.float64))])
    counted = np.concatenate([[0], np.cumsum(np.asarray(layers, np.int64))])
    # the first start from which a slice to an end holds no item that counts
    late = np.searchsorted(counted, counted, "left")
    limit = _ways(late, slices, lambda best, end: np.maximum(best, before[end] - before[: len(best)]))[0][-1]
    limit = limit * (1 + SLACK)
    costs = np.asarray(crossing, np.float64)
    count = len(weights)
    mean = max(float(before[-1]) / slices, 1e-9)

    def crossed(best: Array, end: int) -> Array:
        weight = before[end] - before[: len(best)]
        across = costs[end - 1] if end < count else 0.0
        return np.where(weight <= limit, best + across + (weight / mean) ** 2, np.inf)

    _, ways = _ways(late, slices, crossed)
    ends = [count]
    for way in reversed(ways[1:]):
        ends.append(int(way[ends[-1]]))
    return ends[::-1]


def _ways(late: Array, slices: int, extended: Callable[[Array, int], Array]) -> tuple[Array, list[Array]]:
    """The least cost of every beginning in so many slices, and where the last slice of each begins, slice by slice.

    ``extended(best, end)``: the costs of a further slice that ends at ``end`` and begins at 0, 1…, where the beginning
    up to there costs ``best``.
    """
    count = len(late) - 1
    best: Array = np.full(count + 1, np.inf)
    best[0] = 0.0
    ways = []
    for _ in range(slices):
        following: Array = np.full(count + 1, np.inf)
        way: Array = np.zeros(count + 1, np.int64)
        for end in range(1, count + 1):
            costs = extended(best[: late[end]], end)
            if costs.size:
                way[end] = int(np.argmin(costs))
                following[end] = costs[way[end]]
        best = following
        ways.append(way)
    return best, ways
