"""Carries out the decisions: one worker for each model that has something to do, and one look at Triton each tick.

A worker looks, decides (:func:`~.decide.next_step`), does that one step and looks again, until nothing is left or a
step fails. So a desired state that changes in the middle, a Triton that restarts and an agent that restarts need no
code of their own.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from gravswell.serving.agent.decide import (
    Facts,
    Step,
    can_restore,
    identity,
    next_step,
    stale_stages,
    to_collect,
    to_unload,
)
from gravswell.serving.agent.loadconfig import Loaded, load_key
from gravswell.serving.agent.state import AgentState
from gravswell.serving.agent.steps import Steps
from gravswell.serving.agent.supply import ModelFailure, SupersededError
from gravswell.serving.agent.triton import TritonBusyError, TritonRefusedError, TritonUnavailableError
from gravswell.serving.agent.view import View
from gravswell.serving.agent.work import Pace, Serving, Work
from gravswell.serving.contracts import Desired, DesiredModel, ModelState, Reason

log = logging.getLogger(__name__)

DAMAGE_SHOWS_AS = frozenset({Reason.HASH_MISMATCH, Reason.LOAD_FAILED, Reason.GOLDEN_MISMATCH, Reason.INFERENCE_FAILED})
"""Failures that files damaged after they were fetched explain as well as a bad version does."""

START_PAUSE = 0.5
"""Seconds between looks while Triton does not answer: every one of them is a part of the cold start."""


class Reconciler:
    """Makes one Triton serve what is desired. ``changed`` is called whenever the report may differ."""

    def __init__(self, steps: Steps, *, pace: Pace | None = None, changed: Callable[[], None] = lambda: None) -> None:
        self.pace = pace or Pace()
        self.desired: Desired | None = None
        self.works: dict[str, Work] = {}
        """What is desired, by name."""
        self.state = AgentState()
        self.beat = time.monotonic()
        """When the loop last came round."""
        self.was_attempted = False
        """Every model of a desired state was tried: latched."""
        self._steps = steps
        self._folder = steps.folder
        self._triton = steps.triton
        self._view = View(steps.triton)
        self.changed = changed
        self._wake = asyncio.Event()
        self._stopping = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._passed_over: set[str] = set()
        """Names whose worker was at it when a round came by: there may be more to do when it ends."""
        self._unrestorable: set[str] = set()
        self._told: dict[str, str] = {}
        """What house-keeping failed with last."""

    @property
    def serving(self) -> dict[str, Serving]:
        """What Triton serves, by name."""
        return self._view.serving

    @property
    def triton_version(self) -> str:
        """Empty while Triton does not answer."""
        return self._view.version

    @property
    def triton_problem(self) -> str:
        """Why Triton does not answer; empty while it does."""
        return self._view.problem

    @property
    def ready(self) -> bool:
        """Whether clients may be sent here.

        Every model was tried once, Triton answers, and at least one desired model answers rightly (or none is desired).
        A version that cannot be had makes nothing unready, and neither does a repository that does not answer.
        """
        if not self.triton_version or not self.was_attempted:
            return False
        return not self.works or any(name in self.serving and self.serving[name].good for name in self.works)

    async def open(self) -> None:
        """Take stock of the folder, and go on with the last desired state until its source answers."""
        await asyncio.to_thread(self._folder.prepare)
        self.state = await asyncio.to_thread(AgentState.read, self._folder.state_file)
        if self.state.desired is not None:
            self.accept(self.state.desired)

    def accept(self, desired: Desired) -> None:
        """Take a desired state; models that did not change go on undisturbed."""
        if desired == self.desired:
            return
        log.info("desired state %s: %s", desired.revision, _summary(desired))
        self.desired = self.state.desired = desired
        self._save()
        before = self.works
        self.works = {}
        for model in desired.models:
            known = before.get(model.name)
            self.works[model.name] = known if known is not None and known.model == model else Work(model)
        self._latch()
        self._poke()

    async def run(self) -> None:
        """Reconcile until cancelled; then give up what is under way."""
        try:
            while True:
                self._wake.clear()  # before looking: what changes from here on makes another round
                await self._tick()
                self.beat = time.monotonic()
                await self._rest()
        finally:
            self._stopping = True  # a download in a thread sees this and ends
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # -- one round

    async def _tick(self) -> None:
        with self._surviving("the look at Triton"):
            if await self._view.look(at_work=self._tasks, proofs=self._steps.proofs):
                self.changed()
        if not self._view.version:
            self._unrestorable.clear()  # another Triton may load what this one refused
        for name in self.works:
            if name in self._tasks:
                self._passed_over.add(name)
            elif self._is_due(name):
                self._start(name, self._advance(name))
        if self.desired is not None and self.triton_version:
            for name in to_unload(self.desired, self.serving):
                if name not in self._tasks:
                    self._start(name, self._retire(name))
            if not self._tasks:
                with self._surviving("the removal of what is not needed"):
                    await self._collect(self.desired)

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
        retries = (work.retry_at - now for name, work in self.works.items() if name not in self._tasks)
        tick = self.pace.tick if self.triton_version else min(self.pace.tick, START_PAUSE)
        pause = min([tick, *(wait for wait in retries if wait > 0)])
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            return

    def _is_due(self, name: str) -> bool:
        """Whether a worker has something to do for ``name``: a probe, or a step."""
        work, serving = self.works[name], self.serving.get(name)
        if serving is not None and serving.proven and serving.probe_due(self.pace):
            return True
        if time.monotonic() < work.retry_at:
            return False
        if work.state is not ModelState.SERVING or serving is None or not serving.proven:
            return True
        return serving.loaded.key != self._key(work.model)

    def _start(self, name: str, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job, name=f"model {name}")
        self._tasks[name] = task

        def done(_: asyncio.Task[None]) -> None:
            self._tasks.pop(name, None)
            if name in self._passed_over:
                self._passed_over.discard(name)
                self._wake.set()

        task.add_done_callback(done)

    # -- one model

    async def _advance(self, name: str) -> None:
        """Bring one model as far as it goes."""
        while (work := self.works.get(name)) is not None:
            try:
                if not await self._step(work):
                    return
            except SupersededError as error:
                log.info("%s", error)
                if self._stopping:
                    return
            except TritonUnavailableError as error:
                self._set(work, ModelState.WAITING, Reason.TRITON_UNAVAILABLE, str(error))
                return
            except TritonBusyError as error:  # proves nothing: look again later
                log.info("%s", error)
                work.retry_at = time.monotonic() + self.pace.first_retry
                return
            except ModelFailure as failure:
                self._fail(work, failure.reason, await self._explained(work.model, failure))
                return
            except Exception as error:  # a fault of ours in one model must not stop the others
                log.exception("%s: version %s", name, work.model.version)
                self._fail(work, Reason.AGENT_ERROR, f"{type(error).__name__}: {error}")
                return

    async def _explained(self, model: DesiredModel, failure: ModelFailure) -> str:
        """The failure's message. A copy that went bad on this machine is given up: the next attempt fetches another."""
        serving = self.serving.get(model.name)
        is_loaded = serving is not None and serving.loaded.key == self._key(model)
        if failure.reason not in DAMAGE_SHOWS_AS or is_loaded or not await self._steps.drop_if_damaged(model):
            return str(failure)
        return f"{failure} (its files on this machine are damaged or outdated and will be fetched again)"

    async def _step(self, work: Work) -> bool:
        """Do what ``work`` needs next; False when nothing is left."""
        model, name = work.model, work.model.name
        if not self.triton_version:
            # A cold start: bring the files while Triton starts, unless something older could serve first.
            if self._folder.find(model) is None and not can_restore(model, self._facts(model, None)):
                await self._fetch(work)
            raise TritonUnavailableError(self.triton_problem)
        loaded = await self._view.observe(name)
        if loaded is not None:
            await self._look_after(work, self.serving[name])
        if time.monotonic() < work.retry_at:
            return False
        match next_step(model, self._facts(model, loaded)):
            case Step.NONE:
                self._serves(work)
                return False
            case Step.FETCH:
                await self._fetch(work)
            case Step.VERIFY:
                self._progress(work, ModelState.VERIFYING)
                with work.timed("verify"):
                    await self._steps.verify(model)
                self.state.verify(model, self.triton_version)
                self._save()
            case Step.RESTORE:
                await self._restore(model)
            case Step.LOAD:
                self._progress(work, ModelState.LOADING)
                with work.timed("load"):
                    await self._steps.load(model)
            case Step.PROVE:
                await self._prove(work)
        return True

    async def _fetch(self, work: Work) -> None:
        self._progress(work, ModelState.DOWNLOADING)
        with work.timed("download"):
            await self._steps.fetch(work.model, lambda: not self._stopping and self.works.get(work.model.name) is work)

    async def _restore(self, model: DesiredModel) -> None:
        """Load what served last, while the desired version is not at hand."""
        good = self.state.recent[model.name][0]
        log.info("%s: version %s serves until version %s can", model.name, good.version, model.version)
        try:
            await self._steps.load(good)
        except ModelFailure as failure:
            words = await self._explained(good, failure)
            log.warning("%s: version %s cannot be restored: %s", model.name, good.version, words)
            self._unrestorable.add(model.name)

    async def _prove(self, work: Work) -> None:
        """See that what is loaded answers rightly under its own name; it may still be an earlier version."""
        serving = self.serving[work.model.name]
        serving.tried = True
        try:
            await self._infer(work, serving)
        except TritonBusyError as error:
            if serving.loaded.key != self._key(work.model):
                raise
            if identity(work.model) not in self.state.verified_by(self.triton_version):
                message = f"version {work.model.version} is loaded and was not seen to answer: {error}"
                raise ModelFailure(Reason.NO_ANSWER, message) from None
            serving.trusted = True  # it answered rightly under its private name, and slow is not dead
            self._serves(work)
            raise
        except ModelFailure as failure:
            if serving.loaded.key == self._key(work.model):
                raise
            log.warning("%s: %s", work.model.name, failure)  # its successor is on the way
            return
        serving.proven = True
        self.changed()

    async def _look_after(self, work: Work, serving: Serving) -> None:
        """See that what serves still does, whether or not it is what is desired, and load it again if its backend died.

        Where others get answers nobody needs to ask, and a single failure is no news yet.
        """
        name = work.model.name
        if serving.proven and serving.probe_due(self.pace):
            serving.probed_at = time.monotonic()
            try:
                if not serving.health.in_good_use(await self._triton.counts(name, serving.loaded.version)):
                    await self._infer(work, serving)
            except ModelFailure as failure:
                log.warning("%s: probe: %s", name, failure)
            except TritonBusyError as error:
                log.info("%s: probe: %s", name, error)  # slow is not dead
        if serving.dead:
            known = [work.model, *self.state.recent.get(name, [])]
            model = next((model for model in known if self._key(model) == serving.loaded.key), work.model)
            log.warning("%s: loading version %s again, for its backend is dead", name, model.version)
            await self._steps.load(model, again=True)
            self.serving[name] = Serving(serving.loaded)

    async def _infer(self, work: Work, serving: Serving) -> None:
        serving.probed_at = time.monotonic()
        try:
            await self._steps.infer(work.model, serving)
        except ModelFailure:
            if serving.health.failed():
                serving.dead = True
                serving.proven = False
            serving.trusted = False
            self.changed()
            raise

    async def _retire(self, name: str) -> None:
        try:
            await self._unload(name)
        except (TritonUnavailableError, TritonBusyError) as error:
            log.info("%s: %s", name, error)  # the next round sees whether it is still there

    async def _unload(self, name: str) -> None:
        log.info("%s: unloading", name)
        try:
            await self._triton.unload(name)
        except TritonRefusedError as error:
            log.warning("%s cannot be unloaded: %s", name, error)
        self.serving.pop(name, None)
        self.changed()

    async def _collect(self, desired: Desired) -> None:
        recent = {name: [model.version for model in models] for name, models in self.state.recent.items()}
        loaded = {name: serving.loaded for name, serving in self.serving.items()}
        for entry, number in to_collect(desired, loaded, self._folder.placed, recent):
            log.info("%s: removing version %s from this machine", entry, number)
            await asyncio.to_thread(self._folder.remove, entry, number)
        for name in stale_stages(desired, self._folder.staged):
            await asyncio.to_thread(self._folder.drop_stage, name)
        await self._steps.clear_leftovers()

    # -- book-keeping

    def _key(self, model: DesiredModel) -> str:
        return load_key(model, cpu_only=self._steps.cpu_only)

    def _facts(self, model: DesiredModel, loaded: Loaded | None) -> Facts:
        recent = self.state.recent.get(model.name)
        serving = self.serving.get(model.name)
        return Facts(
            loaded=loaded,
            placed=self._folder.placed.get(model.name, {}),
            staged=self._folder.staged,
            verified=self.state.verified_by(self.triton_version),
            proven=serving is not None and serving.proven,
            proof_tried=serving is not None and serving.tried,
            last_good=recent[0] if recent else None,
            restorable=model.name not in self._unrestorable,
            cpu_only=self._steps.cpu_only,
        )

    def _serves(self, work: Work) -> None:
        work.attempts = 0
        if work.state is not ModelState.SERVING:
            log.info("%s: version %s serves", work.model.name, work.model.version)
            self.state.served(work.model)
            self._save()
        self._set(work, ModelState.SERVING)

    def _progress(self, work: Work, state: ModelState) -> None:
        """Show a stage; a model that failed stays Failed until it serves, so that retries do not flap."""
        if work.state is not ModelState.FAILED:
            self._set(work, state)

    def _fail(self, work: Work, reason: Reason, message: str) -> None:
        work.attempts += 1
        work.retry_at = time.monotonic() + self.pace.retry(work.attempts)
        if (work.reason, work.message) != (reason, message):
            log.warning("%s: version %s: %s: %s", work.model.name, work.model.version, reason, message)
        self._set(work, ModelState.FAILED, reason, message)

    def _set(self, work: Work, state: ModelState, reason: Reason | None = None, message: str = "") -> None:
        work.attempted = work.attempted or state in (ModelState.SERVING, ModelState.FAILED)
        if (work.state, work.reason, work.message) != (state, reason, message):
            work.state, work.reason, work.message = state, reason, message
            self.changed()
        self._latch()

    def _latch(self) -> None:
        if not self.was_attempted and self.desired is not None and all(work.attempted for work in self.works.values()):
            self.was_attempted = True
            self.changed()

    def _save(self) -> None:
        here = self._folder.staged.union(*(versions.values() for versions in self._folder.placed.values()))
        self.state.forget_verified(keep=here)
        try:
            self.state.write(self._folder.state_file)
        except OSError as error:  # it spares work, nothing more
            log.warning("%s cannot be written: %s", self._folder.state_file, error)

    def _poke(self) -> None:
        self._wake.set()
        self.changed()


def _summary(desired: Desired) -> str:
    return ", ".join(f"{model.name} {model.version}" for model in desired.models) or "no models"
