"""What is tried: the values of each axis, and a point among them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from math import prod
from typing import Any, Literal

from gravswell.errors import InvalidInputError

Batching = Literal["on", "off", "both"]

ROWS = (1, 8, 32)
CONCURRENCY = (1, 2, 4, 8, 16, 32, 64)
DELAY_SHARE = 0.05
"""Part of the latency limit that a server may wait for more requests to batch: the alternative to no wait."""


@dataclass(frozen=True, slots=True)
class Point:
    """A setting of the server, and a load on it."""

    instances: int
    delay: int | None
    """Microseconds that the dynamic batcher waits for more requests, 0 for none; None: no dynamic batching."""
    rows: int
    """Of one request."""
    concurrency: int
    """Clients, each of which sends its next request when it has the answer to the last one."""

    @property
    def setting(self) -> tuple[int, int | None]:
        """What of it the server has to be told."""
        return self.instances, self.delay


@dataclass(frozen=True, slots=True)
class Space:
    """The values of each axis, ascending; no wait comes before a wait, and no batching before both."""

    instances: tuple[int, ...]
    delays: tuple[int | None, ...]
    rows: tuple[int, ...]
    concurrency: tuple[int, ...]

    def __len__(self) -> int:
        return prod(map(len, self._axes()))

    def points(self) -> list[Point]:
        """All points, those of one setting together: a server is loaded anew for each."""
        return [Point(*values) for values in product(*self._axes())]

    def neighbours(self, point: Point) -> list[Point]:
        """One step from ``point`` along each axis; what needs no other setting first."""
        found = []
        for axis, name in reversed(list(zip(self._axes(), Point.__dataclass_fields__, strict=True))):
            at = axis.index(getattr(point, name))
            for to in (at + 1, at - 1):
                if 0 <= to < len(axis):
                    found.append(replace(point, **{name: axis[to]}))
        return found

    def coarse(self, most: int) -> "Space":
        """At most ``most`` points that span the whole: values leave the longest axis, its ends never.

        Where even the ends are more than that, an axis keeps one value: the upper end of the clients, which shows what
        a setting can do, and the lower end of the others.
        """
        axes = [list(axis) for axis in self._axes()]
        while prod(map(len, axes)) > most:
            longest = max(range(len(axes)), key=lambda i: (len(axes[i]), i))
            axis = axes[longest]
            if len(axis) > 2:
                del axis[len(axis) // 2]
            elif len(axis) == 2:
                del axis[0 if longest == len(axes) - 1 else 1]
            else:
                break
        return Space(*(tuple(axis) for axis in axes))

    def _axes(self) -> tuple[tuple[Any, ...], ...]:
        return tuple(getattr(self, field.name) for field in fields(self))


def space(
    *,
    latency_limit: float,
    max_batch_size: int,
    golden_rows: int | None,
    cpus: int,
    batch_sizes: Sequence[int] | None = None,
    instances: Sequence[int] | None = None,
    concurrency: Sequence[int] | None = None,
    batching: Batching = "both",
) -> Space:
    """What to try, of what the user gave and what the model takes. InvalidInputError where these contradict.

    :param latency_limit: in seconds.
    :param max_batch_size: the configuration's; 0 where the server forms no batches.
    :param golden_rows: rows of a request where the model takes no others; None where it takes any number.
    """
    if batching == "on" and max_batch_size < 2:
        raise InvalidInputError(
            f"dynamic batching needs a max_batch_size above 1, and the entry's is {max_batch_size}: export it with "
            f"--max-batch-size N, or leave --dynamic-batching out"
        )
    rows = _ascending("batch sizes", batch_sizes)
    if golden_rows is not None:
        if rows not in ((), (golden_rows,)):
            raise InvalidInputError(f"the model takes batches of {golden_rows} only: leave --batch-sizes out")
        rows = (golden_rows,)
    elif not rows:
        rows = tuple(n for n in ROWS if not max_batch_size or n <= max_batch_size)
    elif max_batch_size and rows[-1] > max_batch_size:
        raise InvalidInputError(f"the entry's max_batch_size is {max_batch_size}: leave batch size {rows[-1]} out")
    wait = round(latency_limit * DELAY_SHARE * 1e6)
    both: tuple[int | None, ...] = (None, 0, wait) if wait else (None, 0)
    delays = {"off": both[:1], "on": both[1:], "both": both if max_batch_size > 1 else both[:1]}
    return Space(
        instances=_ascending("instances", instances) or tuple(2**n for n in range(cpus.bit_length())),
        delays=delays[batching],
        rows=rows,
        concurrency=_ascending("concurrency", concurrency) or CONCURRENCY,
    )


def _ascending(what: str, values: Sequence[int] | None) -> tuple[int, ...]:
    if values is None:
        return ()
    if not values or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in values):
        raise InvalidInputError(f"{what} {list(values)}: give whole numbers from 1 on")
    return tuple(sorted(set(values)))
