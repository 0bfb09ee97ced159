"""The agent's loop: each round looks at Triton once and starts a worker for each model that has something to do."""

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from gravswell import logs
from gravswell.serving.agent.decide import stale_stages, to_collect, to_unload
from gravswell.serving.agent.ledger import Ledger
from gravswell.serving.agent.steps import Steps
from gravswell.serving.agent.view import View
from gravswell.serving.agent.work import Pace
from gravswell.serving.agent.worker import Worker
from gravswell.serving.contracts import Desired

log = logging.getLogger(__name__)

START_PAUSE = 0.5
"""Seconds between looks while Triton does not answer: every one of them is a part of the cold start."""


class Reconciler:
    """Makes one Triton serve what is desired."""

    def __init__(self, steps: Steps, *, pace: Pace | None = None) -> None:
        self.beat = time.monotonic()
        """When the loop last came round."""
        self._pace = pace or Pace()
        self._steps = steps
        self._view = View(steps.triton)
        self.ledger = Ledger(
            self._view, steps.folder, self._pace, cpu_only=steps.cpu_only, doubted=steps.members.doubted
        )
        self._worker = Worker(steps, self._view, self.ledger, self._pace)
        self._wake = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._passed_over: set[str] = set()
        """Names whose worker was at it when a round came by: there may be more to do when it ends."""
        self._told: dict[str, str] = {}
        """What house-keeping failed with last."""

    async def open(self) -> None:
        """Take stock of the folder, and go on with the last desired state until its source answers."""
        await asyncio.to_thread(self._steps.folder.prepare)
        await self.ledger.open()

    def accept(self, desired: Desired) -> None:
        """Take a desired state; models that did not change go on undisturbed."""
        self.ledger.accept(desired)
        self._wake.set()

    async def is_ready(self) -> bool:
        """Whether clients may be sent here now: a Triton that was started again since the last look has nothing."""
        if not self.ledger.ready:
            return False
        if await self._view.still_has(self.ledger.answering):
            return True
        self._wake.set()
        return False

    async def run(self) -> None:
        """Reconcile until cancelled; then give up what is under way."""
        try:
            while True:
                self._wake.clear()  # before looking: what changes from here on makes another round
                await self._tick()
                self.beat = time.monotonic()
                await self._rest()
        finally:
            self.ledger.close()  # a download in a thread sees this and ends
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _tick(self) -> None:
        with self._surviving("the look at Triton"):
            if await self._view.look(at_work=self._tasks, proofs=self._steps.proofs.under_way):
                self.ledger.changed()
        if not self._view.version:
            self.ledger.unrestorable.clear()  # another Triton may load what this one refused
        for name in self.ledger.works:
            if name in self._tasks:
                self._passed_over.add(name)
            elif self._worker.is_due(name):
                self._start(name, self._worker.advance(name))
        desired = self.ledger.desired
        if desired is not None and self._view.version:
            for name in to_unload(desired, self._view.serving):
                if name not in self._tasks:
                    self._start(name, self._worker.retire(name))
            if not self._tasks:
                with self._surviving("the removal of what is not needed"):
                    await self._collect(desired)

    @contextmanager
    def _surviving(self, what: str) -> Iterator[None]:
        """A fault in house-keeping, a full disk too, must not end the agent: the pod would be unready for it."""
        try:
            yield
        except Exception as error:
            if str(error) != self._told.get(what):  # it comes again with every round
                log.exception("%s failed and is tried again", what)
            self._told[what] = str(error)
        else:
            self._told.pop(what, None)

    async def _rest(self) -> None:
        now = time.monotonic()
        retries = (work.retry_at - now for name, work in self.ledger.works.items() if name not in self._tasks)
        tick = self._pace.tick if self._view.version else min(self._pace.tick, START_PAUSE)
        pause = min([tick, *(wait for wait in retries if wait > 0)])
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            return

    def _start(self, name: str, job: Coroutine[Any, Any, None]) -> None:
        with logs.about(model=name):
            task = asyncio.create_task(job, name=f"model {name}")
        self._tasks[name] = task

        def done(_: asyncio.Task[None]) -> None:
            self._tasks.pop(name, None)
            if name in self._passed_over:
                self._passed_over.discard(name)
                self._wake.set()

        task.add_done_callback(done)

    async def _collect(self, desired: Desired) -> None:
        """Remove from this machine what nothing needs."""
        folder = self._steps.folder
        recent = {name: [model.version for model in self.ledger.recent(name)] for name in folder.placed}
        loaded = {name: serving.loaded for name, serving in self._view.serving.items()}
        members = folder.needed()
        for entry, number in to_collect(desired, loaded, folder.placed, recent, members):
            log.info("%s: removing version %s from this machine", entry, number)
            await asyncio.to_thread(folder.remove, entry, number)
        for name in stale_stages(desired, folder.staged, members):
            await asyncio.to_thread(folder.drop_stage, name)
        await self._steps.proofs.clear_leftovers()
        called = {name for one in loaded.values() for name in one.members}
        await self._steps.members.release(self._view.members, called, settled=self._view.settled)
