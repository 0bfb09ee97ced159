"""What a canary's weights make of a server's replicas: which of them serve the new version, and what share of the
requests through the Gateway they get. Pure.

A replica is of the new version from when its agent says that it takes traffic there until it says that it does no
more, whatever it was told meanwhile. So nothing needs to be remembered, also on the way back.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gravswell.serving.contracts import Canary, Desired, DesiredModel, Report
from gravswell_operator.api import Model
from gravswell_operator.api.rollout import UNDER_WAY, RolloutState, RolloutStatus, Strategy
from gravswell_operator.desired.models import told
from gravswell_operator.desired.rollouts import is_of, is_same
from gravswell_operator.state import PodState, Unreadable

Reports = Mapping[str, Report]
"""What a server's agents say, by pod."""

_OVER = (RolloutState.PROMOTED, RolloutState.COMPLETE)
"""All replicas take requests alike, whatever they serve."""


@dataclass(frozen=True)
class Split:
    """The replicas of a server, told apart by what they serve of one entry."""

    new: frozenset[str]
    """The pods that serve the new version; all others are of the old one."""
    percent: int
    """What the new ones get of the requests through the Gateway."""

    def weights(self, pods: Iterable[PodState]) -> tuple[int, int]:
        """The weight of the old and of the new replicas.

        A Gateway fails the share of a side that has nobody ready, so that side gets none.
        """
        ready = [pod.name in self.new for pod in pods if pod.ready and pod.active]
        if True not in ready:
            return 100, 0
        if False not in ready:
            return 0, 100
        return 100 - self.percent, self.percent


def is_weighted(model: Model) -> bool:
    """Whether a new version of ``model`` comes by steps that have weights."""
    rollout = model.spec.rollout
    return rollout.strategy is Strategy.CANARY and rollout.plan.weighted


def weigher(models: Iterable[Model | Unreadable], pods: Sequence[PodState], reports: Reports) -> Model | None:
    """The one of a server's Models whose canary has the weights of the routes now, or gets them next; the others wait.

    The routes tell two sets of replicas apart, whatever is asked of them: what goes for one model goes for all.
    """
    weighted = [m for m in models if isinstance(m, Model) and is_weighted(m)]
    asking = [(m, r) for m in weighted if (r := m.status.rollout) is not None and r.strategy is Strategy.CANARY]
    asking.sort(key=lambda found: (found[1].started, found[0].metadata.name))
    having = [m for m, rollout in asking if rollout.state in UNDER_WAY or _goes_back(m, rollout, pods, reports)]
    waiting = [m for m, rollout in asking if rollout.state is RolloutState.WAITING and not m.spec.suspend]
    return next(iter([*having, *waiting]), None)


def _goes_back(model: Model, rollout: RolloutStatus, pods: Sequence[PodState], reports: Reports) -> bool:
    """Whether some replica still serves what was rolled back."""
    return rollout.state is RolloutState.ROLLED_BACK and bool(_serving(_new(model, rollout), pods, reports))


def split_of(model: Model, desired: Desired, pods: Sequence[PodState], reports: Reports) -> Split | None:
    """How the routes divide the requests while the agents are to do what is ``desired``, for the canary of ``model``.

    None: every replica gets the same. A step's weight holds once all of its replicas serve the new version; before,
    that of the step before does, and none at first, or once it was rolled back.
    """
    rollout, wanted = model.status.rollout, told(desired).get(model.spec.entry)
    if rollout is None or wanted is None:
        return None
    canary = wanted.canary
    if canary is not None:
        new = _serving(_version(wanted, canary), pods, reports)
        there = {pod.name for pod in pods if pod.ready and pod.active} & new
        percent = _in_force(model, rollout, complete=bool(canary.pods) and there >= set(canary.pods))
        return Split(new, percent) if percent is not None else None
    if rollout.state in _OVER or is_of(rollout, wanted):
        return None
    new = _serving(_new(model, rollout), pods, reports)
    return Split(new, 0) if new else None


def held_back(wanted: Desired, before: Desired | None, entry: str) -> Desired:
    """``wanted`` without the canary of ``entry``, unless the agents were told of that ``before``."""
    known = told(before).get(entry)

    def held(model: DesiredModel) -> DesiredModel:
        canary = model.canary
        if model.name != entry or canary is None:
            return model
        if known is not None and known.canary is not None and is_same(known.canary, canary):
            return model
        return model.model_copy(update={"canary": None})

    return wanted.model_copy(update={"models": tuple(held(model) for model in wanted.models)})


def _in_force(model: Model, rollout: RolloutStatus, *, complete: bool) -> int | None:
    steps = model.spec.rollout.plan.steps
    number = min(max(rollout.step, 1), len(steps))
    if not complete:
        number -= 1
    if number:
        return steps[number - 1].percent
    return 0 if steps[0].percent is not None else None


def _version(wanted: DesiredModel, other: Canary) -> DesiredModel:
    return wanted.model_copy(update={"version": other.version, "digest": other.digest})


def _new(model: Model, rollout: RolloutStatus) -> DesiredModel:
    return DesiredModel(name=model.spec.entry, version=rollout.to, digest=rollout.to_digest)


def _serving(version: DesiredModel, pods: Sequence[PodState], reports: Reports) -> frozenset[str]:
    """The pods on which ``version`` takes traffic; those that are about to end, too."""
    said = ((pod.name, reports[pod.name].of(version.name)) for pod in pods if pod.name in reports and not pod.finished)
    return frozenset(name for name, report in said if report is not None and report.has_loaded(version))
