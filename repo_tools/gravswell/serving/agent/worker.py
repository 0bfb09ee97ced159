"""Brings one model as far as it goes: look, decide (:func:`~.decide.next_step`), do that one step, look again.

So a desired state that changes in the middle, a Triton that restarts and an agent that restarts need no code of their
own.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gravswell.errors import GravswellError
from gravswell.serving.agent.decide import Step, can_restore, next_step
from gravswell.serving.agent.failures import ModelFailure, SupersededError, require_wanted
from gravswell.serving.agent.ledger import MOST_DEATHS, Ledger
from gravswell.serving.agent.steps import Steps
from gravswell.serving.agent.triton import (
    TritonBusyError,
    TritonRefusedError,
    TritonSilentError,
    TritonUnavailableError,
)
from gravswell.serving.agent.view import View
from gravswell.serving.agent.work import Pace, Serving, Work
from gravswell.serving.contracts import DesiredModel, ModelState, Reason, StartStage

log = logging.getLogger(__name__)

DAMAGE_SHOWS_AS = frozenset({Reason.HASH_MISMATCH, Reason.LOAD_FAILED, Reason.GOLDEN_MISMATCH, Reason.INFERENCE_FAILED})
"""Failures that files damaged after they were fetched explain as well as a bad version does."""


class Worker:
    """Works on one name at a time, or on several at once: whoever calls it sees to it that no name is in two hands."""

    def __init__(self, steps: Steps, view: View, ledger: Ledger, pace: Pace) -> None:
        self._steps = steps
        self._view = view
        self._ledger = ledger
        self._pace = pace

    def is_due(self, name: str) -> bool:
        """Whether there is something to do for the desired model ``name``: a probe, or a step."""
        work, serving = self._ledger.works[name], self._view.serving.get(name)
        if serving is not None and serving.proven and serving.probe_due(self._pace):
            return True
        if time.monotonic() < work.retry_at:
            if serving is not None or not self._view.version:
                return False
            return next_step(work.model, self._ledger.facts(work.model, None)) is Step.RESTORE  # that waits for nothing
        if work.state is not ModelState.SERVING or serving is None or not serving.proven:
            return True
        return not self._ledger.is_loaded(work.model)

    async def advance(self, name: str) -> None:
        """Bring the desired model ``name`` as far as it goes; what stops it is noted in the ledger."""
        while (work := self._ledger.works.get(name)) is not None:
            try:
                if not await self._step(work):
                    return
            except SupersededError as error:
                log.info("%s", error)
                if self._ledger.works.get(name) is work:  # by no other desired state: the agent stops
                    return
            except TritonUnavailableError as error:
                self._ledger.waits(work, Reason.TRITON_UNAVAILABLE, str(error))
                return
            except TritonBusyError as error:  # proves nothing: look again later
                log.info("%s", error)
                work.retry_at = time.monotonic() + self._pace.first_retry
                return
            except ModelFailure as failure:
                self._ledger.fail(work, failure.reason, await self._explained(work.model, failure))
                return
            except Exception as error:  # a fault of ours in one model must not stop the others
                log.exception("%s: version %s", name, work.model.version)
                self._ledger.fail(work, Reason.AGENT_ERROR, f"{type(error).__name__}: {error}")
                return

    async def retire(self, name: str) -> None:
        """Unload what nobody desires."""
        log.info("%s: unloading", name)
        try:
            await self._steps.triton.unload(name)
        except TritonRefusedError as error:
            log.warning("%s cannot be unloaded: %s", name, error)
        except (TritonUnavailableError, TritonBusyError) as error:
            log.info("%s: %s", name, error)  # the next round sees whether it is still there
            return
        self._view.serving.pop(name, None)
        self._ledger.changed()

    async def _step(self, work: Work) -> bool:
        """Do what ``work`` needs next; False when nothing is left."""
        model, name = work.model, work.model.name
        if not self._view.version:
            # A cold start: bring the files while Triton starts, unless something older could serve first.
            facts = self._ledger.facts(model, None)
            if not self._steps.folder.holds(model) and not (facts.restorable and can_restore(model, facts)):
                await self._fetch(work)
            raise TritonUnavailableError(self._view.problem)
        loaded = await self._view.observe(name)
        if loaded is not None:
            serving = self._view.serving[name]
            await self._look_after(work, serving)
            if serving.dead:
                if await self._revive(work, serving):
                    return True
                loaded = None  # what cannot answer is as good as not there
        require_wanted(model, wanted=not work.unwanted.is_set())  # it may have changed while Triton was asked
        step = next_step(model, self._ledger.facts(model, loaded))
        if time.monotonic() < work.retry_at and not self._is_about_earlier(step, model):
            return False
        match step:
            case Step.NONE:
                self._ledger.serves(work)
                return False
            case Step.FETCH:
                await self._fetch(work)
            case Step.VERIFY:
                await self._verify(work)
            case Step.RESTORE:
                await self._restore(work)
            case Step.LOAD:
                self._ledger.progress(work, ModelState.LOADING)
                with self._ledger.timed(work, "load"), self._deaths_told(work):
                    self._ledger.stage(work, StartStage.LOAD)
                    await self._load(work, model)
            case Step.PROVE:
                with self._ledger.timed(work, "prove"):
                    self._ledger.stage(work, StartStage.WARM_UP)
                    await self._prove(work)
        return True

    async def _fetch(self, work: Work) -> None:
        self._ledger.progress(work, ModelState.DOWNLOADING)
        with self._ledger.timed(work, "download"):
            self._ledger.stage(work, StartStage.DOWNLOAD)
            fetching = asyncio.ensure_future(self._steps.fetch(work.model, work.unwanted))
            try:
                while not (await asyncio.wait({fetching}, timeout=self._pace.tick))[0]:
                    await self._stand_in(work)
            finally:
                fetching.cancel()
            self._ledger.downloaded(work, await fetching)

    def _is_about_earlier(self, step: Step, model: DesiredModel) -> bool:
        """Whether the step lets an earlier version serve, until ``model`` can."""
        return step is Step.RESTORE or (step is Step.PROVE and not self._ledger.is_loaded(model))

    async def _stand_in(self, work: Work) -> None:
        """Let an earlier version serve on while the wanted one is fetched, however long: Triton may have restarted."""
        if not self._view.version:
            return
        try:
            loaded = await self._view.observe(work.model.name)
            match next_step(work.model, self._ledger.facts(work.model, loaded)):
                case Step.RESTORE:
                    await self._restore(work)
                case Step.PROVE:
                    await self._prove(work)
                case _:
                    pass
        except GravswellError as error:  # what is fetched is no worse for it
            log.info("%s: %s", work.model.name, error)

    async def _verify(self, work: Work) -> None:
        self._ledger.progress(work, ModelState.VERIFYING)
        with self._ledger.timed(work, "verify"), self._deaths_told(work):
            self._ledger.stage(work, StartStage.LOAD)
            await self._steps.verify(
                work.model,
                unwanted=work.unwanted,
                overdue=self._overdue(work),
                loaded=lambda: self._ledger.stage(work, StartStage.WARM_UP),
            )
        self._ledger.verified(work.model)

    @contextmanager
    def _deaths_told(self, work: Work) -> Iterator[None]:
        """Blame a version in whose verification or load Triton ends; the first time it may have been another's doing.

        Triton restarts without it then, and serves the others until it is tried again.
        """
        try:
            yield
        except TritonSilentError:  # busy
            raise
        except TritonUnavailableError:
            work.deaths += 1
            if work.deaths == 1:
                raise
            times = f"{work.deaths} times in a row while version {work.model.version} was verified or loaded"
            way_out = "it is not tried again" if work.deaths >= MOST_DEATHS else "it is tried again later"
            raise ModelFailure(
                Reason.LOAD_FAILED,
                f"Triton ended {times}; {way_out}: read the log of its container, look at memory, and publish another "
                f"version",
            ) from None

    def _overdue(self, work: Work) -> Callable[[], None]:
        return lambda: self._ledger.overdue(work)

    async def _load(self, work: Work, model: DesiredModel) -> None:
        """Load ``model`` for ``work``: what is desired, or what served before it."""
        serving = self._view.serving.get(model.name)
        is_dead = serving is not None and serving.dead
        self._ledger.loads[model.name] = model
        try:
            await self._steps.load(model, unwanted=work.unwanted, overdue=self._overdue(work), again=is_dead)
        finally:
            del self._ledger.loads[model.name]
        if is_dead:
            self._view.serving.pop(model.name, None)  # another load, that looks the same: nothing is known of it yet

    async def _restore(self, work: Work) -> None:
        """Load what served last, while the desired version is not at hand."""
        good = self._ledger.recent(work.model.name)[0]
        log.info("%s: version %s serves until version %s can", good.name, good.version, work.model.version)
        await self._load_earlier(work, good)

    async def _load_earlier(self, work: Work, good: DesiredModel) -> bool:
        try:
            await self._load(work, good)
        except ModelFailure as failure:
            words = await self._explained(good, failure)
            log.warning("%s: version %s cannot be restored: %s", good.name, good.version, words)
            self._ledger.unrestorable.add(good.name)
            return False
        except TritonSilentError:  # busy
            raise
        except TritonUnavailableError:
            log.warning("%s: Triton ended while version %s was restored", good.name, good.version)
            self._ledger.killed(good.name)
            raise
        self._ledger.restored(good.name)
        return True

    async def _revive(self, work: Work, serving: Serving) -> bool:
        """Load again what a dead backend served; False where that cannot be, and others must take its place."""
        name = work.model.name
        known = [work.model, *self._ledger.recent(name)]
        model = next((model for model in known if self._ledger.key(model) == serving.loaded.key), None)
        if model is None or self._steps.folder.find(model) is None:
            return False
        log.warning("%s: loading version %s again, for its backend is dead", name, model.version)
        if model == work.model:
            await self._load(work, model)
            return True
        return name not in self._ledger.unrestorable and await self._load_earlier(work, model)

    async def _prove(self, work: Work) -> None:
        """See that what is loaded answers rightly under its own name; it may still be an earlier version."""
        serving = self._view.serving[work.model.name]
        serving.tried = True
        try:
            await self._infer(work, serving)
        except TritonBusyError as error:
            if not self._ledger.is_loaded(work.model):
                raise
            if not self._ledger.was_verified(work.model):
                message = f"version {work.model.version} is loaded and was not seen to answer: {error}"
                raise ModelFailure(Reason.NO_ANSWER, message) from None
            serving.trusted = True  # it answered rightly under its private name, and slow is not dead
            self._ledger.serves(work)
            raise
        except ModelFailure as failure:
            if self._ledger.is_loaded(work.model):
                raise
            log.warning("%s: %s", work.model.name, failure)  # its successor is on the way
            return
        serving.proven = True
        if not self._ledger.is_loaded(work.model):
            self._ledger.answers(work)
        self._ledger.changed()

    async def _look_after(self, work: Work, serving: Serving) -> None:
        """See that what serves still does, whether or not it is what is desired.

        Where others get answers nobody needs to ask, and a single failure is no news yet.
        """
        if not (serving.proven and serving.probe_due(self._pace)):
            return
        name = work.model.name
        serving.probed_at = time.monotonic()
        try:
            if not serving.health.in_good_use(await self._steps.triton.counts(name, serving.loaded.version)):
                await self._infer(work, serving)
        except ModelFailure as failure:
            log.warning("%s: probe: %s", name, failure)
        except TritonBusyError as error:
            log.info("%s: probe: %s", name, error)  # slow is not dead

    async def _infer(self, work: Work, serving: Serving) -> None:
        serving.probed_at = time.monotonic()
        try:
            await self._steps.infer(work.model, serving)
        except ModelFailure:
            if serving.health.failed():
                serving.dead = True
                serving.proven = False
            serving.trusted = False
            self._ledger.changed()
            raise

    async def _explained(self, model: DesiredModel, failure: ModelFailure) -> str:
        """The failure's message. A copy that went bad on this machine is given up: the next attempt fetches another."""
        serving = self._view.serving.get(model.name)
        in_use = serving is not None and not serving.dead and self._ledger.is_loaded(model)
        if failure.reason not in DAMAGE_SHOWS_AS or in_use or not await self._steps.drop_if_damaged(model):
            return str(failure)
        self._ledger.doubts()
        return f"{failure} (its files on this machine are damaged or outdated and will be fetched again)"
