"""Where answers go: into arrays of all the rows, or one after the other, in the order of the rows.

Its law: an answer is put in its place when it comes, in whatever order; what is not taken holds the source back.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from gravswell.errors import InvalidInputError
from gravswell.serving.client.sources import Request
from gravswell.serving.client.wire import Answer, Array


class Part(NamedTuple):
    """The answers to some rows of a stream: rows ``start`` to ``stop - 1``, counted over the whole source."""

    start: int
    stop: int
    outputs: dict[str, Array]
    """By tensor name; text is an array of ``bytes`` objects, BF16 comes as float32."""
    version: str
    """The version of the model that answered."""


class Sink(Protocol):
    """Takes answers."""

    def room(self, index: int, spare: int) -> bool:
        """Whether the request of that number may be sent now, and ``spare`` bytes be held until somebody takes them."""

    def put(self, request: Request, answer: Answer) -> None:
        """Take the answer. InvalidInputError where it cannot be put in its place."""

    def end(self, error: BaseException | None) -> None:
        """Nothing more will come."""


class Whole:
    """All answers together, row for row; ``outputs`` is complete when all came."""

    def __init__(self, rows: int, model: str) -> None:
        self.outputs: dict[str, Array] = {}
        self._rows, self._model = rows, model
        self._kinds: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        """The type of each output, and the shape of one of its rows."""

    def room(self, index: int, spare: int) -> bool:  # noqa: ARG002, D102  as of Sink, here and below
        return spare > 0

    def put(self, request: Request, answer: Answer) -> None:  # noqa: D102
        if not self._kinds:
            self._begin(request, answer)
        elif answer.outputs.keys() != self._kinds.keys():
            told = f"outputs {', '.join(answer.outputs)} for{request} and {', '.join(self._kinds)} before"
            raise InvalidInputError(f"model '{self._model}' gave {told}: name those that you want (outputs=)")
        rows = request.stop - request.start
        for name, values in answer.outputs.items():
            dtype, row = self._kinds[name]
            if values.shape != (rows, *row) or values.dtype != dtype:  # NumPy would stretch or convert it
                _check_rows(name, values, request, self._model)
                told = f"{values.dtype}{list(values.shape[1:])} a row for{request} and {dtype}{list(row)} before"
                raise InvalidInputError(
                    f"output '{name}' of model '{self._model}' is {told}: they make no one array; stream() gives each "
                    f"part as it is"
                )
            self.outputs[name][request.start : request.stop] = values

    def _begin(self, request: Request, answer: Answer) -> None:
        for name, values in answer.outputs.items():
            _check_rows(name, values, request, self._model)
            self._kinds[name] = values.dtype, values.shape[1:]
            try:
                self.outputs[name] = np.empty((self._rows, *values.shape[1:]), values.dtype.newbyteorder("="))
            except MemoryError as error:
                told = f"output '{name}' of model '{self._model}' for {self._rows} rows: {error}"
                raise InvalidInputError(f"{told}; stream() gives it part by part") from None

    def end(self, error: BaseException | None) -> None:  # noqa: D102
        pass


class Ordered:
    """Parts in the order of the rows, for whoever takes them, in any thread.

    :param window: how many requests it may be behind those that are sent; with more replicas there are more.
    :param news: called, in the loop, when there is something to take.
    :param room_again: called, in the taker's thread, when there is room after there was none.

    Nothing is locked: each attribute is written on one side only, and what both touch is a deque.
    """

    def __init__(
        self, window: Callable[[], int], model: str, news: Callable[[], None], room_again: Callable[[], None]
    ) -> None:
        self._window, self._model, self._news, self._room_again = window, model, news, room_again
        self._early: dict[int, Part] = {}
        self._ready: deque[Part] = deque()
        self._next = 0
        self._taken = 0
        self._came_bytes = self._taken_bytes = 0
        self._full = False
        self._ended = False
        self._error: BaseException | None = None

    def room(self, index: int, spare: int) -> bool:  # noqa: D102
        if self._has_room(index, spare):
            return True
        self._full = True
        return self._has_room(index, spare)  # once more: what is taken from now on sees that it is waited for

    def _has_room(self, index: int, spare: int) -> bool:
        return index - self._taken < self._window() and self._came_bytes - self._taken_bytes < spare

    def put(self, request: Request, answer: Answer) -> None:  # noqa: D102
        for name, values in answer.outputs.items():
            _check_rows(name, values, request, self._model)
        part = Part(request.start, request.stop, answer.outputs, answer.version)
        self._came_bytes += _size(part)
        if request.index != self._next:
            self._early[request.index] = part
            return
        self._next += 1
        self._ready.append(part)
        while self._next in self._early:
            self._ready.append(self._early.pop(self._next))
            self._next += 1
        self._news()

    def end(self, error: BaseException | None) -> None:  # noqa: D102
        self._error = error
        self._ended = True
        self._news()

    def take(self) -> list[Part] | None:
        """The parts whose turn it is, perhaps none yet; None when all were given. After them what ended the whole."""
        ended = self._ended  # before the parts: none comes after it
        parts = [self._ready.popleft() for _ in range(len(self._ready))]
        if not parts:
            if ended and self._error is not None:
                raise self._error
            return None if ended else parts
        self._taken += len(parts)
        self._taken_bytes += sum(map(_size, parts))
        if self._full:
            self._full = False
            self._room_again()
        return parts


class Raw:
    """The one answer to one request, whatever its shapes."""

    def __init__(self) -> None:
        self.answer: Answer | None = None

    def room(self, index: int, spare: int) -> bool:  # noqa: ARG002, D102
        return spare > 0

    def put(self, request: Request, answer: Answer) -> None:  # noqa: ARG002, D102
        self.answer = answer

    def end(self, error: BaseException | None) -> None:  # noqa: D102
        pass


def _size(part: Part) -> int:
    return sum(values.nbytes for values in part.outputs.values())


def _check_rows(name: str, values: Array, request: Request, model: str) -> None:
    rows = request.stop - request.start
    if values.shape[:1] != (rows,):
        raise InvalidInputError(
            f"output '{name}' of model '{model}' has shape {list(values.shape)} for {rows} rows: its first axis is not "
            f"the rows; ask for the other outputs (outputs=), or use request(), which takes answers as they are"
        )
