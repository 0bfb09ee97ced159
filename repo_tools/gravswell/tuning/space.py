"""What is tried: the values of each axis, and a point among them. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any, Literal, NamedTuple, TypeVar

from gravswell.errors import InvalidInputError

Batching = Literal["on", "off", "both"]
Delays = tuple[int | None, ...]

_T = TypeVar("_T")

ROWS = (1, 8, 32)
CONCURRENCY = (1, 2, 4, 8, 16, 32, 64)
DELAY_SHARE = 0.05
"""Part of the latency limit that a server may wait for more requests to batch: the alternative to no wait."""

LIMITING_SHARE = 0.8
"""Models whose instances are busy for so much of the time that the busiest one's are limit the whole with it."""


class Setting(NamedTuple):
    """What the server is told of one model."""

    instances: int
    delay: int | None
    """Microseconds that the dynamic batcher waits for more requests, 0 for none; None: no dynamic batching."""


@dataclass(frozen=True, slots=True)
class Point:
    """A setting of each model that is tuned, and a load on the whole."""

    settings: tuple[Setting, ...]
    """One for an ordinary entry; for an ensemble those of its members, in one order."""
    rows: int
    """Of one request."""
    concurrency: int
    """Clients, each of which sends its next request when it has the answer to the last one."""


@dataclass(frozen=True, slots=True)
class Space:
    """The values of each axis, ascending; no wait comes before a wait, and no batching before both."""

    instances: tuple[int, ...]
    delays: tuple[Delays, ...]
    """Of each model: not every one can form batches."""
    rows: tuple[int, ...]
    concurrency: tuple[int, ...]

    def __len__(self) -> int:
        settings = prod(len(self.instances) * len(delays) for delays in self.delays)
        return settings * len(self.rows) * len(self.concurrency)

    def points(self) -> list[Point]:
        """All points, those of one setting together: a server is loaded anew for each."""
        each = [[Setting(n, delay) for n in self.instances for delay in delays] for delays in self.delays]
        return [Point(*values) for values in product(product(*each), self.rows, self.concurrency)]

    def coarse(self, most: int) -> list[Point]:
        """At most ``most`` points that span the whole, all models set alike: values leave the longest axis, never its
        ends.

        Where even the ends are more than that, an axis keeps one value: the upper end of the clients, which shows what
        a setting can do, and the lower end of the others.
        """
        common = max(self.delays, key=len)
        axes: list[list[Any]] = [list(axis) for axis in (self.instances, common, self.rows, self.concurrency)]
        while prod(map(len, axes)) > most:
            longest = max(range(len(axes)), key=lambda i: (len(axes[i]), i))
            axis = axes[longest]
            if len(axis) > 2:
                del axis[len(axis) // 2]
            elif len(axis) == 2:
                del axis[0 if longest == len(axes) - 1 else 1]
            else:
                break
        return [
            Point(tuple(Setting(count, delay if delay in own else own[0]) for own in self.delays), rows, clients)
            for count, delay, rows, clients in product(*axes)
        ]

    def neighbours(self, point: Point, busy: Sequence[float]) -> list[Point]:
        """One step from ``point`` along each axis, the most promising first.

        What needs no other setting comes first; then relief for the models that limit, each alone and all of them
        together; then the others with no more instances than their work takes, and with fewer of one; then the rest.

        :param busy: the share of the time for which the instances of each model compute.
        """
        limiting = [i for i, share in enumerate(busy) if share >= LIMITING_SHARE * max(busy)]
        limiting.sort(key=lambda i: -busy[i])
        others = [i for i in range(len(busy)) if i not in limiting]
        found = [replace(point, concurrency=n) for n in _steps(self.concurrency, point.concurrency)]
        found += [replace(point, rows=n) for n in _steps(self.rows, point.rows)]
        for i in limiting:
            found += self._batched(point, i)
            found += self._counted(point, [i], 1)
        if len(limiting) > 1:
            found += self._counted(point, limiting, 1)
        found.append(_with(point, {i: self._enough(point.settings[i], busy[i]) for i in others}))
        for i in others:
            found += self._counted(point, [i], -1)
            found += self._batched(point, i)
        for i in limiting:
            found += self._counted(point, [i], -1)
        for i in others:
            found += self._counted(point, [i], 1)
        return [each for each in dict.fromkeys(found) if each != point]

    def _enough(self, setting: Setting, busy: float) -> Setting:
        """As many instances as would be busy for the limiting share of the time with the same work, and no more."""
        needed = setting.instances * busy / LIMITING_SHARE
        return setting._replace(instances=next(n for n in self.instances if n >= min(needed, setting.instances)))

    def _batched(self, point: Point, i: int) -> Iterator[Point]:
        for delay in _steps(self.delays[i], point.settings[i].delay):
            yield _with(point, {i: point.settings[i]._replace(delay=delay)})

    def _counted(self, point: Point, which: Sequence[int], by: int) -> Iterator[Point]:
        """The ``which`` models with more instances, or fewer; nothing where one of them has no such count."""
        to = [self.instances.index(point.settings[i].instances) + by for i in which]
        if all(0 <= at < len(self.instances) for at in to):
            counts = zip(which, to, strict=True)
            yield _with(point, {i: point.settings[i]._replace(instances=self.instances[at]) for i, at in counts})


def _with(point: Point, changed: dict[int, Setting]) -> Point:
    return replace(point, settings=tuple(changed.get(i, setting) for i, setting in enumerate(point.settings)))


def _steps(axis: Sequence[_T], value: _T) -> Iterator[_T]:
    at = axis.index(value)
    return (axis[to] for to in (at + 1, at - 1) if 0 <= to < len(axis))


class Batcher(NamedTuple):
    """What a model can do of dynamic batching, and what of it is to be tried."""

    max_batch_size: int
    """The configuration's; 0 where the server forms no batches."""
    batching: Batching = "both"


def space(
    *,
    latency_limit: float,
    models: Sequence[Batcher],
    max_batch_size: int,
    golden_rows: int | None,
    cpus: int,
    batch_sizes: Sequence[int] | None = None,
    instances: Sequence[int] | None = None,
    concurrency: Sequence[int] | None = None,
) -> Space:
    """What to try, of what the user gave and what the models take. InvalidInputError where these contradict.

    :param latency_limit: in seconds.
    :param models: those that are tuned.
    :param max_batch_size: of what is asked: the model itself, or the ensemble; 0 where it takes any.
    :param golden_rows: rows of a request where it takes no others; None where it takes any number.
    """
    rows = _ascending("batch sizes", batch_sizes)
    if golden_rows is not None:
        if rows not in ((), (golden_rows,)):
            raise InvalidInputError(f"the model takes batches of {golden_rows} only: leave --batch-sizes out")
        rows = (golden_rows,)
    elif not rows:
        rows = tuple(n for n in ROWS if not max_batch_size or n <= max_batch_size)
    elif max_batch_size and rows[-1] > max_batch_size:
        raise InvalidInputError(f"the entry's max_batch_size is {max_batch_size}: leave batch size {rows[-1]} out")
    if not any(model.max_batch_size > 1 for model in models) and any(model.batching == "on" for model in models):
        sizes = ", ".join(str(model.max_batch_size) for model in models)
        raise InvalidInputError(
            f"dynamic batching needs a max_batch_size above 1, and here it is {sizes}: export with "
            f"--max-batch-size N, or leave --dynamic-batching out"
        )
    return Space(
        instances=_ascending("instances", instances) or tuple(2**n for n in range(cpus.bit_length())),
        delays=tuple(_delays(model, round(latency_limit * DELAY_SHARE * 1e6)) for model in models),
        rows=rows,
        concurrency=_ascending("concurrency", concurrency) or CONCURRENCY,
    )


def _delays(model: Batcher, wait: int) -> Delays:
    on: Delays = (0, wait) if wait else (0,)
    if model.max_batch_size < 2 or model.batching == "off":
        return (None,)
    return on if model.batching == "on" else (None, *on)


def _ascending(what: str, values: Sequence[int] | None) -> tuple[int, ...]:
    if values is None:
        return ()
    if not values or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in values):
        raise InvalidInputError(f"{what} {list(values)}: give whole numbers from 1 on")
    return tuple(sorted(set(values)))
