"""The work queue: keys to reconcile, each by one worker at a time, with a back-off of its own."""

import asyncio
import contextlib
import enum
import heapq
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BATCH_SECONDS = 0.03
"""How long a key waits before it is worked on: the events of one change come in swarms."""
FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 300.0
PATIENCE = 4
"""How often what is less urgent lets others go first."""


class Urgency(enum.IntEnum):
    """Why a key wants work, what goes first first."""

    EDIT = 0
    """A person changed what is asked for, and looks at it."""
    NEWS = 1
    """Something happened in the cluster."""
    LOOK = 2
    """All objects are looked at, at the start or after a fault; mostly there is nothing to do."""


@dataclass(eq=False, slots=True)
class _Entry(Generic[K]):
    key: K
    due: float
    urgency: Urgency


class _Ready(Generic[K]):
    """What is due, of one urgency: in turn one of each kind, and of a kind whatever was due first.

    So a thousand servers hold up no repository.
    """

    def __init__(self, kind: Callable[[K], Hashable]) -> None:
        self._kind = kind
        self._turns: dict[Hashable, deque[_Entry[K]]] = {}
        """By kind, the next one first."""
        self.passed_over = 0

    def add(self, entry: _Entry[K]) -> None:
        self._turns.setdefault(self._kind(entry.key), deque()).append(entry)

    def next(self, wanted: Callable[[_Entry[K]], bool]) -> _Entry[K] | None:
        """The next entry, which stays; those that are no longer wanted are dropped."""
        while self._turns:
            kind, entries = next(iter(self._turns.items()))
            while entries and not wanted(entries[0]):
                entries.popleft()
            if entries:
                return entries[0]
            del self._turns[kind]
        return None

    def take(self) -> None:
        """Take what :meth:`next` gave; then it is the next kind's turn."""
        kind, entries = next(iter(self._turns.items()))
        entries.popleft()
        del self._turns[kind]
        if entries:
            self._turns[kind] = entries


class WorkQueue(Generic[K]):
    """Keys that want work.

    A key that is added while it waits is worked on once; one that is added while it is worked on, is worked on again
    afterwards. So the work that follows an ``add`` always sees what was there when it was called.

    What is more urgent goes first, but where others wait, :data:`PATIENCE` times in a row at most.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        waited: Callable[[K, float], None] = lambda *_: None,
        kind: Callable[[K], Hashable] = lambda _: None,
    ) -> None:
        self._clock = clock
        """Monotonic seconds."""
        self._waited = waited
        """Told of each key that is taken, and for how many seconds it was due."""
        self._entries: dict[K, _Entry[K]] = {}
        """What waits, whether it is due or not; any other entry of the key is out of date."""
        self._later: list[tuple[float, int, _Entry[K]]] = []
        self._ready = {urgency: _Ready(kind) for urgency in Urgency}
        self._count = itertools.count()
        self._running: set[K] = set()
        self._again: dict[K, _Entry[K]] = {}
        self._failures: dict[K, tuple[int, float]] = {}
        """How many waits of a key have ended in another failure, and when the latest ends."""
        self._wakeup = asyncio.Event()

    def __len__(self) -> int:
        return len(self._entries) + len(self._running)

    @property
    def keys(self) -> Iterable[K]:
        """What waits or is worked on."""
        return itertools.chain(self._entries, self._running)

    @property
    def failing(self) -> int:
        """How many keys failed last time."""
        return len(self._failures)

    def add(self, key: K, delay: float = BATCH_SECONDS, urgency: Urgency = Urgency.NEWS) -> None:
        """Work on ``key`` after ``delay`` seconds, or earlier if it is due earlier already, and as urgently as ever."""
        self._add(_Entry(key, self._clock() + delay, urgency))

    def _add(self, entry: _Entry[K]) -> None:
        if entry.key in self._running:
            self._again[entry.key] = _sooner(self._again.get(entry.key), entry)
            return
        known = self._entries.get(entry.key)
        entry = _sooner(known, entry)
        if entry is not known:
            self._entries[entry.key] = entry
            heapq.heappush(self._later, (entry.due, next(self._count), entry))
            self._wakeup.set()

    def retry_delay(self, key: K) -> float:
        """Note a failure of ``key``, and say in how many seconds it is tried again: twice as long each time.

        Where it fails before such a wait is over, because an event woke it, that wait goes on: a swarm of events in a
        short fault must not make the next try wait for minutes after it.
        """
        waits, due = self._failures.get(key, (0, 0.0))
        now = self._clock()
        if now >= due:
            due = now + min(FIRST_RETRY_SECONDS * 2 ** min(waits, 20), LONGEST_RETRY_SECONDS)
            self._failures[key] = waits + 1, due
        return due - now

    def tries(self, key: K) -> int:
        """How many waits of ``key`` have ended in another failure since it last succeeded."""
        return self._failures.get(key, (0, 0.0))[0]

    def forget(self, key: K) -> None:
        """``key`` succeeded: its next failure is its first."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key that is due. It is nobody else's until :meth:`done`."""
        while True:
            now = self._clock()
            while self._later and (self._later[0][0] <= now or not self._waits(self._later[0][2])):
                _, _, entry = heapq.heappop(self._later)
                if self._waits(entry):
                    self._ready[entry.urgency].add(entry)
            found = self._take()
            if found is not None:
                del self._entries[found.key]
                self._running.add(found.key)
                self._waited(found.key, now - found.due)
                return found.key
            await self._sleep(self._later[0][0] - now if self._later else None)

    def _waits(self, entry: _Entry[K]) -> bool:
        return self._entries.get(entry.key) is entry

    def _take(self) -> _Entry[K] | None:
        """Of what is due, the most urgent, or what was passed over often enough: of that, the least urgent."""
        found = [(ready, entry) for ready in self._ready.values() if (entry := ready.next(self._waits)) is not None]
        if not found:
            return None
        impatient = [pair for pair in found if pair[0].passed_over >= PATIENCE]
        taken, entry = impatient[-1] if impatient else found[0]
        for ready, _ in found:
            ready.passed_over = 0 if ready is taken else ready.passed_over + 1
        taken.take()
        return entry

    async def _sleep(self, seconds: float | None) -> None:
        # Cleared before the state is read again: a wake-up in between is never lost.
        self._wakeup.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # of Python 3.11, wait_for may lose that it is cancelled
                await self._wakeup.wait()

    def done(self, key: K) -> None:
        """The work on ``key`` has ended; if it was added meanwhile, it is due again."""
        self._running.discard(key)
        again = self._again.pop(key, None)
        if again is not None:
            self._add(again)


def _sooner(known: _Entry[K] | None, entry: _Entry[K]) -> _Entry[K]:
    """``known`` where that is as soon and as urgent, else one that is both."""
    if known is None:
        return entry
    if known.due <= entry.due and known.urgency <= entry.urgency:
        return known
    return _Entry(entry.key, min(known.due, entry.due), min(known.urgency, entry.urgency))


async def work(queue: WorkQueue[K], handle: Callable[[K], Awaitable[None]]) -> None:
    """One worker: handles keys for ever. ``handle`` deals with its own failures."""
    while True:
        key = await queue.get()
        try:
            await handle(key)
        finally:
            queue.done(key)
