"""The work queue: keys to reconcile, each by one worker at a time, with a back-off of its own."""

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BATCH_SECONDS = 0.03
"""How long a key waits before it is worked on: the events of one change come in swarms."""
FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 300.0


class WorkQueue(Generic[K]):
    """Keys that want work.

    A key that is added while it waits is worked on once; one that is added while it is worked on, is worked on again
    afterwards. So the work that follows an ``add`` always sees what was there when it was called.
    """

    def __init__(self, clock: Callable[[], float], waited: Callable[[K, float], None] = lambda *_: None) -> None:
        self._clock = clock
        """Monotonic seconds."""
        self._waited = waited
        """Told of each key that is taken, and for how many seconds it was due."""
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = itertools.count()
        self._running: set[K] = set()
        self._again: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._wakeup = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due) + len(self._running)

    @property
    def keys(self) -> Iterable[K]:
        """What waits or is worked on."""
        return itertools.chain(self._due, self._running)

    @property
    def failing(self) -> int:
        """How many keys failed last time."""
        return len(self._failures)

    def add(self, key: K, delay: float = BATCH_SECONDS) -> None:
        """Work on ``key`` after ``delay`` seconds, or earlier if it is due earlier already."""
        due = self._clock() + delay
        if key in self._running:
            self._again[key] = min(due, self._again.get(key, due))
        elif key not in self._due or due < self._due[key]:
            self._schedule(key, due)

    def _schedule(self, key: K, due: float) -> None:
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._count), key))
        self._wakeup.set()

    def retry_delay(self, key: K) -> float:
        """Note a failure of ``key``, and say in how many seconds it is tried again: twice as long each time."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return float(min(FIRST_RETRY_SECONDS * 2 ** min(failures, 20), LONGEST_RETRY_SECONDS))

    def forget(self, key: K) -> None:
        """``key`` succeeded: its next failure is its first."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key that is due. It is nobody else's until :meth:`done`."""
        while True:
            while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
                heapq.heappop(self._heap)  # it was moved to an earlier time, or worked on
            if not self._heap:
                await self._sleep(None)
                continue
            wait = self._heap[0][0] - self._clock()
            if wait > 0:
                await self._sleep(wait)
                continue
            _, _, key = heapq.heappop(self._heap)
            del self._due[key]
            self._running.add(key)
            self._waited(key, -wait)
            return key

    async def _sleep(self, seconds: float | None) -> None:
        # Cleared before the state is read again: a wake-up in between is never lost.
        self._wakeup.clear()
        try:
            await asyncio.wait_for(self._wakeup.wait(), seconds)
        except TimeoutError:
            return

    def done(self, key: K) -> None:
        """The work on ``key`` has ended; if it was added meanwhile, it is due again."""
        self._running.discard(key)
        again = self._again.pop(key, None)
        if again is not None and (key not in self._due or again < self._due[key]):
            self._schedule(key, again)


async def work(queue: WorkQueue[K], handle: Callable[[K], Awaitable[None]]) -> None:
    """One worker: handles keys for ever. ``handle`` deals with its own failures."""
    while True:
        key = await queue.get()
        try:
            await handle(key)
        finally:
            queue.done(key)
