"""Conditions and their reasons: every reason that the operator gives is here, and has a line in ``docs/runbook.md``.

Pure: the time is an argument.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from gravswell_operator.api import Condition, ConditionStatus
from gravswell_operator.api.common import Status

READY = "Ready"
ACCESSIBLE = "Accessible"
AVAILABLE = "Available"
PROGRESSING = "Progressing"
VERIFIED = "Verified"
REPOSITORY_RESOLVED = "RepositoryResolved"
NODE_POOL_RESOLVED = "NodePoolResolved"
MODELS_RESOLVED = "ModelsResolved"
MODELS_LOADED = "ModelsLoaded"
RANKS_READY = "RanksReady"
AUTOSCALING = "Autoscaling"
ROUTES_ACCEPTED = "RoutesAccepted"
DRIVERS_INSTALLED = "DriversInstalled"
PROVISIONED = "Provisioned"
SUSPENDED = "Suspended"

MAX_MESSAGE = 1024
"""Characters of a message that are kept; an image pull's error can be very long."""


def stamp(moment: datetime) -> str:
    """A time in UTC as the API server writes it in conditions, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Reason(enum.StrEnum):
    """Why a condition is what it is. One word for programs; the message beside it is for people."""

    # Every kind
    SUSPENDED = "Suspended"
    INVALID_SPEC = "InvalidSpec"
    REJECTED = "Rejected"
    FORBIDDEN = "Forbidden"
    NAME_TAKEN = "NameTaken"
    API_ERROR = "ApiError"
    OPERATOR_FAULT = "OperatorFault"

    # GPUNodePool
    NODES_READY = "NodesReady"
    NO_NODES = "NoNodes"
    NOT_ENOUGH_NODES = "NotEnoughNodes"
    NO_GPUS = "NoGPUs"
    FEWER_GPUS = "FewerGPUs"
    PLUGIN_RUNNING = "PluginRunning"
    PLUGIN_STARTING = "PluginStarting"
    GPU_OPERATOR_READY = "GPUOperatorReady"
    GPU_OPERATOR_NOT_READY = "GPUOperatorNotReady"
    NAMESPACE_NOT_FOUND = "NamespaceNotFound"
    PROVIDER_READY = "ProviderReady"
    PROVIDER_STARTING = "ProviderStarting"
    PROVIDER_NOT_READY = "ProviderNotReady"
    PROVIDER_MISSING = "ProviderMissing"
    PROVIDER_UNREACHABLE = "ProviderUnreachable"
    QUOTA_EXCEEDED = "QuotaExceeded"
    OUT_OF_STOCK = "OutOfStock"
    WRONG_CLUSTER = "WrongCluster"
    DELETING = "Deleting"
    LEFT_BEHIND = "LeftBehind"
    NODES_PENDING = "NodesPending"
    NOTHING_ASKED_FOR = "NothingAskedFor"

    # ModelRepository
    LISTED = "Listed"
    PARTLY_LISTED = "PartlyListed"
    NOT_LISTED_YET = "NotListedYet"
    LISTER_NOT_READY = "ListerNotReady"
    LISTING_UNREADABLE = "ListingUnreadable"
    CREDENTIALS_NOT_FOUND = "CredentialsNotFound"
    NOT_ACCESSIBLE = "NotAccessible"

    # InferenceServer
    SERVING = "Serving"
    SCALED_TO_ZERO = "ScaledToZero"
    REPOSITORY_FOUND = "RepositoryFound"
    REPOSITORY_NOT_FOUND = "RepositoryNotFound"
    NODE_POOL_FOUND = "NodePoolFound"
    NODE_POOL_NOT_FOUND = "NodePoolNotFound"
    NODE_POOL_NOT_ALLOWED = "NodePoolNotAllowed"
    TOO_MANY_GPUS = "TooManyGPUs"
    NODE_SELECTOR_CONFLICT = "NodeSelectorConflict"
    MODELS_KNOWN = "ModelsKnown"
    MODELS_UNRESOLVED = "ModelsUnresolved"
    NO_MODELS = "NoModels"
    STARTING = "Starting"
    ROLLING_OUT = "RollingOut"
    ROLLED_OUT = "RolledOut"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    NO_REPLICA_READY = "NoReplicaReady"
    REPLICAS_READY = "ReplicasReady"
    ALL_RANKS_READY = "AllRanksReady"
    RANK_NOT_READY = "RankNotReady"
    AUTOSCALER_ACTIVE = "AutoscalerActive"
    AUTOSCALER_WAITING = "AutoscalerWaiting"
    AUTOSCALER_FAILING = "AutoscalerFailing"
    AUTOSCALER_MISSING = "AutoscalerMissing"
    NO_PROMETHEUS = "NoPrometheus"
    ROUTES_TAKEN = "RoutesTaken"
    ROUTES_WAITING = "RoutesWaiting"
    ROUTE_REFUSED = "RouteRefused"
    GATEWAY_MISSING = "GatewayMissing"

    # Pods of any kind
    NODE_NOT_READY = "NodeNotReady"
    POD_UNSCHEDULABLE = "PodUnschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG_ERROR = "ContainerConfigError"
    CRASH_LOOP = "CrashLoop"
    POD_FAILED = "PodFailed"
    PODS_REFUSED = "PodsRefused"

    # Model
    SERVER_NOT_FOUND = "ServerNotFound"
    ENTRY_NOT_FOUND = "EntryNotFound"
    VERSION_NOT_FOUND = "VersionNotFound"
    UNVERIFIED_VERSION = "UnverifiedVersion"
    OPSET_TOO_NEW = "OpsetTooNew"
    CONFLICT = "Conflict"
    NOT_PLACED = "NotPlaced"
    NOT_A_PARTITION = "NotAPartition"
    OTHER_RANKS = "OtherRanks"
    PARTS_MISSING = "PartsMissing"
    NOT_RESOLVED_YET = "NotResolvedYet"
    NO_REPLICAS = "NoReplicas"
    LOADING = "Loading"
    LOADED = "Loaded"
    GOLDEN_REPRODUCED = "GoldenReproduced"
    HASHES_MATCH = "HashesMatch"
    VERIFICATION_OFF = "VerificationOff"
    VERIFICATION_PENDING = "VerificationPending"
    ROLLOUT_PAUSED = "RolloutPaused"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    LOAD_FAILED = "LoadFailed"


@dataclass(frozen=True)
class Finding:
    """One condition as decided now, before it meets the one that was written last."""

    type: str
    status: bool | None
    """None: unknown."""
    reason: str
    message: str = ""

    @property
    def condition_status(self) -> ConditionStatus:
        """``status`` in the API's words."""
        if self.status is None:
            return ConditionStatus.UNKNOWN
        return ConditionStatus.TRUE if self.status else ConditionStatus.FALSE


