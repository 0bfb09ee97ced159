"""Between a source of batches, which may wait, in a thread or in the loop, and the loop, which must not.

Its law: nobody waits here who is not told when it is over.
"""

import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable
from typing import Any


class Inbox:
    """Batches between whoever makes them and the loop: a few, then their maker waits until half of them are gone.

    Both sides are woken as rarely as can be, for a change of threads costs more than a request: ``wake`` is called, in
    the maker's thread, where the loop found nothing and now there is something.
    """

    def __init__(self, size: int, wake: Callable[[], None], clock: Callable[[], float]) -> None:
        self._size, self._wake, self._clock = size, wake, clock
        self._items: deque[tuple[float, Any]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._wanted_since: float | None = None
        self._over = False
        self._closed = False
        self.error: BaseException | None = None
        """What the maker raised."""
        self.on_room: Callable[[], None] = lambda: None
        """Called, in the loop, when there is room again."""

    @property
    def full(self) -> bool:
        """Whether the maker has to wait."""
        return len(self._items) >= self._size

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self._over and not self._items

    @property
    def wanted_since(self) -> float | None:
        """When, by the clock, a batch was asked for that has not come; None where all that were asked for came."""
        return None if self._over else self._wanted_since

    def put(self, item: Any, *, wait: bool = True) -> bool:
        """Add a batch, after waiting for room; False when nobody wants more."""
        with self._changed:
            while wait and self.full and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._items.append((self._clock(), item))
            wanted, self._wanted_since = self._wanted_since is not None, None
        if wanted:
            self._wake()
        return True

    def get(self) -> tuple[float, Any] | None:
        """The next batch and when it came, if there is one."""
        with self._changed:
            if not self._items:
                if self._wanted_since is None:
                    self._wanted_since = self._clock()
                return None
            item = self._items.popleft()
            room_again = len(self._items) == self._size // 2
            if room_again:
                self._changed.notify()
        if room_again:
            self.on_room()
        return item

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more will come."""
        with self._changed:
            self._over, self.error = True, error
        self._wake()

    def close(self) -> None:
        """Nobody wants more."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify()
        self.on_room()


def feed_from_thread(source: Iterable[Any], inbox: Inbox) -> None:
    """Run ``source`` in a thread of its own, which ends with it, or at its next batch after the inbox was closed."""

    def run() -> None:
        try:
            for item in source:
                if not inbox.put(item):
                    return
        except BaseException as error:  # noqa: BLE001  the caller's own: it is raised where the answers are awaited
            inbox.end(error)
        else:
            inbox.end()
        finally:
            if isinstance(source, Generator):  # it may hold a file open, and somebody may hold on to it
                source.close()

    threading.Thread(target=run, name="gravswell-source", daemon=True).start()


async def feed(source: AsyncIterable[Any], inbox: Inbox, room: Callable[[], Any]) -> None:
    """The same for a source of the loop; ``room()`` is awaited while the inbox is full."""
    try:
        async for item in source:
            while inbox.full:
                await room()
            if not inbox.put(item, wait=False):
                return
    except BaseException as error:  # as above
        inbox.end(error)
        if not isinstance(error, Exception):
            raise
    else:
        inbox.end()
    finally:
        if isinstance(source, AsyncGenerator):  # whoever left early does not wait for the garbage collector
            await source.aclose()
