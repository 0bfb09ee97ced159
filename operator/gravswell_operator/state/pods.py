"""Pods: whether one runs, why it does not, when it passed what, and which rank of a group it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from gravswell_operator import names
from gravswell_operator.conditions import Reason
from gravswell_operator.state.base import Problem, Raw
from gravswell_operator.state.kubernetes import NodeState


@dataclass(frozen=True, slots=True)
class RankState:
    """What is particular to a pod of a group of ranks."""

    number: int
    uid: str
    """The pod's: the next one has the same name."""
    revision: str
    """Of the StatefulSet's templates, the one that it was made from."""
    containers_ready: bool
    """Ready by itself: the pod is, as soon as the gate is open."""
    open: bool
    """The operator has opened its gate."""


@dataclass(frozen=True, slots=True)
class PodTimes:
    """When a pod passed what a start goes through, in seconds of Unix time. Kubernetes tells whole seconds, cut off.

    None: not yet, or not to be known any more.
    """

    created: int = 0
    scheduled: int | None = None
    """Bound to its node, by the scheduler's clock; everything below is by the node's."""
    prepared: int | None = None
    """Its volumes are mounted and its network is made. None also where the kubelet does not tell."""
    started: int | None = None
    """All of its containers began. One that was started again tells only its latest begin, and is left out."""
    ready: int | None = None
    """Since when it is ready without a break."""
    triton: int | None = None
    """The Triton that runs now was started."""


@dataclass(frozen=True, slots=True)
class PodState:
    """A pod of ours."""

    name: str
    ready: bool
    terminating: bool
    finished: bool
    problem: Problem | None
    node: str = field(default="", compare=False)
    """Where it runs; not compared, for that it was bound is no news to anybody."""
    address: str = field(default="", compare=False)
    """Its IP; not compared, for before it has one it is not ready."""
    service_account: str = ""
    """What it runs as."""
    rank: RankState | None = None
    """Of a group of ranks."""
    times: PodTimes = PodTimes()

    @property
    def active(self) -> bool:
        """Whether it counts as a replica."""
        return not self.terminating and not self.finished


_WAITING = {
    "ErrImagePull": Reason.IMAGE_PULL_FAILED,
    "ImagePullBackOff": Reason.IMAGE_PULL_FAILED,
    "ErrImageNeverPull": Reason.IMAGE_PULL_FAILED,
    "InvalidImageName": Reason.IMAGE_PULL_FAILED,
    "RegistryUnavailable": Reason.IMAGE_PULL_FAILED,
    "CreateContainerConfigError": Reason.CONTAINER_CONFIG_ERROR,
    "CreateContainerError": Reason.CONTAINER_CONFIG_ERROR,
    "RunContainerError": Reason.CONTAINER_CONFIG_ERROR,
    "CrashLoopBackOff": Reason.CRASH_LOOP,
}


def pod(raw: Raw) -> PodState:
    """A pod's state."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    phase = status.get("phase", "Pending")
    initial = [c for c in status.get("initContainerStatuses") or () if not c.get("ready")]  # one that is through, is
    containers = [*initial, *(status.get("containerStatuses") or ())]
    return PodState(
        name=metadata["name"],
        ready=conditions.get("Ready", {}).get("status") == "True",
        terminating=bool(metadata.get("deletionTimestamp")),
        finished=phase in ("Succeeded", "Failed"),
        problem=_pod_problem(metadata["name"], phase, status, conditions, containers),
        node=spec.get("nodeName") or "",
        address=status.get("podIP") or "",
        service_account=spec.get("serviceAccountName") or "",
        rank=_rank(metadata, spec, conditions),
        times=_times(metadata, status, conditions),
    )


def _times(metadata: Raw, status: Raw, conditions: Mapping[str, Raw]) -> PodTimes:
    def since(kind: str) -> int | None:
        condition = conditions.get(kind, {})
        return _unix(condition.get("lastTransitionTime")) if condition.get("status") == "True" else None

    containers = status.get("containerStatuses") or ()
    first = [_begun(container) for container in containers if not container.get("restartCount")]
    triton: Raw = next((c for c in containers if c["name"] == names.ROLE_TRITON), {})
    return PodTimes(
        created=_unix(metadata.get("creationTimestamp")) or 0,
        scheduled=since("PodScheduled"),
        prepared=since("PodReadyToStartContainers"),
        started=max((moment for moment in first if moment is not None), default=None) if None not in first else None,
        ready=since("Ready"),
        triton=_begun(triton) if "running" in (triton.get("state") or {}) else None,
    )


def _begun(container: Raw) -> int | None:
    """When the container's latest run began."""
    state = container.get("state") or {}
    return _unix((state.get("running") or state.get("terminated") or {}).get("startedAt"))


def _unix(text: str | None) -> int | None:
    return int(datetime.fromisoformat(text).timestamp()) if text else None


def _rank(metadata: Raw, spec: Raw, conditions: Mapping[str, Raw]) -> RankState | None:
    """What makes the pod one of a group, if it is: its number, and the gate."""
    labels = metadata.get("labels") or {}
    number = str(labels.get(names.LABEL_RANK, ""))
    gates = [gate["conditionType"] for gate in spec.get("readinessGates") or ()]
    if names.GATE not in gates or not number.isdecimal():
        return None
    return RankState(
        number=int(number),
        uid=metadata.get("uid", ""),
        revision=labels.get(names.LABEL_REVISION, ""),
        containers_ready=conditions.get("ContainersReady", {}).get("status") == "True",
        open=conditions.get(names.GATE, {}).get("status") == "True",
    )


def on_node(pod: PodState, node: NodeState | None) -> PodState:
    """``pod`` with what only its node tells: when a node is away, what its pods said last is no longer true."""
    if pod.ready or pod.finished or node is None or node.ready:
        return pod
    message = f"pod {pod.name} is on node {node.name}, which is not ready; kubectl describe node {node.name} says more"
    return replace(pod, problem=Problem(Reason.NODE_NOT_READY, message))


def _pod_problem(
    name: str, phase: str, status: Raw, conditions: Mapping[str, Raw], containers: list[Raw]
) -> Problem | None:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        message = scheduled.get("message", "") or scheduled.get("reason", "")
        return Problem(Reason.POD_UNSCHEDULABLE, f"pod {name} cannot be scheduled: {message}")
    for container in containers:
        where = f"container {container['name']} of pod {name}"
        now = container.get("state") or {}
        if phase == "Running" and now.get("terminated"):
            words = f"{_end(now['terminated'])}, and is started again; its log says why"
            return Problem(Reason.CRASH_LOOP, f"{where}: {words}")
        waiting = now.get("waiting") or {}
        reason = _WAITING.get(waiting.get("reason", ""))
        if reason is None:
            continue
        message = f"{where}: {waiting.get('message') or waiting['reason']}"
        if reason is Reason.CRASH_LOOP:
            message = f"{message}; {_end((container.get('lastState') or {}).get('terminated') or {})}; its log says why"
        return Problem(reason, message)
    if phase == "Failed":
        why = status.get("message") or status.get("reason") or "no reason given"
        return Problem(Reason.POD_FAILED, f"pod {name} failed: {why}")
    return None


def _end(ended: Raw) -> str:
    words = f"it ended with exit code {ended.get('exitCode', '?')}"
    detail = ended.get("message") or (ended.get("reason") if ended.get("reason") != "Error" else "")
    return f"{words} ({detail.strip()})" if detail else words
