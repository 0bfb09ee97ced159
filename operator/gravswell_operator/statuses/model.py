"""The status of a ``Model``: the version that is wanted, and what each replica made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gravswell.serving.contracts import DesiredModel, ModelReport, ModelState, Report, Verification
from gravswell_operator import conditions
from gravswell_operator.api import InferenceServer, Model
from gravswell_operator.api.model import PlacedStatus, ReplicaStatus
from gravswell_operator.api.rollout import RolloutState, RolloutStatus
from gravswell_operator.conditions import Finding, Reason, count
from gravswell_operator.desired.autoscaling import may_sleep
from gravswell_operator.desired.models import remembered
from gravswell_operator.desired.outcome import Outcome
from gravswell_operator.state import PodState, Unreadable
from gravswell_operator.statuses.pods import agent_reason, first_problem
from gravswell_operator.statuses.replica import Replica, replicas_of

SHOWN_REPLICAS = 100
STEPS = ("download", "verify", "load", "prove")
"""Of an agent with a version, in this order."""


@dataclass(frozen=True)
class ModelView:
    """Everything that a Model's status follows from."""

    model: Model
    server: InferenceServer | Unreadable | None
    outcome: Outcome | None
    """What the wish resolved to; None without a server that can be read."""
    pods: Sequence[PodState] = ()
    reports: Mapping[str, Report] = field(default_factory=dict)
    rollout: RolloutStatus | None = None
    """Where its roll-out stands now."""

    @property
    def replicas(self) -> list[Replica]:
        """The server's active pods, by name."""
        return replicas_of(self.model.spec.entry, self.pods, self.reports)


def findings(view: ModelView) -> list[Finding]:
    """The Model's conditions."""
    stop = _stop(view)
    if stop is not None:
        progressing = Finding(conditions.PROGRESSING, False, stop.reason, stop.message)
        return [stop, *_verified(view), progressing, *_suspended(view)]
    return [_ready(view), *_verified(view), _progressing(view), *_suspended(view)]


def _suspended(view: ModelView) -> list[Finding]:
    if not view.model.spec.suspend:
        return []
    message = "spec.suspend is true: the server keeps what was resolved last"
    return [Finding(conditions.SUSPENDED, True, Reason.SUSPENDED, message)]


def _stop(view: ModelView) -> Finding | None:
    """Why the wish is not acted upon at all."""
    model = view.model
    if view.server is None:
        return Finding(
            conditions.READY,
            False,
            Reason.SERVER_NOT_FOUND,
            f"there is no InferenceServer {model.spec.server_ref.name} in namespace {model.metadata.namespace}; apply "
            "it, or make a Model with another serverRef",
        )
    if isinstance(view.server, Unreadable):
        problem = view.server.problem()
        return Finding(conditions.READY, False, problem.reason, problem.message)
    outcome = view.outcome
    assert outcome is not None
    if outcome.reason is None:
        return None
    message = outcome.message
    if outcome.desired is not None:
        message += f"; version {outcome.desired.version} stays meanwhile"
    return Finding(conditions.READY, False, outcome.reason, message)


def _desired(view: ModelView) -> DesiredModel | None:
    return view.outcome.desired if view.outcome is not None else None


def _ready(view: ModelView) -> Finding:
    desired = _desired(view)
    assert desired is not None
    assert isinstance(view.server, InferenceServer)
    replicas = view.replicas
    if not replicas:
        return Finding(
            conditions.READY,
            False,
            Reason.NO_REPLICAS,
            f"InferenceServer {view.server.metadata.name} has no replica; {_why_none(view.server)}",
        )
    if (failure := _failure(replicas, desired)) is not None:
        return Finding(conditions.READY, False, *failure)
    crashed = first_problem([r.pod for r in replicas if r.pod.problem and r.pod.problem.reason is Reason.CRASH_LOOP])
    # One that is still starting takes no traffic, so it does not make the model less ready; one that crashes does.
    taking = [r for r in replicas if r.pod.ready]
    serving = [r for r in taking if r.serves(desired)]
    message = f"version {desired.version} serves on {len(serving)} of {count(len(replicas), 'replica')}"
    if desired.canary is not None:
        tried = sum(r.serves(desired.canary) for r in taking)
        message += f", version {desired.canary.version} on {tried}"
    enough = 1 if view.server.spec.ranks is None else view.server.spec.ranks
    if crashed is not None:
        return Finding(conditions.READY, False, crashed.reason, f"{message}; {crashed.message}")
    if len(taking) >= enough and all(r.serves_any(desired) for r in taking):
        return Finding(conditions.READY, True, Reason.SERVING, message)
    if view.server.spec.suspend:
        return Finding(
            conditions.READY, False, Reason.SUSPENDED, f"{message}, and InferenceServer {view.server.metadata.name} is "
            "suspended, so it is not told of changes"
        )  # fmt: skip
    if (problem := first_problem([r.pod for r in replicas if not r.pod.ready])) is not None:
        message += f"; {problem.message}"
    return Finding(conditions.READY, False, Reason.LOADING, message)


