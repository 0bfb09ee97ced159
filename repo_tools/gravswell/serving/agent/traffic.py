"""What clients ask of a model while a roll-out of it is under way, by Triton's own count. At rest nobody asks Triton.

A roll-out is judged by what its new replicas do beside its old ones, in windows that its operator names. Triton counts
from a load on, the agent's own proofs and probes too; here it becomes what clients asked since a window began.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from gravswell.serving.agent.health import InferenceCounts
from gravswell.serving.agent.ledger import Ledger
from gravswell.serving.agent.triton import (
    TritonBusyError,
    TritonControl,
    TritonRefusedError,
    TritonUnavailableError,
)
from gravswell.serving.contracts import Canary, Traffic

log = logging.getLogger(__name__)

NOTHING = InferenceCounts(0, 0)


@dataclass
class Count:
    """What was counted of one version since a window began."""

    window: str
    key: str
    """What is counted, as :meth:`~.ledger.Ledger.key` names it."""
    last: InferenceCounts
    """What Triton said last."""
    own: InferenceCounts
    """The agent's own requests before the window."""
    total: InferenceCounts = NOTHING
    """What Triton counted in the window, the agent's own requests too."""

    def add(self, now: InferenceCounts) -> None:
        """Triton says ``now``. Where that is less than before, it began anew: the version was loaded again."""
        anew = now.succeeded < self.last.succeeded or now.failed < self.last.failed
        before = NOTHING if anew else self.last
        self.total = InferenceCounts(*(t + n - b for t, n, b in zip(self.total, now, before, strict=True)))
        self.last = now

    def traffic(self, own: InferenceCounts) -> Traffic:
        """What clients asked; ``own`` is what the agent asked by now, since ever."""
        # Never below none: a request of ours may be told before Triton has counted it.
        rest = [max(0, t - (o - b)) for t, o, b in zip(self.total, own, self.own, strict=True)]
        clients = InferenceCounts(*rest)
        seconds = clients.nanoseconds / 1e9 if clients.succeeded else 0.0
        return Traffic(
            window=self.window, succeeded=clients.succeeded, failed=clients.failed, seconds=round(seconds, 6)
        )


class TrafficCounter:
    """Counts for the ledger's report, as long as the desired state names roll-outs."""

    def __init__(self, triton: TritonControl, ledger: Ledger) -> None:
        self._triton, self._ledger = triton, ledger
        self._canaries: Mapping[str, Canary] = {}
        self._counts: dict[str, Count] = {}
        self._wake = asyncio.Event()

    def watch(self, canaries: Mapping[str, Canary]) -> None:
        """Count for these roll-outs, by entry, and no others. Called after the ledger took the desired state."""
        if canaries == self._canaries:
            return
        before, self._canaries = self._canaries, canaries
        for name in {*before, *canaries}:
            window = canaries[name].window if name in canaries else None
            if name not in before or before[name].window != window:
                self._counts.pop(name, None)
                self._ledger.traffic.pop(name, None)
            work = self._ledger.works.get(name)
            if window is None or work is None or not self._ledger.triton_version:
                continue
            key, count = self._ledger.key(work.model), self._counts.get(name)
            if (count is None or count.key != key) and not self._ledger.is_loaded(work.model):
                # All that Triton will count of it is in the window.
                own = self._triton.own_counts(name, work.model.version)
                self._counts[name] = Count(window, key, NOTHING, own)
        self._ledger.changed()
        self._wake.set()

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            self._wake.clear()
            for name, canary in self._canaries.items():
                try:
                    await self._look(name, canary.window)
                except (TritonUnavailableError, TritonRefusedError, TritonBusyError) as error:
                    log.debug("%s: not counted this time: %s", name, error)  # the next look makes up for it
            pause = min((canary.seconds for canary in self._canaries.values()), default=None)
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _look(self, name: str, window: str) -> None:
        work = self._ledger.works.get(name)
        if work is None or not self._ledger.is_loaded(work.model):
            return
        version, key = work.model.version, self._ledger.key(work.model)
        now = await self._triton.counts(name, version)
        own = self._triton.own_counts(name, version)
        if self._canaries.get(name) is None or self._canaries[name].window != window:
            return  # another window began meanwhile
        if self._ledger.works.get(name) is not work:
            return  # another version is wanted meanwhile, and counted from its load on
        count = self._counts.get(name)
        if count is None or count.key != key:
            count = self._counts[name] = Count(window, key, now, own)
        count.add(now)
        counted = key, count.traffic(own)
        if self._ledger.traffic.get(name) != counted:
            self._ledger.traffic[name] = counted
            self._ledger.changed()
