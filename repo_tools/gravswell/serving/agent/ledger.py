"""What the agent has noted of each desired model, and what follows: facts for decisions, the pod's readiness."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from gravswell.serving.agent.decide import Facts, identity
from gravswell.serving.agent.folder import ModelFolder
from gravswell.serving.agent.loadconfig import Loaded, load_key
from gravswell.serving.agent.startup import Startup
from gravswell.serving.agent.state import AgentState
from gravswell.serving.agent.view import View
from gravswell.serving.agent.work import Pace, Serving, Work
from gravswell.serving.contracts import Desired, DesiredModel, ModelState, Reason, Start, StartStage, Traffic

log = logging.getLogger(__name__)

MOST_DEATHS = 3
"""So often Triton may end while it loads one version, before that is no longer tried: it costs all models their server.
"""


class Ledger:
    """One agent's notes. ``tell`` is called whenever the report may differ.

    ``doubted`` is :attr:`.PipelineMembers.doubted`, kept across restarts here.
    """

    def __init__(self, view: View, folder: ModelFolder, pace: Pace, *, cpu_only: bool, doubted: set[str]) -> None:
        self.tell: Callable[[], None] = lambda: None
        self.desired: Desired | None = None
        self.works: dict[str, Work] = {}
        """What is desired, by name."""
        self.loads: dict[str, DesiredModel] = {}
        """What Triton was told to load, by name, until it has answered: meanwhile nobody knows when it takes over."""
        self.traffic: dict[str, tuple[str, Traffic]] = {}
        """What clients asked of the models that a roll-out watches, by name, each with the :meth:`key` of what was
        counted."""
        self.was_attempted = False
        """Every model of a desired state that has any was tried: latched."""
        self.unrestorable: set[str] = set()
        """Names under which this Triton did not load again what served last."""
        self._deadly: dict[str, int] = {}
        """Names under which Triton ended while it loaded again what served last, and how often in a row."""
        self._barred: set[str] = set()
        """Those of them under which it is not loaded again before the wanted version was tried, or ever."""
        self._remembered = AgentState()
        self._startup = Startup()
        self._downloaded = 0
        """Bytes."""
        self._doubted = doubted
        self._view = view
        self._folder = folder
        self._pace = pace
        self._cpu_only = cpu_only

    # -- what is known

    @property
    def serving(self) -> Mapping[str, Serving]:
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

        Every model was tried once, Triton answers, and at least one desired model answers rightly: where none is
        desired, clients would hear of unknown models only. A version that cannot be had makes nothing unready, nor does
        one whose proof takes long, nor a repository that does not answer.
        """
        return bool(self.triton_version and self.was_attempted and self.answering)

    @property
    def answering(self) -> list[str]:
        """The desired models that answer rightly, as far as anybody has looked."""
        return [name for name in self.works if name in self.serving and self.serving[name].good]

    @property
    def start(self) -> Start:
        """How this replica came up."""
        return self._startup.told

    @property
    def reported_in(self) -> int:
        """Which of the ConfigMaps that the server's reports are divided among has this pod's.

        The first, before the desired state is known, and of old.
        """
        return self._remembered.reported_in

    def key(self, model: DesiredModel) -> str:
        """:func:`~.loadconfig.load_key` on this machine."""
        return load_key(model, cpu_only=self._cpu_only)

    def is_loaded(self, model: DesiredModel) -> bool:
        """Whether Triton has exactly this version loaded, in this way."""
        serving = self.serving.get(model.name)
        return serving is not None and serving.loaded.key == self.key(model)

    def is_giving_way(self, model: DesiredModel) -> bool:
        """Whether what is loaded under its name goes, perhaps it has gone, for a version that was wanted before it."""
        coming = self.loads.get(model.name)
        return coming is not None and identity(coming) != identity(model)

    def traffic_of(self, name: str) -> Traffic | None:
        """What clients asked of what is loaded under ``name``; None where that was not counted (yet)."""
        key, traffic = self.traffic.get(name, (None, None))
        serving = self.serving.get(name)
        return traffic if serving is not None and serving.loaded.key == key else None

    def was_verified(self, model: DesiredModel) -> bool:
        """Whether a Triton of this version has reproduced the golden tensors of ``model``."""
        return identity(model) in self._remembered.verified_by(self.triton_version)

    def recent(self, name: str) -> list[DesiredModel]:
        """What was served under ``name`` with success, newest first."""
        return self._remembered.recent.get(name, [])

    def facts(self, model: DesiredModel, loaded: Loaded | None) -> Facts:
        """What decides the next step of ``model``, under whose name ``loaded`` serves."""
        recent = self.recent(model.name)
        serving = self.serving.get(model.name)
        return Facts(
            loaded=loaded,
            placed=self._folder.placed.get(model.name, {}),
            staged=self._folder.staged,
            lacking=any(self._folder.find(member) is None for member in self._folder.members_of(model)),
            verified=self._remembered.verified_by(self.triton_version),
            proven=serving is not None and serving.proven,
            proof_tried=serving is not None and serving.tried,
            last_good=recent[0] if recent else None,
            restorable=model.name not in self.unrestorable and model.name not in self._barred,
            cpu_only=self._cpu_only,
        )

    # -- what is noted

    async def open(self) -> None:
        """Remember what an earlier agent noted on this machine, and go on with its desired state."""
        self._remembered = await asyncio.to_thread(AgentState.read, self._folder.state_file)
        self._startup = Startup(self._remembered.start)
        self._downloaded = self.start.downloaded
        self._doubted |= self._remembered.doubted
        if self._remembered.desired is not None:
            self.accept(self._remembered.desired)

    def accept(self, desired: Desired) -> None:
        """Take a desired state; models that did not change go on undisturbed, what is no longer wanted is given up."""
        if desired == self.desired:
            return
        log.info("desired state %s: %s", desired.revision, _summary(desired))
        self.desired = self._remembered.desired = desired
        self._save()
        before, self.works = self.works, {}
        for model in desired.models:
            known = before.get(model.name)
            self.works[model.name] = known if known is not None and known.model == model else Work(model)
        for name, work in before.items():
            if self.works.get(name) is not work:
                work.unwanted.set()
        self._latch()
        self.changed()

    def changed(self) -> None:
        """The report may differ: note what the start waits for now, and tell."""
        if self._startup.look(self.works.values(), ready=self.ready, downloaded=self._downloaded):
            self._save()
        self.tell()

    @contextmanager
    def timed(self, work: Work, step: str) -> Iterator[None]:
        """Enter the seconds of the block under ``step``, if it succeeds."""
        started = time.monotonic()
        try:
            yield
            work.seconds[step] = round(time.monotonic() - started, 3)
        finally:
            self.stage(work, StartStage.START)

    def stage(self, work: Work, stage: StartStage) -> None:
        """That is under way for ``work`` now."""
        work.stage = stage
        self.changed()

    def downloaded(self, work: Work, size: int) -> None:
        """A download for ``work`` brought so many bytes."""
        work.downloaded = size
        self._downloaded += size

    def reported(self, part: int) -> None:
        """The report is in that ConfigMap now, and in no other."""
        self._remembered.reported_in = part
        self._save()

    def close(self) -> None:
        """Give up what is under way."""
        for work in self.works.values():
            work.unwanted.set()

    def verified(self, model: DesiredModel) -> None:
        """The golden tensors of ``model`` were reproduced by this Triton."""
        self._remembered.verify(model, self.triton_version)
        self._save()

    def doubts(self) -> None:
        """Damaged files of a pipeline's member were found to be loaded."""
        self._save()

    def serves(self, work: Work) -> None:
        """The model serves as desired."""
        work.attempts = work.deaths = 0
        if work.state is not ModelState.SERVING:
            log.info("%s: version %s serves", work.model.name, work.model.version)
            self._remembered.served(work.model)
            self._save()
            self.restored(work.model.name)
        self._set(work, ModelState.SERVING)

    def restored(self, name: str) -> None:
        """What served last under ``name`` is loaded again, or something newer is."""
        self._deadly.pop(name, None)
        self._barred.discard(name)

    def killed(self, name: str) -> None:
        """Triton ended while it loaded again what served last under ``name``, which may be why.

        The wanted version goes first from now on. Where that fails, the earlier one gets another chance, for it may
        have been another model's doing; a few, for every one may cost all models their server.
        """
        self._deadly[name] = self._deadly.get(name, 0) + 1
        self._barred.add(name)

    def progress(self, work: Work, state: ModelState) -> None:
        """Show a stage; a model that failed stays Failed until it serves, so that retries do not flap."""
        if work.state is not ModelState.FAILED:
            self._set(work, state)

    def waits(self, work: Work, reason: Reason, message: str) -> None:
        """Something that is no fault of the model holds it up. One that failed stays so until it is tried again."""
        if work.state is ModelState.FAILED and time.monotonic() < work.retry_at:
            return
        self._set(work, ModelState.WAITING, reason, message)

    def answers(self, work: Work) -> None:
        """An earlier version of the model answers rightly, so the pod's readiness does not wait for the wanted one.

        That may have to be fetched first, from a repository that is slow or away.
        """
        self._attempted(work)

    def overdue(self, work: Work) -> None:
        """The model takes so long that the pod's readiness shall not wait for it."""
        log.warning("%s: version %s: Triton is long at it; others go on", work.model.name, work.model.version)
        self._attempted(work)

    def fail(self, work: Work, reason: Reason, message: str) -> None:
        """The model failed and is tried again, later each time; one that ended Triton too often, never."""
        work.attempts += 1
        if self._deadly.get(work.model.name, 0) < MOST_DEATHS:
            self._barred.discard(work.model.name)
        retry = self._pace.retry(work.attempts) if work.deaths < MOST_DEATHS else math.inf
        work.retry_at = time.monotonic() + retry
        if (work.reason, work.message) != (reason, message):
            log.warning("%s: version %s: %s: %s", work.model.name, work.model.version, reason, message)
        self._set(work, ModelState.FAILED, reason, message)

    def _set(self, work: Work, state: ModelState, reason: Reason | None = None, message: str = "") -> None:
        work.attempted = work.attempted or state in (ModelState.SERVING, ModelState.FAILED)
        if (work.state, work.reason, work.message) != (state, reason, message):
            work.state, work.reason, work.message = state, reason, message
            self.changed()
        self._latch()

    def _attempted(self, work: Work) -> None:
        work.attempted = True
        self._latch()

    def _latch(self) -> None:
        if not self.was_attempted and self.works and all(work.attempted for work in self.works.values()):
            self.was_attempted = True
            self.changed()

    def _save(self) -> None:
        here = self._folder.staged.union(*(versions.values() for versions in self._folder.placed.values()))
        self._remembered.forget_verified(keep=here)
        self._remembered.start = self.start
        self._remembered.doubted = set(self._doubted)
        try:
            self._remembered.write(self._folder.state_file)
        except OSError as error:  # it spares work, nothing more
            log.warning("%s cannot be written: %s", self._folder.state_file, error)


def _summary(desired: Desired) -> str:
    return ", ".join(f"{model.name} {model.version}" for model in desired.models) or "no models"
