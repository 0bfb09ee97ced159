"""Where a server's pods may run: labels, tolerations, and the surge that fits."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from gravswell_operator import names
from gravswell_operator.api import GPUNodePool, InferenceServer
from gravswell_operator.api.gpunodepool import Taint
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.objects import Manifest
from gravswell_operator.state import PodState, WorkloadState

_INSUFFICIENT = re.compile(r"(\d+) Insufficient (\S+?)[.,]?(?=\s|$)")


def pool_node_selector(pool: GPUNodePool) -> dict[str, str]:
    """The labels that every node of the pool carries: its user's, or ours on nodes that are made for it."""
    static = pool.spec.provider.static
    return dict(static.match_labels) if static is not None else {names.LABEL_POOL: pool.metadata.name}


def pool_tolerations(pool: GPUNodePool) -> list[Manifest]:
    """Tolerations of the pool's taints."""
    return [_toleration(taint) for taint in pool.spec.taints]


def _toleration(taint: Taint) -> Manifest:
    toleration: Manifest = {"key": taint.key}
    if taint.value is None:
        toleration["operator"] = "Exists"
    else:
        toleration |= {"operator": "Equal", "value": taint.value}
    if taint.effect is not None:
        toleration["effect"] = taint.effect
    return toleration


def merged_selector(*selectors: dict[str, str]) -> dict[str, str]:
    """All the labels together.

    Raises :class:`ValueError`, naming the label, where two ask for different values: no node could match.
    """
    merged: dict[str, str] = {}
    for selector in selectors:
        for key, value in selector.items():
            if merged.setdefault(key, value) != value:
                raise ValueError(
                    f"the node label {key} is asked to be both {merged[key]!r} and {value!r}, so no node matches; "
                    "make podTemplate.nodeSelector and the GPUNodePool's matchLabels agree"
                )
    return merged


def tolerations(server: InferenceServer, pool: GPUNodePool | None) -> list[Any]:
    """The pool's and the user's tolerations, each once."""
    wanted: list[Any] = list(pool_tolerations(pool)) if pool is not None else []
    for toleration in server.spec.pod_template.tolerations:
        if (own := toleration.to_dict()) not in wanted:
            wanted.append(own)
    return wanted


def peak_replicas(server: InferenceServer) -> int:
    """The most replicas that the server may have by its spec, or its ranks."""
    if server.spec.ranks is not None:
        return server.spec.ranks
    if server.spec.autoscaling is not None:
        return server.spec.autoscaling.max_replicas
    assert server.spec.replicas is not None  # exactly one of the three is set
    return server.spec.replicas


def fewest_replicas(server: InferenceServer) -> int:
    """The fewest replicas that the server may have by its spec."""
    scaling = server.spec.autoscaling
    return scaling.min_replicas if scaling is not None else peak_replicas(server)


def allows(pool: GPUNodePool, namespace: str) -> bool:
    """Whether servers of ``namespace`` may use the pool."""
    allowed = pool.spec.allowed_namespaces
    return not allowed or namespace in allowed


def present_replicas(server: InferenceServer, workload: WorkloadState | None) -> int:
    """The replicas that the server has by now: of an autoscaled one, what its autoscaler wants at present.

    Where that was not seen yet, the most that it may have.
    """
    if server.spec.autoscaling is not None and workload is not None:
        return workload.desired
    return peak_replicas(server)


def may_surge(
    server: InferenceServer, pool: GPUNodePool | None, on_pool: Iterable[tuple[InferenceServer, int]]
) -> bool:
    """Whether a roll-out may start a new replica before an old one stops.

    ``on_pool`` are all the servers that name the pool, this one included, each with its :func:`present_replicas`; those
    of a namespace that it does not allow get nothing from it and count for nothing. A CPU server surges when it may
    have one replica alone: the alternative is an interruption. With GPUs, only where some node must have enough free
    beside these replicas: whatever is free in total above ``nodes * (gpus - 1)`` is on one node. What an autoscaler
    takes during the roll-out may leave the new replica waiting; then :func:`must_make_room` decides. Ranks never
    surge: all of them stop before one starts.
    """
    if server.spec.ranks is not None:
        return False
    gpus = server.spec.gpus
    if gpus == 0:
        return fewest_replicas(server) <= 1
    if pool is None:
        return False
    used = sum(other.spec.gpus * replicas for other, replicas in on_pool if allows(pool, other.metadata.namespace))
    spare = pool.status.allocatable_gpus - used
    return spare >= pool.status.ready_nodes * (gpus - 1) + 1 and spare >= gpus


def must_make_room(pool: GPUNodePool | None, pods: Sequence[PodState]) -> bool:
    """Whether a replica waits for nothing but GPUs that an older replica would leave to it.

    Pods of others take GPUs that :func:`may_surge` does not count, and then a roll-out that surges waits for ever. Only
    what every node of the pool lacks is proof: then each older replica stands on a node where the new one lacks GPUs
    alone. A label that no node has, or CPU or memory that none has, must never cost a replica that serves; nor must
    GPUs that a replica which goes, after fewer were wanted, is about to leave.
    """
    if pool is None or any(_leaves(pod) for pod in pods):
        return False
    waiting = [
        pod.problem.message
        for pod in pods
        if pod.active and pod.problem is not None and pod.problem.reason is Reason.POD_UNSCHEDULABLE
    ]
    wanted = {pool.spec.accelerator.resource_name: max(pool.status.ready_nodes, 1)}
    return bool(waiting) and all(_insufficient(message) == wanted for message in waiting)


def _leaves(pod: PodState) -> bool:
    """Whether the pod's GPUs are free soon: nobody knows when, of one that is on a node that is away."""
    away = pod.problem is not None and pod.problem.reason is Reason.NODE_NOT_READY
    return pod.terminating and not pod.finished and not away


def _insufficient(message: str) -> dict[str, int]:
    """What the scheduler's message says is short, and on how many nodes: ``1 Insufficient nvidia.com/gpu, …``."""
    filtered = message.partition("preemption:")[0]
    return {resource: int(nodes) for nodes, resource in _INSUFFICIENT.findall(filtered)}
