"""Whether a pod can be scheduled on any node of a cluster, before it is asked to wait there for ever."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from google.cloud import container_v1 as container

from gravswell.cloudbreak.machines import vcpus_of
from gravswell.errors import InvalidInputError

GPU = "nvidia.com/gpu"


class _Node(NamedTuple):
    pool: str
    machine_type: str
    vcpus: int | None
    gpus: int


def check_fit(objects: Iterable[Mapping[str, Any]], cluster: container.Cluster, label: str) -> None:
    """Raises InvalidInputError for a pod that asks for more vCPUs or GPUs than a node of any pool has.

    A node's vCPUs are not all for pods: Kubernetes needs some, so a pod that asks for as many never runs. Clusters that
    make nodes as pods need them (Autopilot, node auto-provisioning) take every pod.
    """
    if cluster.autopilot.enabled or cluster.autoscaling.enable_node_autoprovisioning:
        return
    nodes = [_node(pool) for pool in cluster.node_pools]
    for document in objects:
        spec = document.get("spec") or {}
        pod = (spec.get("template") or {}).get("spec") if "template" in spec else None
        if pod and document["kind"] != "DaemonSet":  # that runs where it fits
            _check(f"{document['kind']} {document['metadata']['name']}", pod, nodes, label)


def _node(pool: container.NodePool) -> _Node:
    gpus = sum(accelerator.accelerator_count for accelerator in pool.config.accelerators)
    return _Node(pool.name, pool.config.machine_type, vcpus_of(pool.config.machine_type), gpus)


def _check(what: str, pod: Mapping[str, Any], nodes: list[_Node], label: str) -> None:
    vcpus, gpus = _asked(pod, "cpu", what), _asked(pod, GPU, what)
    there = ", ".join(f"{n.pool} ({n.machine_type or 'unknown'}, {n.gpus} GPUs)" for n in nodes) or "none"
    enough = [node for node in nodes if node.gpus >= gpus]
    if not enough:
        raise InvalidInputError(
            f"{what} asks for {gpus} GPUs, which no node of {label} has; its node pools: {there}; make one with "
            "create_resource, or ask for fewer"
        )
    if any(node.vcpus is None or vcpus < node.vcpus for node in enough):
        return
    most = max(enough, key=lambda node: node.vcpus or 0)
    raise InvalidInputError(
        f"{what} asks for {vcpus} vCPUs beside {gpus} GPUs; the nodes of pool {most.pool} have {most.vcpus}, of which "
        f"Kubernetes itself needs some: ask for {(most.vcpus or 1) - 1} at most, or for a larger machine"
    )


def _asked(pod: Mapping[str, Any], resource: str, what: str) -> Decimal:
    """What all containers of a pod ask for together; limits stand for requests that are not there."""
    total = Decimal(0)
    for container_ in pod.get("containers") or ():
        resources = container_.get("resources") or {}
        amounts = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        text = str(amounts.get(resource, "0"))
        try:
            total += Decimal(text[:-1]) / 1000 if text.endswith("m") else Decimal(text)
        except ArithmeticError:
            raise InvalidInputError(f"{what}: {text!r} is no amount of {resource}: write 4, 0.5 or 500m") from None
    return total
