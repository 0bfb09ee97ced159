"""``status.rollout``: the next state of a roll-out, from what it was, what the agents say, and the time. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gravswell import durations
from gravswell.serving.contracts import Canary, DesiredModel, ModelReport, Reason
from gravswell_operator import conditions
from gravswell_operator.api import Model
from gravswell_operator.api.rollout import MANUAL, UNDER_WAY, RolloutState, RolloutStatus, Step, Strategy
from gravswell_operator.conditions import count
from gravswell_operator.desired.judge import Requests, Verdict, judge
from gravswell_operator.desired.rollouts import is_canary_of, is_of, is_same, present_step, share, window
from gravswell_operator.state import Problem
from gravswell_operator.statuses.gateway import NOT_LOOKED, Weighing
from gravswell_operator.statuses.pods import first_problem
from gravswell_operator.statuses.replica import Replica

PROOFS = frozenset(
    {
        Reason.GOLDEN_MISMATCH,
        Reason.INFERENCE_FAILED,
        Reason.LOAD_FAILED,
        Reason.DIGEST_MISMATCH,
        Reason.MANIFEST_INVALID,
        Reason.UNVERIFIED,
    }
)
"""Failures on one replica that say enough of the version itself. What may pass is waited for, up to the deadline."""

COUNTS = 2
"""After how many of a step's counts the old replicas have told theirs of the same time: each tells at a moment of its
own. Until then a new replica's failures prove nothing where clients do wrong with both versions."""


@dataclass(frozen=True)
class Look:
    """Everything that the next state follows from."""

    model: Model
    strategy: Strategy
    """How it is carried out on this server."""
    target: DesiredModel
    """What the Model stands for now."""
    kept: DesiredModel | None
    """What the agents were told last; None where they were told nothing yet."""
    replicas: Sequence[Replica]
    """The server's active pods."""
    now: datetime
    together: bool = False
    """They are ranks, which serve one version or none: where one cannot, all go back."""
    weighing: Weighing = field(default_factory=Weighing)
    """What the weights of a canary that has some depend on."""


@dataclass(frozen=True)
class Next:
    """The state to write, and after how many seconds it may change by itself."""

    status: RolloutStatus | None
    after: float | None = None
    refused: Problem | None = None
    """Why a canary does not begin, where somebody must do something for that."""


AGAIN_SECONDS = 1.0
"""From when a canary has said that it waits for its turn until it looks whether that has come: of two that begin at the
same time each sees the other then."""


def advance(look: Look) -> Next:  # noqa: PLR0911  an ordered list of facts, one return each
    """The next state of the Model's roll-out."""
    model, target, kept = look.model, look.target, look.kept
    before = model.status.rollout
    if kept is None:
        return Next(None)  # the first version has nothing to be rolled back to
    if look.together:
        return _together(look, before if is_of(before, target) else None)
    if look.strategy is Strategy.IMMEDIATE or is_same(kept, target):
        return Next(_settling(look, before if is_of(before, target) else None))
    if before is None or not is_canary_of(before, target) or before.state is RolloutState.COMPLETE:
        return _begin(look, kept, None)
    if before.state is RolloutState.WAITING:
        return _begin(look, kept, before)
    if before.state is RolloutState.PROMOTED:
        return Next(_settling(look, before))
    if before.state is RolloutState.ROLLED_BACK:
        if _stays_back(look, before):
            return Next(_counted(look, before))
        return _begin(look, kept, None)
    return _canary(look, before)


def _begin(look: Look, kept: DesiredModel, waiting: RolloutStatus | None) -> Next:
    """Begin a canary. One with weights is ``waiting`` first: for its server's routes, and for its turn with them."""
    spec, begun = look.model.spec.rollout, _begun(look, kept.version, kept.digest)
    if not spec.plan.weighted or look.target.version in (spec.abort, spec.promote):
        return _canary(look, begun)
    if waiting is None:
        message = "it is looked whether its weights can be given"
        return Next(_counted(look, begun, state=RolloutState.WAITING, message=message), AGAIN_SECONDS)
    obstacle, turn, name = look.weighing.obstacle, look.weighing.turn, look.model.metadata.name
    if obstacle is not None and obstacle.reason is not conditions.Reason.ROUTES_WAITING:
        return Next(_counted(look, waiting, message=obstacle.message), refused=obstacle)
    if turn != name:
        server = look.model.spec.server_ref.name
        message = f"it waits for the canary of Model {turn}, which has the weights of InferenceServer {server}'s routes"
        return Next(_counted(look, waiting, message=message))
    if obstacle is not None:
        return Next(_counted(look, waiting, message=obstacle.message))
    return _canary(look, begun)


