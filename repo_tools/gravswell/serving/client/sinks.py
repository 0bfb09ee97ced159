"""Where answers go: into arrays of all the rows, or one after the other, in the order of the rows.

Its law: an answer is put in its place when it comes, in whatever order; what is not taken holds the source back.
"""

import asyncio
from collections import deque
from typing import NamedTuple, Protocol

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

    @property
    def held(self) -> int:
        """Bytes of answers that nobody has taken yet."""

    def room(self, index: int) -> bool:
        """Whether the request of that number may be sent now."""

    def put(self, request: Request, answer: Answer) -> None:
        """Take the answer. InvalidInputError where it cannot be put in its place."""

    def end(self, error: BaseException | None) -> None:
        """Nothing more will come."""


class Whole:
    """All answers together, row for row; ``outputs`` is complete when all came."""

    held = 0

    def __init__(self, rows: int, model: str) -> None:
        self.outputs: dict[str, Array] = {}
        self._rows, self._model = rows, model

    def room(self, index: int) -> bool:  # noqa: ARG002, D102  as of Sink, here and below
        return True

    def put(self, request: Request, answer: Answer) -> None:  # noqa: D102
        for name, values in answer.outputs.items():
            whole = self.outputs.get(name)
            if whole is None:
                _check_rows(name, values, request, self._model)
                dtype = values.dtype.newbyteorder("=")
                whole = self.outputs[name] = np.empty((self._rows, *values.shape[1:]), dtype)
            try:
                whole[request.start : request.stop] = values
            except ValueError:
                whole_shape = list(whole.shape[1:])
                _check_rows(name, values, request, self._model)
                raise InvalidInputError(
                    f"output '{name}' of model '{self._model}' has shape {list(values.shape)} for{request} and "
                    f"{whole_shape} a row before: they make no one array; stream() gives each part as it is"
                ) from None

    def end(self, error: BaseException | None) -> None:  # noqa: D102
        pass


class Ordered:
    """Parts in the order of the rows, for whoever awaits :meth:`ready`; up to ``window`` requests ahead of them."""

    def __init__(self, window: int, model: str) -> None:
        self.window = window
        self.held = 0
        self._model = model
        self._early: dict[int, Part] = {}
        self._ready: deque[Part] = deque()
        self._next = 0
        self._taken = 0
        self._ended = False
        self._error: BaseException | None = None
        self._news = asyncio.Event()

    def room(self, index: int) -> bool:  # noqa: D102
        return index - self._taken < self.window

    def put(self, request: Request, answer: Answer) -> None:  # noqa: D102
        for name, values in answer.outputs.items():
            _check_rows(name, values, request, self._model)
        part = Part(request.start, request.stop, answer.outputs, answer.version)
        self.held += _size(part)
        self._early[request.index] = part
        while self._next in self._early:
            self._ready.append(self._early.pop(self._next))
            self._next += 1
        if self._ready:
            self._news.set()

    def end(self, error: BaseException | None) -> None:  # noqa: D102
        self._ended, self._error = True, error
        self._news.set()

    async def ready(self) -> list[Part]:
        """The parts whose turn it is, at least one; none when all were given. Raises what ended the whole."""
        await self._news.wait()
        if self._error is not None:
            raise self._error
        parts = list(self._ready)
        self._ready.clear()
        if not self._ended:
            self._news.clear()
        self._taken += len(parts)
        self.held -= sum(map(_size, parts))
        return parts


class Raw:
    """The one answer to one request, whatever its shapes."""

    held = 0

    def __init__(self) -> None:
        self.answer: Answer | None = None

    def room(self, index: int) -> bool:  # noqa: ARG002, D102
        return True

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
