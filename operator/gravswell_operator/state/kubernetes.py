"""Kubernetes' own kinds but for pods: nodes, what makes pods and scales them, and ConfigMaps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from gravswell_operator import quantities
from gravswell_operator.state.base import Raw


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
class ConfigMapState:
    """The data of a ConfigMap."""

    data: Mapping[str, str]


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
        generation_seen=_is_seen(raw),
        total=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        ready=status.get("readyReplicas", 0),
    )


def _is_seen(raw: Raw) -> bool:
    """Whether its controller has seen the latest spec of an object."""
    return bool((raw.get("status") or {}).get("observedGeneration", 0) >= raw["metadata"].get("generation", 0))


def daemonset(raw: Raw) -> WorkloadState:
    """A DaemonSet's status."""
    status = raw.get("status") or {}
    wanted = status.get("desiredNumberScheduled", 0)
    return WorkloadState(
        desired=wanted,
        generation_seen=_is_seen(raw),
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


def configmap(raw: Raw) -> ConfigMapState:
    """A ConfigMap's data."""
    return ConfigMapState(data=dict(raw.get("data") or {}))