def _stays_back(look: Look, status: RolloutStatus) -> bool:
    """Whether nobody has asked for another try of what was rolled back."""
    model = look.model
    return status.generation == model.metadata.generation or model.spec.rollout.abort == look.target.version


TIMES = ("loading_since", "serving_since")
"""What the deadline and the pauses of a roll-out are counted from."""


def resumed(model: Model, now: datetime) -> Model:
    """``model``, with the times of its roll-out as if they had stood still while it was suspended."""
    suspended = next((c for c in model.status.conditions if c.type == conditions.SUSPENDED), None)
    if model.spec.suspend or suspended is None:
        return model
    away = now - datetime.fromisoformat(suspended.last_transition_time)
    return moved(model, lambda _: away)


def moved(model: Model, by: Callable[[str], timedelta]) -> Model:
    """``model``, with each of the times of its roll-out as much later as ``by`` says of it."""
    rollout = model.status.rollout
    if rollout is None:
        return model
    times = {name: stamp for name in TIMES if (stamp := getattr(rollout, name)) is not None}
    later = {name: conditions.stamp(datetime.fromisoformat(stamp) + by(stamp)) for name, stamp in times.items()}
    if later == times:
        return model
    status = model.status.model_copy(update={"rollout": rollout.model_copy(update=later)})
    return model.model_copy(update={"status": status})


def _seconds(look: Look, since: str) -> float:
    return (look.now - datetime.fromisoformat(since)).total_seconds()


def _begun(look: Look, old: int | None, digest: str | None) -> RolloutStatus:
    rollout, now = look.model.spec.rollout, conditions.stamp(look.now)
    is_canary = look.strategy is Strategy.CANARY
    return RolloutStatus(
        strategy=look.strategy,
        state=RolloutState.PROGRESSING,
        from_version=old,
        from_digest=digest,
        to=look.target.version,
        to_digest=look.target.digest,
        step=1 if is_canary else 0,
        steps=len(rollout.plan.steps) if is_canary else 0,
        started=now,
        since=now,
    )


def _counted(look: Look, status: RolloutStatus, **changes: object) -> RolloutStatus:
    """``status`` with ``changes``, the replicas counted anew, and the time of its state or step."""
    changed = status.model_copy(update=changes)
    total, updated = len(look.replicas), sum(replica.serves(look.target) for replica in look.replicas)
    if (changed.state, changed.step) != (status.state, status.step):
        changed = changed.model_copy(update={"since": conditions.stamp(look.now)})
    if changed.step != status.step or changed.state not in UNDER_WAY:
        changed = changed.model_copy(update={"loading_since": None, "serving_since": None})
    if changed.state in (RolloutState.WAITING, RolloutState.ROLLED_BACK):
        shall = 0
    elif changed.strategy is Strategy.CANARY and changed.state in UNDER_WAY:
        shall = share(present_step(look.model, changed), total)
    else:
        shall = total
    weight = look.weighing.percent
    words = {
        "replicas_updated": updated,
        "replicas": shall,
        "weight": weight,
        "progress": f"{updated}/{total} {changed.state}{'' if weight is None else f', weight {weight}%'}",
        "message": conditions.shorten(changed.message),
    }
    return changed.model_copy(update=words)


def _settling(look: Look, known: RolloutStatus | None) -> RolloutStatus | None:
    """Every replica was told the new version, or is about to be."""
    told = look.model.status
    if known is None:
        if (told.desired_version, told.desired_digest) in ((None, None), (look.target.version, look.target.digest)):
            return None  # nothing changes
        known = _begun(look, told.desired_version, told.desired_digest)
    elif known.state is RolloutState.ROLLED_BACK:  # wanted all the same, by another strategy
        known = _begun(look, known.from_version, known.from_digest)
    taking = [replica for replica in look.replicas if replica.pod.ready]
    number = look.target.version
    if known.state is RolloutState.COMPLETE or (taking and all(replica.serves(look.target) for replica in taking)):
        message = f"version {number} serves"
        return _counted(look, known, state=RolloutState.COMPLETE, message=message)
    canary = known.strategy is Strategy.CANARY
    state = RolloutState.PROMOTED if canary else RolloutState.PROGRESSING
    return _counted(look, known, state=state, message=f"every replica goes to version {number}")


