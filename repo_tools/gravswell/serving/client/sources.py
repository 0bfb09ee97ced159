"""Where requests come from: arrays that are there, or batches that come one after the other, cut to size.

Its law: a source is asked for the next request only when there is room for one, so nothing piles up behind it.
"""

from collections import deque
from typing import Any, Protocol

import numpy as np

from gravswell.errors import InvalidInputError, UnavailableError
from gravswell.serving.client.inbox import Inbox
from gravswell.serving.client.model import Model
from gravswell.serving.client.wire import Array, Packer


class Request:
    """Some rows on their way, the ``index``-th from 0. ``first_failed`` is the loop's time, ``reason`` says why."""

    __slots__ = ("attempts", "first_failed", "head", "index", "payload", "reason", "size", "start", "stop")

    def __init__(
        self, index: int, start: int, stop: int, head: bytes, payload: list[bytes | memoryview], *, size: int = 0
    ) -> None:
        self.index, self.start, self.stop = index, start, stop
        self.head, self.payload = head, payload
        self.size = size or len(head) + sum(map(len, payload))
        self.first_failed: float | None = None
        self.attempts = 0
        self.reason = ""

    def __str__(self) -> str:
        """`` rows 0 to 7``; nothing where it is about no rows."""
        return f" rows {self.start} to {self.stop - 1}" if self.stop > self.start else ""


class Source(Protocol):
    """Gives requests, in the order of the rows."""

    @property
    def ended(self) -> bool:
        """Whether there will be none any more."""

    def next(self, now: float) -> Request | None:
        """The next request; None where there is none now."""

    def due_at(self) -> float | None:
        """The loop's time at which :meth:`next` has something though nothing comes; None where it will not."""

    def check_waiting(self, now: float) -> None:
        """UnavailableError where :meth:`next` has been waited for too long."""

    def close(self) -> None:
        """Nobody will ask any more."""


class Single:
    """One request."""

    def __init__(self, request: Request) -> None:
        self._request: Request | None = request

    @property
    def ended(self) -> bool:  # noqa: D102  as of Source, here and below
        return self._request is None

    def next(self, now: float) -> Request | None:  # noqa: ARG002, D102
        request, self._request = self._request, None
        return request

    def due_at(self) -> float | None:  # noqa: D102
        return None

    def check_waiting(self, now: float) -> None:  # noqa: D102
        pass

    def close(self) -> None:  # noqa: D102
        self._request = None


