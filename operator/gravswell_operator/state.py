"""What the operator sees of the cluster, as small typed objects made from what the API server sends. Pure.

They hold what decisions need and nothing else: a watched pod costs some hundred bytes, not its whole body.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from gravswell_operator import names, quantities
from gravswell_operator.conditions import Reason

Raw = Mapping[str, Any]
"""An object as the API server sends it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a pod does not run, in words for a condition."""

    reason: Reason
    message: str


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
    service_account: str = ""
    """What it runs as."""
    rank: RankState | None = None
    """Of a group of ranks."""
    times: PodTimes = PodTimes()

    @property
    def active(self) -> bool:
        """Whether it counts as a replica."""
        return not self.terminating and not self.finished


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node: what it is, whether pods can run there, and what it offers."""

    name: str
    labels: Mapping[str, str]
    ready: bool
    schedulable: bool
    allocatable: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class WorkloadState:
    """The status of a Deployment, a StatefulSet or a DaemonSet."""

    desired: int
    """Replicas of its spec; of a DaemonSet, nodes that should run it."""
    generation_seen: bool
    """Its controller has seen the latest spec."""
    total: int
    updated: int
    ready: int
    progressing_reason: str = ""
    progressing_message: str = ""
    failure_message: str = ""
    """Why pods cannot be created at all: a quota, or an admission that refuses them."""
    revision: str = ""
    """Of a StatefulSet: what pods are to be made from."""

    @property
    def complete(self) -> bool:
        """Every replica is of the latest spec, and no older one is left."""
        return self.generation_seen and self.updated >= self.desired and self.total <= self.updated


@dataclass(frozen=True, slots=True)
class AutoscalerState:
    """What a HorizontalPodAutoscaler says of itself."""

    scales: bool | None
    """It can read what it scales by, and can scale. None: it has not looked yet, or was switched off by 0 replicas."""
    message: str = ""
    """Its own words where it does not."""
    desired: int = 0
    """Replicas that it wants."""
    metrics: Mapping[str, Decimal] = field(default_factory=dict)
    """What it measured, by its own names, to two digits: percent of utilization, and otherwise of each replica where
    it says so."""


@dataclass(frozen=True, slots=True)
class ScaledObjectState:
    """What KEDA says of a ScaledObject."""

    ready: bool | None
    """None: it has not looked yet."""
    message: str = ""
    """Its own words where it is not ready."""
    paused: bool = False
    """By an annotation of KEDA's: it scales nothing."""
    going: bool = False
    """It is being deleted, which KEDA must let happen."""


@dataclass(frozen=True, slots=True)
class MachineState:
    """A node that was asked for, from then until it is gone."""

    name: str
    node: str
    """Its node's name; empty until it joins."""
    waits_for: str
    """What it waits for, in words; empty once its node is ready and offers what it shall."""
    terminating: bool


@dataclass(frozen=True, slots=True)
class MakerState:
    """What makes a pool's nodes."""

    ready: bool | None
    """None: nobody has looked at it yet."""
    message: str = ""
    """Its own words where it is not."""


@dataclass(frozen=True, slots=True)
class ClusterPolicyState:
    """The object by which NVIDIA's GPU Operator is told to install drivers and device plugins."""

    name: str
    state: str
    """As it says itself: ready, notReady or ignored; empty before it has looked."""


@dataclass(frozen=True, slots=True)
class ConfigMapState:
    """The data of a ConfigMap."""

    data: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An object of ours that this operator cannot read: it was made with another release's definitions.

    It is there all the same, and what depends on it must not be treated as if it were gone.
    """

    kind: str
    name: str
    why: str
    """The field that cannot be read, and what is wrong with it."""
    generation: int
    created: str
    """RFC 3339."""
    deleting: bool
    spec: Raw
    status: Raw = field(compare=False)
    finalizers: tuple[str, ...] = ()

    def text(self, name: str) -> str | None:
        """A text field of the spec, if it can be read."""
        value = self.spec.get(name)
        return value if isinstance(value, str) else None

    def reference(self, name: str) -> str | None:
        """The name in a reference of the spec, if it can be read."""
        value = self.spec.get(name)
        found = value.get("name") if isinstance(value, Mapping) else None
        return found if isinstance(found, str) else None

    def problem(self) -> "Problem":
        """Why whatever refers to the object is left as it is."""
        return Problem(
            Reason.INVALID_SPEC,
            f"this operator cannot read {self.kind} {self.name} ({self.why}), so what depends on it stays as it is; "
            "install the operator's release of the definitions, or the operator of theirs",
        )


def unreadable(kind: str, raw: Raw, why: str) -> Unreadable:
    """What is left of an object of ``kind`` that cannot be read."""
    metadata = raw["metadata"]
    spec, status = raw.get("spec"), raw.get("status")
    return Unreadable(
        kind=kind,
        name=metadata["name"],
        why=why,
        generation=metadata.get("generation", 0),
        created=metadata.get("creationTimestamp") or "",
        deleting=bool(metadata.get("deletionTimestamp")),
        spec=spec if isinstance(spec, Mapping) else {},
        status=status if isinstance(status, Mapping) else {},
        finalizers=tuple(metadata.get("finalizers") or ()),
    )


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


_UNREGISTERED = "karpenter.sh/unregistered"
"""The taint of a node that Karpenter has not taken in yet: ready, and without a pod until then."""


def node(raw: Raw) -> NodeState:
    """A node's state."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    allocatable = {key: quantities.parse(value) for key, value in (status.get("allocatable") or {}).items()}
    joining = any(taint["key"] == _UNREGISTERED for taint in spec.get("taints") or ())
    return NodeState(
        name=metadata["name"],
        labels=dict(metadata.get("labels") or {}),
        ready=ready,
        schedulable=not (spec.get("unschedulable", False) or metadata.get("deletionTimestamp") or joining),
        allocatable=allocatable,
    )