def _together(look: Look, known: RolloutStatus | None) -> Next:
    """A change of all ranks: they go over to the new version as one, and back as one where one of them refuses it."""
    if known is not None and known.state is RolloutState.ROLLED_BACK and _stays_back(look, known):
        return Next(_counted(look, known))
    settling = _settling(look, known)
    if settling is None or settling.state is RolloutState.COMPLETE or settling.from_version is None:
        return Next(settling)
    failure = _failure(look.target, look.replicas)
    if failure is None or look.model.spec.rollout.promote == look.target.version:
        return Next(settling)
    pod, report = failure
    if report.reason not in {*PROOFS, Reason.NO_MEMORY}:
        return Next(settling)  # it may pass; memory does not come while all wait for it, out of service
    return _back(look, settling, f"pod {pod}: {report.reason}: {report.message}")


def _back(look: Look, status: RolloutStatus, why: str) -> Next:
    message = f"version {look.target.version} was rolled back: {why}"
    generation = look.model.metadata.generation
    return Next(_counted(look, status, state=RolloutState.ROLLED_BACK, generation=generation, message=message))


def _forward(look: Look, status: RolloutStatus, why: str) -> Next:
    return Next(_counted(look, status, state=RolloutState.PROMOTED, message=why))


def _canary(look: Look, status: RolloutStatus) -> Next:  # noqa: PLR0911  an ordered list of facts, one return each
    """The present step of a canary, as far as it goes."""
    spec, target, kept = look.model.spec.rollout, look.target, look.kept
    assert kept is not None
    status = status.model_copy(update={"steps": len(spec.plan.steps)})
    if spec.abort == target.version:
        return _back(look, status, "spec.rollout.abort names it")
    if spec.promote == target.version:
        return _forward(look, status, f"spec.rollout.promote names version {target.version}")
    step = present_step(look.model, status)
    wanted = share(step, len(look.replicas))
    where = f"step {status.step} of {status.steps}"
    waits = status.model_copy(update={"loading_since": None, "serving_since": None})
    if not wanted:
        return Next(_counted(look, waits, message=f"{where}: there is no replica to try it on"))
    told = kept.canary
    if told is None or not is_same(told, target) or told.window != window(status):
        message = f"{where}: {count(wanted, 'replica')} of {len(look.replicas)} shall serve version {target.version}"
        if step.weight is not None and look.weighing.obstacle is not None:
            message += f", once the Gateway leaves it out: {look.weighing.obstacle.message}"
        return Next(_counted(look, waits, message=message))
    names = frozenset(told.pods)
    chosen = [replica for replica in look.replicas if replica.pod.name in names]
    failure = _failure(target, chosen)
    if failure is not None and failure[1].reason in PROOFS:
        pod, report = failure
        return _back(look, status, f"pod {pod}: {report.reason}: {report.message}")
    others = [replica for replica in look.replicas if replica.pod.name not in names]
    asked = Requests.told((r.report for r in others), kept, told.window)
    verdict, why = judge(spec.plan.judge, Requests.told((r.report for r in chosen), told, told.window), asked)
    begun = status.model_copy(update={"loading_since": status.loading_since or conditions.stamp(look.now)})
    if verdict is Verdict.BAD:
        old = any(replica.pod.ready and replica.serves(kept) for replica in others)
        left = _counting(look, begun, told)
        if left > 0 and old and asked.total < spec.plan.judge.min_requests:
            message = f"{where}: it fails requests; what the old version was asked in the same time is waited for"
            return Next(_counted(look, begun, message=message), left)
        return _back(look, status, f"{where}: {why}")
    status = begun
    if sum(replica.pod.ready and replica.serves(target) for replica in chosen) < wanted:
        return _loading(look, _reloading(look, status, step), chosen, wanted)
    if step.weight is not None and look.weighing.obstacle == NOT_LOOKED:
        return Next(_counted(look, status))  # an operator that starts anew knows nothing of routes yet
    if step.weight is not None and look.weighing.lacking:
        message = f"{where}: version {target.version} serves on {count(wanted, 'replica')}, and its weight of "
        message += f"{step.weight} waits for the Gateway: {look.weighing.lacking}"
        return _until_deadline(look, _reloading(look, status, step), message)
    status = status.model_copy(update={"serving_since": status.serving_since or conditions.stamp(look.now)})
    return _judged(look, status, step, verdict, why)