@dataclass(frozen=True)
class Transition:
    """A condition whose status or reason changed: what an event is made of."""

    type: str
    status: ConditionStatus
    reason: str
    message: str

    @property
    def warning(self) -> bool:
        """Whether a person should look: something that ought to hold does not."""
        harmless = {Reason.SUSPENDED, Reason.STARTING, Reason.LOADING, Reason.ROLLING_OUT, Reason.ROLLED_OUT}
        harmless |= {Reason.LOADED, Reason.SCALED_TO_ZERO, Reason.NOT_LISTED_YET, Reason.VERIFICATION_OFF}
        harmless |= {Reason.NOT_RESOLVED_YET, Reason.PLUGIN_STARTING, Reason.NO_REPLICA_READY, Reason.NO_REPLICAS}
        harmless |= {Reason.NO_MODELS}  # a server is applied before its Models
        harmless |= {Reason.PROVIDER_STARTING, Reason.NODES_PENDING, Reason.DELETING}
        return self.status is ConditionStatus.FALSE and self.reason not in harmless


def ready(status: Status) -> Condition | None:
    """The condition Ready of an object; None where the operator has not looked at it yet."""
    return next((condition for condition in status.conditions if condition.type == READY), None)


def merge(
    previous: Sequence[Condition], findings: Iterable[Finding], *, generation: int, now: str
) -> tuple[Condition, ...]:
    """The conditions to write: ``findings``, with the time of the last transition kept where the status is the same.

    ``now`` is RFC 3339 with seconds. A condition that is not found again is dropped.
    """
    before = {condition.type: condition for condition in previous}
    merged: list[Condition] = []
    for finding in findings:
        old = before.get(finding.type)
        same = old is not None and old.status == finding.condition_status
        merged.append(
            Condition(
                type=finding.type,
                status=finding.condition_status,
                reason=finding.reason,
                message=shorten(finding.message),
                last_transition_time=old.last_transition_time if old is not None and same else now,
                observed_generation=generation,
            )
        )
    return tuple(merged)


_NO_EVENTS = frozenset({AVAILABLE, PROGRESSING, REPOSITORY_RESOLVED, NODE_POOL_RESOLVED})
"""Where these change, Ready changes too, for the same reason and in more words."""


def transitions(previous: Sequence[Condition], current: Sequence[Condition]) -> list[Transition]:
    """The conditions of ``current`` that are news: another status or another reason than before.

    That a new object starts, and that its models are known, is what everybody expects, and no news.
    One for each reason: two conditions that change for the same one are one event, also where the second follows later.
    """
    before = {condition.type: condition for condition in previous}
    told = {(c.status, c.reason) for c in previous if c.type not in _NO_EVENTS}
    news: dict[str, Transition] = {}
    for condition in current:
        old = before.get(condition.type)
        if condition.type in _NO_EVENTS:
            continue
        if condition.type == MODELS_LOADED and condition.reason != Reason.LOAD_FAILED:
            continue  # it comes and goes with every version
        if old is None and condition.status is ConditionStatus.TRUE and condition.type == MODELS_RESOLVED:
            continue
        if old is None and condition.reason == Reason.STARTING:
            continue
        if old is not None and old.status == condition.status and (condition.status, condition.reason) in told:
            continue
        if old is None or (old.status, old.reason) != (condition.status, condition.reason):
            found = Transition(condition.type, condition.status, condition.reason, condition.message)
            news.setdefault(condition.reason, found)
    return list(news.values())


def count(number: int, noun: str) -> str:
    """``1 replica``, ``2 replicas``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shorten(message: str) -> str:
    """``message``, cut to what a condition keeps."""
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