def _why_none(server: InferenceServer) -> str:
    if may_sleep(server):
        return "it may sleep (autoscaling.minReplicas is 0), and loads the model when it wakes; its conditions say more"
    return "its own conditions say why"


def _failure(replicas: Sequence[Replica], desired: DesiredModel) -> tuple[str, str] | None:
    failed = [r for r in replicas if r.failed(r.own(desired))]
    if not failed:
        return None
    first = failed[0]
    assert first.report is not None
    message = (
        f"version {first.report.desired_version} is not served on {len(failed)} of {count(len(replicas), 'replica')}; "
    )
    message += f"pod {first.pod.name}: {first.report.message or first.report.reason}"
    if first.report.loaded_version is not None:
        message += f"; version {first.report.loaded_version} still serves there"
    return agent_reason(first.report.reason, Reason.LOAD_FAILED), message


def _verified(view: ModelView) -> list[Finding]:
    desired = _desired(view)
    if desired is None:
        return []
    if desired.verification is Verification.NONE:
        return [
            Finding(conditions.VERIFIED, False, Reason.VERIFICATION_OFF, "verification: None; nothing was compared")
        ]
    replicas = view.replicas
    if (failure := _failure(replicas, desired)) is not None:
        return [Finding(conditions.VERIFIED, False, *failure)]
    serving = [r for r in replicas if r.serves_any(desired)]
    if desired.verification is Verification.HASHES and serving:
        return [
            Finding(
                conditions.VERIFIED,
                True,
                Reason.HASHES_MATCH,
                f"every hash matched on {count(len(serving), 'replica')}",
            )
        ]
    reproduced = [r for r in serving if r.report is not None and r.report.verified]
    if serving and len(reproduced) == len(serving):
        return [
            Finding(
                conditions.VERIFIED,
                True,
                Reason.GOLDEN_REPRODUCED,
                f"the golden tensors were reproduced on {count(len(reproduced), 'replica')}",
            )
        ]
    return [
        Finding(
            conditions.VERIFIED,
            None,
            Reason.VERIFICATION_PENDING,
            f"version {desired.version} was verified on {len(reproduced)} of {count(len(replicas), 'replica')}",
        )
    ]


def _progressing(view: ModelView) -> Finding:
    desired = _desired(view)
    assert desired is not None
    replicas = view.replicas
    rollout = view.rollout
    if desired.canary is not None and rollout is not None:
        paused = rollout.state is RolloutState.PAUSED
        reason = Reason.ROLLOUT_PAUSED if paused else Reason.ROLLING_OUT
        return Finding(conditions.PROGRESSING, True, reason, rollout.message)
    if rollout is not None and rollout.state is RolloutState.WAITING:
        return Finding(conditions.PROGRESSING, True, Reason.ROLLING_OUT, rollout.message)
    behind = [r for r in replicas if not r.serves(desired) and not r.failed(desired)]
    if behind:
        return Finding(
            conditions.PROGRESSING,
            True,
            Reason.LOADING,
            f"{len(behind)} of {count(len(replicas), 'replica')} on the way to version {desired.version}",
        )
    return Finding(conditions.PROGRESSING, False, Reason.LOADED, "no replica is on its way to another version")


def fields(view: ModelView) -> dict[str, object]:
    """The status beside the conditions, by the names of the API."""
    # A wish that cannot even be looked at is not forgotten: a suspended Model has no other memory.
    desired = view.outcome.desired if view.outcome is not None else remembered(view.model)
    made: dict[str, object] = {}
    replicas = view.replicas
    if desired is not None:
        made["desiredVersion"] = desired.version
        if desired.digest is not None:
            made["desiredDigest"] = desired.digest
        if desired.gpus is not None:
            made["placement"] = PlacedStatus(devices=desired.gpus).to_dict()
    if view.rollout is not None:
        made["rollout"] = view.rollout.to_dict()
    loaded = {(r.report.loaded_version, r.report.loaded_digest) if r.report is not None else None for r in replicas}
    if len(loaded) == 1 and (same := loaded.pop()) is not None and same[0] is not None:
        made["loadedVersion"] = same[0]
        if same[1] is not None:
            made["loadedDigest"] = same[1]
    made["replicas"] = [_replica_status(r, desired).to_dict() for r in replicas[:SHOWN_REPLICAS]]
    return made


def _replica_status(replica: Replica, desired: DesiredModel | None) -> ReplicaStatus:
    report = replica.report
    desired = replica.own(desired) if desired is not None else None
    if report is None:
        return ReplicaStatus(pod=replica.pod.name, state=ModelState.WAITING)
    current = desired is not None and report.is_about(desired)
    return ReplicaStatus(
        pod=replica.pod.name,
        # What the agent said of an earlier wish says nothing of this one.
        state=report.state if current else ModelState.WAITING,
        version=report.loaded_version,
        message=conditions.shorten(report.message) if current else "",
        seconds=(_seconds(report) or None) if current else None,
        downloaded=(report.downloaded or None) if current else None,
    )


def _seconds(report: ModelReport) -> dict[str, float]:
    return {step: round(report.seconds[step], 1) for step in STEPS if step in report.seconds}