def deployment(raw: Raw) -> WorkloadState:
    """A Deployment's status."""
    conditions = {c["type"]: c for c in (raw.get("status") or {}).get("conditions") or ()}
    progressing, failure = conditions.get("Progressing", {}), conditions.get("ReplicaFailure", {})
    return replace(
        _replicated(raw),
        progressing_reason=progressing.get("reason", ""),
        progressing_message=progressing.get("message", ""),
        failure_message=failure.get("message", "") if failure.get("status") == "True" else "",
    )


def statefulset(raw: Raw) -> WorkloadState:
    """A StatefulSet's status. It has no deadline, and tells in events only why it cannot create pods."""
    return replace(_replicated(raw), revision=(raw.get("status") or {}).get("updateRevision", ""))


def _replicated(raw: Raw) -> WorkloadState:
    """What a Deployment and a StatefulSet count alike."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    return WorkloadState(
        desired=spec.get("replicas", 1),
        generation_seen=status.get("observedGeneration", 0) >= raw["metadata"].get("generation", 0),
        total=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        ready=status.get("readyReplicas", 0),
    )


def daemonset(raw: Raw) -> WorkloadState:
    """A DaemonSet's status."""
    status = raw.get("status") or {}
    wanted = status.get("desiredNumberScheduled", 0)
    return WorkloadState(
        desired=wanted,
        generation_seen=status.get("observedGeneration", 0) >= raw["metadata"].get("generation", 0),
        total=status.get("currentNumberScheduled", 0),
        updated=status.get("updatedNumberScheduled", 0),
        ready=status.get("numberReady", 0),
    )


def autoscaler(raw: Raw) -> AutoscalerState:
    """A HorizontalPodAutoscaler's conditions, and what it measured."""
    status = raw.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    desired, metrics = status.get("desiredReplicas", 0), _measured(status.get("currentMetrics") or ())
    relevant = [conditions[kind] for kind in ("AbleToScale", "ScalingActive") if kind in conditions]
    for condition in relevant:
        if condition["status"] == "False":
            if condition.get("reason") == "ScalingDisabled":
                return AutoscalerState(None, "", desired, metrics)
            message = f"{condition.get('reason', '')}: {condition.get('message', '')}"
            return AutoscalerState(False, message, desired, metrics)
    return AutoscalerState(True if len(relevant) == 2 else None, "", desired, metrics)


_SOURCES = ("containerResource", "resource", "pods", "external")


def _measured(metrics: Iterable[Raw]) -> dict[str, Decimal]:
    """What was measured, by name. To two digits: what changes with each look would wake its server each time."""
    found = {}
    for metric in metrics:
        for source in (metric[kind] for kind in _SOURCES if metric.get(kind)):
            name = source.get("name") or source["metric"]["name"]
            current = source.get("current") or {}
            said = next((current[k] for k in ("averageUtilization", "averageValue", "value") if k in current), None)
            if said is not None:
                found[name] = Decimal(f"{quantities.parse(said):.2g}")
    return found


def scaled_object(raw: Raw) -> ScaledObjectState:
    """KEDA's ScaledObject, by its conditions."""
    conditions = {c["type"]: c for c in (raw.get("status") or {}).get("conditions") or ()}
    ready, paused = conditions.get("Ready", {}), conditions.get("Paused", {})
    message = ready.get("message") or ready.get("reason") or ""
    # Unknown with a reason: some of its triggers cannot be read. Without one, it has not looked.
    unknown = False if message else None
    return ScaledObjectState(
        ready={"True": True, "False": False}.get(ready.get("status", ""), unknown),
        message=message,
        paused=paused.get("status") == "True",
        going=bool(raw["metadata"].get("deletionTimestamp")),
    )


_STEPS = ("Launched", "Registered", "Initialized")
"""What a NodeClaim's machine goes through, in this order."""
_WAITS = {
    "Launched": "its machine is being made",
    "Registered": "its machine was made and has not joined the cluster",
    "Initialized": "its node has joined, and is not ready or does not offer its GPUs yet",
}


def machine(raw: Raw) -> MachineState:
    """A NodeClaim of Karpenter's."""
    status = raw.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    waits = ""
    for step in _STEPS:
        condition = conditions.get(step, {})
        if condition.get("status") != "True":
            said = condition.get("message") or ""
            waits = _WAITS[step] + (f" ({said})" if said and said != condition.get("reason") else "")
            break
    return MachineState(
        name=raw["metadata"]["name"],
        node=status.get("nodeName") or "",
        waits_for=waits,
        terminating=bool(raw["metadata"].get("deletionTimestamp")),
    )


def maker(raw: Raw) -> MakerState:
    """A NodePool of Karpenter's, by its conditions."""
    conditions = {c["type"]: c for c in (raw.get("status") or {}).get("conditions") or ()}
    ready = conditions.pop("Ready", {})
    if ready.get("status") == "True":
        return MakerState(True)
    wrong = [c for c in conditions.values() if c["status"] == "False"]
    words = "; ".join(f"{c['type']} is False: {c.get('message') or c.get('reason', '')}" for c in wrong)
    return MakerState(False if wrong else None, words)


def cluster_policy(raw: Raw) -> ClusterPolicyState:
    """The GPU Operator's ClusterPolicy."""
    state = (raw.get("status") or {}).get("state") or ""
    return ClusterPolicyState(name=raw["metadata"]["name"], state=state)


def configmap(raw: Raw) -> ConfigMapState:
    """A ConfigMap's data."""
    return ConfigMapState(data=dict(raw.get("data") or {}))
