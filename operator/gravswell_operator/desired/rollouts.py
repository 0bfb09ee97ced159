"""Which replicas serve a new version while its roll-out is under way. Pure; the steps are in ``statuses/rollout.py``.

The two have one memory, the Model's ``status.rollout``: its own reconcile takes the steps and writes them there, and
the server's reconcile tells the agents what follows from it.
"""

import math
from collections.abc import Collection, Iterable, Sequence

from gravswell.serving.contracts import Canary, DesiredModel
from gravswell_operator.api import Model
from gravswell_operator.api.rollout import RolloutState, RolloutStatus, Step, Strategy, fraction
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.outcome import Outcome
from gravswell_operator.state import PodState

COUNT_SECONDS = 5.0
"""Between two counts that a replica tells, at least."""
COUNT_SECONDS_EACH = 0.5
"""And this for each replica: all of them write into one ConfigMap, and so never more than twice a second."""
_NOT_BEGUN = (RolloutState.COMPLETE, RolloutState.WAITING)
"""An earlier one is over, or this one waits."""


def is_same(one: DesiredModel | Canary, other: DesiredModel | Canary) -> bool:
    """Whether two mean the same version, by its content."""
    return (one.version, one.digest) == (other.version, other.digest)


def is_of(rollout: RolloutStatus | None, target: DesiredModel) -> bool:
    """Whether ``rollout`` is one to ``target``."""
    return rollout is not None and (rollout.to, rollout.to_digest) == (target.version, target.digest)


def is_canary_of(rollout: RolloutStatus | None, target: DesiredModel) -> bool:
    """Whether ``rollout`` is a canary of ``target``. One that began all at once has no step to go on from."""
    return is_of(rollout, target) and rollout is not None and rollout.strategy is Strategy.CANARY


def window(rollout: RolloutStatus) -> str:
    """The name of the time in which requests are counted: one for each step of each try."""
    return f"{rollout.to}/{rollout.started}/{rollout.step}"


def present_step(model: Model, rollout: RolloutStatus) -> Step:
    """The step of the canary that is under way. The plan may have become shorter meanwhile."""
    steps = model.spec.rollout.plan.steps
    return steps[min(max(rollout.step, 1), len(steps)) - 1]


def share(step: Step, replicas: int) -> int:
    """How many of so many replicas serve the new version in a step: at least one, where there is one."""
    wanted = step.replicas if isinstance(step.replicas, int) else math.ceil(fraction(step.replicas) * replicas)
    return min(wanted, replicas)


def pick(pods: Iterable[PodState], chosen: Collection[str], wanted: int) -> tuple[str, ...]:
    """The ``wanted`` replicas of a canary: those ``chosen`` before that are still there, then ready ones, by name.

    One that was chosen stays so when it is not ready: the new version may be why, and must not go round.
    """
    active = sorted((p for p in pods if p.active), key=lambda p: (p.name not in chosen, not p.ready, p.name))
    return tuple(sorted(pod.name for pod in active[:wanted]))


def fallen_back(model: Model, outcome: Outcome) -> Outcome:
    """What all ranks of a server are told of ``outcome``: the version before, where one of them refuses this one."""
    target, rollout = outcome.desired, model.status.rollout
    if not outcome.resolved or model.spec.suspend or target is None or rollout is None or not is_of(rollout, target):
        return outcome
    if rollout.state is not RolloutState.ROLLED_BACK or rollout.from_version is None:
        return outcome
    old = target.model_copy(update={"version": rollout.from_version, "digest": rollout.from_digest})
    return Outcome(old, Reason.ROLLED_BACK, rollout.message)


def staged(model: Model, outcome: Outcome, kept: DesiredModel | None, pods: Sequence[PodState]) -> Outcome:
    """What the agents are told of ``outcome``, by the strategy of ``model`` and where its roll-out stands.

    ``kept`` is what they were told last. What could not be resolved, or is suspended, stays as they were told.
    """
    target, rollout = outcome.desired, model.status.rollout
    if not outcome.resolved or model.spec.suspend or target is None or kept is None or is_same(kept, target):
        return outcome
    if model.spec.rollout.strategy is Strategy.IMMEDIATE:
        return outcome
    old = {"version": kept.version, "digest": kept.digest, "verification": kept.verification, "canary": None}
    stable = target.model_copy(update=old)
    if rollout is None or not is_canary_of(rollout, target) or rollout.state in _NOT_BEGUN:
        return Outcome(stable)  # the Model's own reconcile begins it
    if rollout.state is RolloutState.PROMOTED:
        return outcome
    if rollout.state is RolloutState.ROLLED_BACK:
        return Outcome(stable, Reason.ROLLED_BACK, rollout.message)
    active = sum(pod.active for pod in pods)
    before = kept.canary.pods if kept.canary is not None else ()
    canary = Canary(
        version=target.version,
        digest=target.digest,
        verification=target.verification,
        pods=pick(pods, before, share(present_step(model, rollout), active)),
        window=window(rollout),
        seconds=max(COUNT_SECONDS, COUNT_SECONDS_EACH * active),
    )
    return Outcome(stable.model_copy(update={"canary": canary}))
