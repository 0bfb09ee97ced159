"""A source, a run and the parts that are taken of it, in the threads in which each of them is."""

import asyncio
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from typing import Any

from gravswell.serving.client.inbox import Inbox, feed, feed_from_thread
from gravswell.serving.client.run import Run
from gravswell.serving.client.sinks import Ordered

INBOX_SIZE = 64
"""Batches of a source that wait to be sent, at most."""


class Stream:
    """A stream under way. Made in the loop; its parts are taken in any thread."""

    def __init__(self, window: Callable[[], int], model: str, arrived: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._run: Run | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self.sink = Ordered(window, model, arrived, self._wake)
        self.inbox = Inbox(min(window(), INBOX_SIZE), self._wake, self._loop.time)
        self.take = self.sink.take

    def begin(self, run: Run, source: Any) -> None:
        """Read the source."""
        self._run = run
        if isinstance(source, AsyncIterable):
            self.inbox.on_room = self._room.set
            self._feeder = feeder = self._loop.create_task(feed(source, self.inbox, self._wait_for_room))
            run.done.add_done_callback(lambda _: feeder.cancel())
        else:
            feed_from_thread(source, self.inbox)

    def close(self) -> None:
        """End it. A source in a thread ends at its next batch."""
        if self._run is not None:
            self._run.close()

    def _wake(self) -> None:
        if self._run is not None:
            with suppress(RuntimeError):  # the loop is closed: so is the run, or it never will go on
                self._loop.call_soon_threadsafe(self._run.pump)

    async def _wait_for_room(self) -> None:
        self._room.clear()
        await self._room.wait()