def _failure(target: DesiredModel, chosen: Sequence[Replica]) -> tuple[str, ModelReport] | None:
    """A pod that could not serve the new version, and what its agent says; the one that proves most."""
    found = [(r.pod.name, r.report) for r in chosen if r.report is not None and r.failed(target)]
    return min(found, key=lambda failure: failure[1].reason not in PROOFS, default=None)


def _counting(look: Look, status: RolloutStatus, told: Canary) -> float:
    """For how many seconds the old version's replicas may still tell nothing of the step."""
    assert status.loading_since is not None
    return COUNTS * told.seconds - _seconds(look, status.loading_since)


def _reloading(look: Look, status: RolloutStatus, step: Step) -> RolloutStatus:
    """``status`` when some replicas of the step do not serve the new version yet, or no more.

    A replica that is lost is waited for as at the step's begin. Where that is before its pause is over, what was waited
    before counts, too: a version that ends its server again and again would never be late.
    """
    if status.serving_since is None or status.loading_since is None:
        return status
    since, served = look.now, max(_seconds(look, status.serving_since), 0)
    if step.pause != MANUAL and served < durations.seconds(step.pause):
        since = datetime.fromisoformat(status.loading_since) + timedelta(seconds=served)
    return status.model_copy(update={"serving_since": None, "loading_since": conditions.stamp(since)})


def _loading(look: Look, status: RolloutStatus, chosen: Sequence[Replica], wanted: int) -> Next:
    """Some replicas of the step do not serve the new version."""
    target = look.target
    waiting = [replica for replica in chosen if not (replica.pod.ready and replica.serves(target))]
    message = f"step {status.step} of {status.steps}: version {target.version} serves on "
    message += f"{len(chosen) - len(waiting)} of {count(wanted, 'replica')}"
    if (failure := _failure(target, chosen)) is not None:
        pod, report = failure
        message += f"; pod {pod}: {report.message or report.reason}"
    elif (problem := first_problem([replica.pod for replica in waiting])) is not None:
        message += f"; {problem.message}"
    return _until_deadline(look, status, message)


def _until_deadline(look: Look, status: RolloutStatus, message: str) -> Next:
    """What a step lacks, for as long as it may; then the version is rolled back."""
    deadline = look.model.spec.rollout.plan.progress_deadline
    assert status.loading_since is not None
    left = durations.seconds(deadline) - _seconds(look, status.loading_since)
    if left <= 0:
        return _back(look, status, f"{message}, and progressDeadline {deadline} has passed")
    return Next(_counted(look, status, state=RolloutState.PROGRESSING, message=message), left)


def _judged(look: Look, status: RolloutStatus, step: Step, verdict: Verdict, why: str) -> Next:
    """Every replica of the step serves the new version."""
    where = f"step {status.step} of {status.steps}"
    assert status.serving_since is not None
    if step.pause == MANUAL:
        message = f"{where} waits for somebody: gravswell rollout promote {look.model.metadata.name}, or abort"
        return Next(_counted(look, status, state=RolloutState.PAUSED, message=message))
    left = durations.seconds(step.pause) - _seconds(look, status.serving_since)
    if left > 0:
        message = f"{where}: judged for {step.pause} from {status.serving_since} on"
        return Next(_counted(look, status, state=RolloutState.PROGRESSING, message=message), left)
    if verdict is Verdict.UNKNOWN:
        message = f"{where}: {step.pause} have passed, and {why}"
        return Next(_counted(look, status, state=RolloutState.PROGRESSING, message=message))
    if status.step >= status.steps:
        return _forward(look, status, f"{where} was good: {why}")
    message = f"{where} was good: {why}"
    number = status.step + 1
    return Next(_counted(look, status, step=number, state=RolloutState.PROGRESSING, message=message))
