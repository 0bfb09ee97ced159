"""The client for everybody else: the same, run by a loop in a thread of its own, so that it works in notebooks too."""

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from gravswell.serving.client.aio import REPORT_SECONDS, AsyncClient
from gravswell.serving.client.model import Model
from gravswell.serving.client.sinks import Part
from gravswell.serving.client.wire import Answer, Array

T = TypeVar("T")

STOP_SECONDS, LATE_SECONDS = 10.0, 1.0
"""How long :meth:`Client.close` waits for its thread, and that for what is under way."""


class Client:
    """Many rows through one Triton or many: requests in flight, answers in the order of the rows.

    >>> with Client("triton:8000") as client:
    ...     outputs = client.infer("my-model", {"x": rows}, batch_size=8)

    Parameters, methods and errors are those of :class:`AsyncClient`, blocking. Ctrl-C ends what is under way. Threads
    may share it, and a process that was forked off begins with connections of its own.
    """

    def __init__(self, servers: str | Sequence[str], **options: Any) -> None:
        self._servers, self._options = servers, options
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._begin()

    @property
    def replicas(self) -> dict[str, int]:
        """How many requests each replica has answered, by ``ip:port``; empty before the first call."""
        return self._here().replicas

    def model(self, name: str, version: str | int = "") -> Model:
        """See :meth:`AsyncClient.model`."""
        return self._wait(self._here().model(name, version))

    def infer(
        self,
        model: str,
        inputs: Any,
        *,
        batch_size: int | None = None,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
        on_rows: Callable[[int], None] | None = None,
    ) -> dict[str, Array]:
        """See :meth:`AsyncClient.infer`; ``on_rows`` is called in the caller's thread."""
        counts: queue.SimpleQueue[int] = queue.SimpleQueue()
        asked = self._here().infer(
            model,
            inputs,
            batch_size=batch_size,
            version=version,
            outputs=outputs,
            on_rows=counts.put if on_rows else None,
        )
        return self._wait(asked, lambda: _tell(counts, on_rows) if on_rows else None)

    def stream(
        self,
        model: str,
        source: Any,
        *,
        batch_size: int | None = None,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
        max_wait: float = 1.0,
    ) -> Generator[Part, None, None]:
        """See :meth:`AsyncClient.stream`. Leaving the loop early ends everything, and so does its ``close()``."""
        client, loop, arrived = self._here(), self._running(), threading.Event()
        opened = self._wait(
            client.open_stream(
                model,
                source,
                arrived.set,
                batch_size=batch_size,
                version=version,
                outputs=outputs,
                max_wait=max_wait,
            )
        )
        try:
            while (parts := opened.take()) is not None:
                yield from parts
                if not parts:
                    arrived.wait()
                arrived.clear()
        finally:
            with suppress(RuntimeError):  # the loop is closed: the client was, which ended the stream
                loop.call_soon_threadsafe(opened.close)

    def request(
        self,
        model: str,
        inputs: Any,
        *,
        version: str | int = "",
        outputs: Sequence[str] | None = None,
    ) -> Answer:
        """See :meth:`AsyncClient.request`."""
        return self._wait(self._here().request(model, inputs, version=version, outputs=outputs))

    def close(self) -> None:
        """End what is under way, whose callers are told so, and the thread; harmless when that was done."""
        client = self._here()
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(_ended(client), loop).result(STOP_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_SECONDS)
        loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._client = AsyncClient(self._servers, **self._options)
        self._lock = threading.Lock()
        self._loop = self._thread = None

    def _here(self) -> AsyncClient:
        """The client of this process: one that was forked off has no thread, and connections that are another's."""
        if self._process != os.getpid():
            self._begin()
        return self._client

    def _wait(self, asked: Coroutine[Any, Any, T], meanwhile: Callable[[], None] | None = None) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(asked, self._running())
        try:
            if meanwhile is not None:
                while not wait([future], REPORT_SECONDS).done:
                    meanwhile()
                meanwhile()
            return future.result()
        except BaseException:
            if not future.done():  # Ctrl-C, or what the caller's own function raised: nothing may go on behind its back
                future.cancel()
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="gravswell-client", daemon=True)
                self._thread.start()
            return self._loop


async def _ended(client: AsyncClient) -> None:
    await client.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:  # those whose calls were just ended end by themselves, and tell their callers why
        _, late = await asyncio.wait(others, timeout=LATE_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    await asyncio.sleep(0)  # transports that were closed go in the next turn


def _tell(counts: "queue.SimpleQueue[int]", on_rows: Callable[[int], None]) -> None:
    rows = 0
    with suppress(queue.Empty):
        while True:
            rows += counts.get_nowait()
    if rows:
        on_rows(rows)
