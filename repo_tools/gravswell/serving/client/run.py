"""One call's requests: sent while there is room, answered in any order, tried again elsewhere, and ended cleanly.

Its law: everything happens in the loop's own turns, by callbacks; there is no task for a request, because at twenty
thousand requests a second tasks are what costs. The first request that fails for good ends the whole.
"""

import asyncio
import json
import os
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gravswell.errors import AccessDeniedError, GravswellError, InvalidInputError, NotFoundError, UnavailableError
from gravswell.serving.client.connection import Connection
from gravswell.serving.client.replicas import LONGEST_LIFE, Endpoint, Replica, Replicas
from gravswell.serving.client.sinks import Sink
from gravswell.serving.client.sources import Request, Source
from gravswell.serving.client.wire import Answer, numpy_type
from gravswell.serving.triton.reasons import without_traceback

TICK_SECONDS = 0.05
"""How often limits are looked at, and replicas that were left alone."""

_AWAY = frozenset({408, 429, 502, 503, 504})
"""Statuses of a server, or of a proxy before it, that cannot answer now."""
_UNKNOWN = re.compile(r"unknown model|no available versions", re.IGNORECASE)
"""What Triton says of a model that it has not loaded: with 404, 400 or 503, by its release."""
_OTHER_TYPE = re.compile(r"data-type is '\w+', but .* expects '(\w+)'")


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a call: see :class:`gravswell.serving.client.AsyncClient`."""

    in_flight: int
    max_bytes: int
    request_timeout: float
    retry_for: float
    source_timeout: float


class Run:
    """A call under way. ``read`` makes the answer of a response's body; ``prolog`` begins a request to an endpoint."""

    def __init__(
        self,
        replicas: Replicas,
        source: Source,
        sink: Sink,
        *,
        what: str,
        prolog: Callable[[Endpoint], bytes],
        read: Callable[[bytes, int | None], Answer],
        limits: Limits,
        wait_for_model: bool = True,
    ) -> None:
        self._replicas, self._source, self._sink = replicas, source, sink
        self._what, self._prolog, self._read, self._limits = what, prolog, read, limits
        self._wait_for_model = wait_for_model
        self._loop = asyncio.get_running_loop()
        self._prologs: dict[Replica, bytes] = {}
        self._busy: dict[Connection, tuple[Request, Replica]] = {}
        self._opening: dict[asyncio.Task[Connection], tuple[Request, Replica]] = {}
        self._again: deque[Request] = deque()
        self._next_index = 0
        self._bytes = 0
        self._unknown = 0
        self._pumping = False
        self._seen = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._due: asyncio.TimerHandle | None = None
        self.rows_done = 0
        self.done: asyncio.Future[None] = self._loop.create_future()

    def start(self) -> None:
        """Send what can be sent."""
        self._tick()

    def close(self, error: BaseException | None = None) -> None:
        """End it, whatever is under way, for whoever awaits it with ``error``; harmless when it has ended."""
        self._finish(error)

    def pump(self) -> bool:
        """Send while there is something to send, and room for it; True where there is more than there is room."""
        if self._pumping or self.done.done():
            return False
        self._pumping = True
        try:
            now = self._loop.time()
            while (replica := self._replicas.choose(self._limits.in_flight, now)) is not None:
                request = self._next(now)
                if request is None:
                    break
                self._send(request, replica, now)
        except BaseException as error:  # noqa: BLE001  a source may raise anything: it is the caller's to see
            self._finish(error)
            return False
        finally:
            self._pumping = False
        more = bool(self._again) or not self._source.ended
        if more and replica is None:
            self._replicas.wait(self)
            return True
        if not (more or self._busy or self._opening):
            self._finish(None)
        return False

    def _next(self, now: float) -> Request | None:
        if self._again:
            return self._again.popleft()
        if not self._sink.room(self._next_index, self._limits.max_bytes - self._bytes):
            return None
        request = self._source.next(now)
        if request is None:
            self._wait_for_source(now)
            return None
        self._next_index = request.index + 1
        self._bytes += request.size
        return request

    def _wait_for_source(self, now: float) -> None:
        if not (self._busy or self._opening):  # what it gave is answered, so that nothing is lost but the wait
            self._source.check_waiting(now)
        due = self._source.due_at()
        if due is not None and self._due is None:

            def come() -> None:
                self._due = None
                self.pump()

            self._due = self._loop.call_at(due, come)

    def _send(self, request: Request, replica: Replica, now: float) -> None:
        replica.busy += 1
        request.attempts += 1
        connection = replica.idle()
        if connection is None:
            task = self._loop.create_task(replica.open())
            self._opening[task] = (request, replica)
            task.add_done_callback(self._opened)
        else:
            self._ask(connection, request, replica, now)

    def _ask(self, connection: Connection, request: Request, replica: Replica, now: float) -> None:
        prolog = self._prologs.get(replica)
        if prolog is None:
            prolog = self._prologs[replica] = self._prolog(replica.endpoint)
        self._busy[connection] = (request, replica)
        connection.send(self, prolog + request.head, request.payload, request.size, now)

    def _opened(self, task: asyncio.Task[Connection]) -> None:
        request, replica = self._opening.pop(task)
        if task.cancelled():
            replica.busy -= 1
            return
        error, now = task.exception(), self._loop.time()
        if isinstance(error, OSError):
            # asyncio puts words of its own there; of a failed connection the system's are clearer.
            plain = isinstance(error, ConnectionError) and error.errno
            self._failed(request, replica, os.strerror(plain) if plain else str(error))
        elif error is not None:
            replica.busy -= 1
            self._finish(error)
        elif self.done.done():
            replica.busy -= 1
            replica.release(task.result(), now)
        else:
            self._ask(task.result(), request, replica, now)
        self.pump()

    # What a connection tells

    def answered(self, connection: Connection, status: int, body: bytes, json_size: int | None) -> None:
        """See :class:`gravswell.serving.client.connection.Asker`."""
        request, replica = self._busy.pop(connection)
        if status == 200:
            replica.busy -= 1
            replica.worked()
            replica.release(connection, self._loop.time())
            self._bytes -= request.size
            try:
                self._sink.put(request, self._read(body, json_size))
            except Exception as error:  # noqa: BLE001  asyncio would log it, close the connection, and lose the request
                bad = isinstance(error, ValueError) and not isinstance(error, GravswellError)
                told = f"{self._told(request, replica)}: {error}"
                self._finish(UnavailableError(told) if bad else error)
                return
            self.rows_done += request.stop - request.start
        else:
            replica.release(connection, self._loop.time())
            self._refused(request, replica, status, body)
        self._replicas.wait(self)
        self._replicas.turn()

    def broken(self, connection: Connection, reason: str) -> None:
        """See :class:`gravswell.serving.client.connection.Asker`."""
        request, replica = self._busy.pop(connection)
        if connection.foreign:
            replica.busy -= 1
            told = f"{replica.address} does not speak HTTP/1.1 ({reason}): give Triton's HTTP port, 8000 by default"
            self._finish(InvalidInputError(told))
            return
        self._failed(request, replica, reason)
        self._loop.call_soon(self.pump)

    # What went wrong

    def _refused(self, request: Request, replica: Replica, status: int, body: bytes) -> None:
        message = _message(body) or f"HTTP status {status}"
        if _UNKNOWN.search(message):
            self._unknown += 1
            if self._wait_for_model or self._unknown < len(self._replicas):
                # It restarts and has not loaded it yet, or is about to go: others have it.
                self._failed(request, replica, message)
                return
            replica.busy -= 1
            self._finish(NotFoundError(f"{self._what} is not served at {replica.address}: {message}"))
            return
        if status in _AWAY:
            self._failed(request, replica, message)
            return
        replica.busy -= 1
        if status in {401, 403}:
            kind: type[GravswellError] = AccessDeniedError
        elif status == 404:
            kind = NotFoundError
        elif status >= 500:  # it answered: the model failed on these rows, and would anywhere
            kind = GravswellError
        else:
            kind = InvalidInputError
        types = _OTHER_TYPE.search(message)
        wanted = numpy_type(types[1]) if types else None
        if wanted is not None:
            message += f"; send its array as array.astype(np.{wanted.name})"
        self._finish(kind(f"{self._what} refused{request} at {replica.address}: {message}"))

    def _failed(self, request: Request, replica: Replica, reason: str) -> None:
        """Try it again, elsewhere if there is an elsewhere, or give up."""
        now = self._loop.time()
        replica.busy -= 1
        replica.failed(now)
        self._replicas.refresh(now, self.pump, soon=True)
        if request.first_failed is None:
            request.first_failed = now
        request.reason = f"{self._told(request, replica)}: {reason}"
        if self._is_late(request, now):
            self._give_up(request)
        else:
            self._again.append(request)

    def _is_late(self, request: Request, now: float) -> bool:
        tried = request.attempts >= len(self._replicas)
        return tried and request.first_failed is not None and now - request.first_failed >= self._limits.retry_for

    def _give_up(self, request: Request) -> None:
        tried = f" (tried for {self._limits.retry_for:g} s)" if self._limits.retry_for else ""
        self._finish(
            UnavailableError(f"{request.reason}{tried}; see that a Triton runs there, and has its HTTP on that port")
        )

    def _told(self, request: Request, replica: Replica) -> str:
        return f"{self._what} did not answer{request} at {replica.address}"

    def _tick(self) -> None:
        if self.done.done():
            return
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        now = self._loop.time()
        limit = now - self._limits.request_timeout
        for connection in [c for c in self._busy if c.sent_at < limit]:
            connection.close(f"no answer within {self._limits.request_timeout:g} s")
        self._replicas.refresh(now, self.pump)
        self._replicas.tidy()
        for request in self._again:
            if self._is_late(request, now):
                self._give_up(request)
                return
        if self._replicas:
            self._seen = now
        else:  # a name without an address: no replica is ready, or it is misspelt
            self._replicas.refresh(now, self.pump, soon=True)
            if now - self._seen >= self._limits.retry_for:
                told = f"{self._what} is nowhere: {self._replicas.problem}; see that it is right, and a replica ready"
                self._finish(UnavailableError(told))
                return
        self.pump()

    def _finish(self, error: BaseException | None) -> None:
        if self.done.done():
            if self.done.cancelled():
                self._stop()
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()  # retrieved: whoever closes it first may never await it
        self._stop()
        self._sink.end(error)

    def _stop(self) -> None:
        for handle in (self._timer, self._due):
            if handle is not None:
                handle.cancel()
        self._replicas.leave(self)
        self._source.close()
        self._again.clear()
        for task in self._opening:
            task.cancel()
        busy, self._busy = self._busy, {}
        for connection, (_, replica) in busy.items():
            replica.busy -= 1
            connection.asker = None
            connection.close()
        self._loop.call_later(LONGEST_LIFE, self._replicas.tidy)


def _message(body: bytes) -> str:
    """Triton's words in an answer that is an error."""
    text = body.decode(errors="replace").strip()
    try:
        document: Any = json.loads(text)
    except ValueError:  # a proxy's page
        return " ".join(text.split())[:500]
    told = document.get("error", text) if isinstance(document, dict) else text
    return without_traceback(str(told))[:2000]
