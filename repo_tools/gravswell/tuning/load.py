"""A load of many clients on one model: each sends its next request when it has the answer to the last one.

Every connection sends the same bytes again and reads no more of an answer than that it is one.
"""

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gravswell.errors import GravswellError, InvalidInputError, UnavailableError
from gravswell.serving.client import Connection, connected

ANSWER_SECONDS = 60.0
"""For one answer. What takes longer is no load but a hang."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the clients saw."""

    latencies: NDArray[np.float64]
    """Of every request that was sent within the measured time, in seconds, unsorted; also of those answered after it,
    which are the slow ones."""
    answered: int
    """Answers that came within ``seconds``; also to what was asked before: so many were under way at the end too."""
    seconds: float
    """The measured time; where nothing came within it, the time until the last client had its answer."""

    def percentile(self, percent: float) -> float:
        """Seconds within which that share of the answers came: a latency that was seen, never one in between."""
        return float(np.percentile(self.latencies, percent, method="higher"))


async def drive(address: str, request: bytes, *, concurrency: int, seconds: float, warm_up: float) -> Load:
    """Ask the Triton at ``address`` (``host:port`` of HTTP) for ``seconds``, after ``warm_up`` seconds of the same.

    Raises :class:`InvalidInputError` with Triton's words where it refuses the request, :class:`UnavailableError` where
    it does not answer. Each client asks once at least, however slow the model is.
    """
    loop = asyncio.get_running_loop()
    try:
        connections = await connected(address, concurrency)
    except OSError as error:
        raise UnavailableError(f"Triton at {address} takes no connection: {error.strerror or error}") from None
    try:
        begin = loop.time() + warm_up
        clients = [_Client(connection, request, begin, begin + seconds) for connection in connections]
        for client in clients:
            client.ask()
        async with asyncio.timeout(warm_up + seconds + ANSWER_SECONDS):
            await asyncio.gather(*(client.done for client in clients))
    except TimeoutError:
        raise UnavailableError(f"Triton at {address} gave no answer within {ANSWER_SECONDS:.0f} s") from None
    finally:
        for connection in connections:
            connection.close()
    latencies = np.array([latency for client in clients for latency in client.latencies])
    answered = sum(client.in_time for client in clients)
    if answered:
        return Load(latencies, answered, seconds)
    last = max(client.last for client in clients)
    return Load(latencies, sum(client.since_begin for client in clients), last - begin)


class _Client:
    """One client on one connection: its latencies are of what it asks from ``begin`` to ``end``, or of its first."""

    def __init__(self, connection: Connection, request: bytes, begin: float, end: float) -> None:
        self.latencies: list[float] = []
        self.in_time = self.since_begin = 0
        self.last = begin
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._connection = connection
        self._request = request
        self._begin, self._end = begin, end

    def ask(self) -> None:
        self._connection.send(self, self._request, [], len(self._request), self._loop.time())

    def answered(self, connection: Connection, status: int, body: bytes, json_size: int | None) -> None:
        """An answer came: see :class:`~gravswell.serving.client.connection.Asker`."""
        del json_size
        now = self._loop.time()
        if status != 200:
            self._fail(InvalidInputError(f"Triton refused the request: {body.decode(errors='replace')[:300]}"))
            return
        if connection.sent_at >= self._begin:
            self.latencies.append(now - connection.sent_at)
        if now >= self._begin:
            self.since_begin += 1
            self.in_time += now <= self._end
            self.last = now
        if now < self._end or not self.latencies:
            self.ask()
        elif not self.done.done():
            self.done.set_result(None)

    def broken(self, connection: Connection, reason: str) -> None:
        """Likewise."""
        del connection
        self._fail(UnavailableError(f"Triton broke off: {reason}"))

    def _fail(self, error: GravswellError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