class Arrays:
    """Requests of ``batch`` rows of arrays in memory, which are not copied where they lie as they are sent."""

    def __init__(self, arrays: dict[str, Array], rows: int, batch: int, packer: Packer) -> None:
        self._arrays, self._rows, self._batch, self._packer = arrays, rows, batch, packer
        self._start = 0
        self._lying: list[tuple[memoryview, int]] | None = None
        """The bytes of each input and of one of its rows, where requests can be cut out of them."""
        lying = [packer.memory(name, array) for name, array in arrays.items()]
        if rows >= batch and all(data is not None for data in lying):
            self._lying = [(data, len(data) // rows) for data in lying if data is not None]
            self._head, payload = packer.pack(self._cut(0, batch))
            self._size = len(self._head) + sum(map(len, payload))

    @property
    def ended(self) -> bool:  # noqa: D102
        return self._start >= self._rows

    def next(self, now: float) -> Request | None:  # noqa: ARG002, D102
        start = self._start
        if start >= self._rows:
            return None
        stop = self._start = min(start + self._batch, self._rows)
        index = start // self._batch
        if self._lying is not None and stop - start == self._batch:
            payload: list[bytes | memoryview] = [data[start * row : stop * row] for data, row in self._lying]
            return Request(index, start, stop, self._head, payload, size=self._size)
        head, payload = self._packer.pack(self._cut(start, stop))
        return Request(index, start, stop, head, payload)

    def due_at(self) -> float | None:  # noqa: D102
        return None

    def check_waiting(self, now: float) -> None:  # noqa: D102
        pass

    def close(self) -> None:  # noqa: D102
        self._start = self._rows

    def _cut(self, start: int, stop: int) -> dict[str, Array]:
        return {name: array[start:stop] for name, array in self._arrays.items()}


class Batches:
    """Requests of ``batch`` rows of the batches in an inbox, and of fewer when some have waited for ``max_wait`` s.

    ``batch_size`` is decided by the first batch, whose rows show how large they are. A batch is waited for during
    ``timeout`` s; rows that are here do not wait for longer either.
    """

    def __init__(
        self,
        inbox: Inbox,
        model: Model,
        batch_size: int | None,
        packer: Packer,
        *,
        max_wait: float,
        timeout: float,
    ) -> None:
        self._inbox, self._model, self._packer, self._timeout = inbox, model, packer, timeout
        self._max_wait = min(max_wait, timeout)
        self._wanted = batch_size
        self._batch = 1 if batch_size is None else model.batch_size(batch_size, 0)
        self._parts: deque[tuple[float, dict[str, Array]]] = deque()
        self._here = 0
        self._index = 0
        self._start = 0

    @property
    def ended(self) -> bool:  # noqa: D102
        return self._inbox.over and not self._here

    def next(self, now: float) -> Request | None:  # noqa: D102
        while (self._here < self._batch or not self._index) and (item := self._inbox.get()) is not None:
            self._add(*item)
            if self._here >= self._batch:
                break
        if self._inbox.error is not None:
            raise self._inbox.error
        if self._here >= self._batch or (
            self._here and (self._inbox.over or now >= self._parts[0][0] + self._max_wait)
        ):
            return self._cut(min(self._batch, self._here))
        return None

    def due_at(self) -> float | None:  # noqa: D102
        return self._parts[0][0] + self._max_wait if self._parts else None

    def check_waiting(self, now: float) -> None:  # noqa: D102
        since = self._inbox.wanted_since
        if since is not None and now - since >= self._timeout:
            raise UnavailableError(
                f"the source of the rows for model '{self._model.name}' stalled at row {self._start + self._here}: it "
                f"gave nothing for {self._timeout:g} s (source_timeout); look at what it waits for, or wait longer"
            )

    def close(self) -> None:  # noqa: D102
        self._inbox.close()
        self._parts.clear()

    def _add(self, came: float, item: Any) -> None:
        first = self._start + self._here
        try:
            arrays, rows = self._model.rows(item)
        except InvalidInputError as error:
            raise InvalidInputError(f"the batch from row {first} on: {error}") from None
        if not rows:
            return
        if self._wanted is None and not first:
            self._batch = self._model.batch_size(None, sum(array.nbytes for array in arrays.values()) // rows)
        self._parts.append((came, arrays))
        self._here += rows

    def _cut(self, rows: int) -> Request:
        fixed = self._model.rows_fixed
        if fixed is not None and rows != fixed:
            raise InvalidInputError(
                f"rows {self._start} to {self._start + rows - 1} are {rows}, and model '{self._model.name}' takes "
                f"exactly {fixed} a request: send a multiple of that, or let them wait longer for others (max_wait)"
            )
        pieces, missing = [], rows
        while missing:
            came, arrays = self._parts.popleft()
            here = len(next(iter(arrays.values())))
            if here > missing:
                self._parts.appendleft((came, {name: array[missing:] for name, array in arrays.items()}))
                arrays = {name: array[:missing] for name, array in arrays.items()}
                here = missing
            pieces.append(arrays)
            missing -= here
        whole = pieces[0]
        if len(pieces) > 1:
            whole = {name: np.concatenate([piece[name] for piece in pieces]) for name in whole}
        head, payload = self._packer.pack(whole)
        request = Request(self._index, self._start, self._start + rows, head, payload)
        self._index += 1
        self._start += rows
        self._here -= rows
        return request
