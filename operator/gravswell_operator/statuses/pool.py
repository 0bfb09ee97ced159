"""The status of a ``GPUNodePool``: the nodes that belong to it, and whether they offer what it promises."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from gravswell_operator import conditions, names
from gravswell_operator.api import GPUNodePool
from gravswell_operator.api.gpunodepool import CloudStatus
from gravswell_operator.conditions import Finding, Reason, count
from gravswell_operator.desired.placement import pool_node_selector
from gravswell_operator.desired.pools import Bounds, Idleness, bounds
from gravswell_operator.state import (
    ClusterPolicyState,
    MachineState,
    MakerState,
    NodeState,
    PodState,
    Problem,
    WorkloadState,
)

_SHOWN = 3
"""Nodes that a message names before it says how many more."""


@dataclass(frozen=True)
class PoolView:
    """Everything that a pool's status follows from."""

    pool: GPUNodePool
    nodes: Sequence[NodeState] = ()
    plugin: WorkloadState | None = None
    """The DaemonSet of its device plugin."""
    policy: ClusterPolicyState | None = None
    """The GPU Operator's, which installs drivers and plugins in our place."""
    policy_unknown: Problem | None = None
    """Why nobody knows whether there is one."""
    plugin_pods: Sequence[PodState] = ()
    plugin_problem: Problem | None = None
    """Why that could not be applied, if it could not."""
    problem: Problem | None = None
    """Why what makes its nodes could not be applied, if it could not."""
    missing: Problem | None = None
    """Why what makes its nodes cannot be asked for at all."""
    maker: MakerState | None = None
    """What makes its nodes."""
    remembered: CloudStatus | None = None
    """What is remembered of the pool's things in a cloud; None where its provider makes nothing there."""
    machines: Sequence[MachineState] = ()
    """Its nodes from when they are asked for; of a Static pool none."""
    used: bool = False
    """A server on it asks for a replica, or cannot be read."""
    idle: Idleness = field(default_factory=Idleness)

    @property
    def bounds(self) -> Bounds:
        """How many nodes it shall have now."""
        return bounds(self.pool, self.idle)

    @property
    def usable(self) -> list[NodeState]:
        """The nodes on which pods can start."""
        return [node for node in self.nodes if node.ready and node.schedulable]

    @property
    def full(self) -> list[NodeState]:
        """The usable nodes that offer all the GPUs that the pool promises of each."""
        return [node for node in self.usable if self.gpus(node) >= self.pool.spec.accelerator.count]

    @property
    def coming(self) -> list[MachineState]:
        """The machines that are not going."""
        return [machine for machine in self.machines if not machine.terminating]

    def gpus(self, node: NodeState) -> int:
        """How many GPUs a node offers."""
        return int(node.allocatable.get(self.pool.spec.accelerator.resource_name, Decimal(0)))


def findings(view: PoolView) -> list[Finding]:
    """The pool's conditions."""
    drivers = _drivers(view) if view.pool.spec.drivers.install else None
    made = _provisioned(view) if view.pool.spec.managed else None
    ready = _ready(view) if made is None else _ready_managed(view, made, drivers)
    return [found for found in (ready, made, drivers) if found is not None]


def fields(view: PoolView) -> dict[str, object]:
    """The status beside the conditions, by the names of the API."""
    said: dict[str, object] = {
        "nodes": len(view.nodes),
        "readyNodes": len(view.usable),
        "allocatableGPUs": sum(view.gpus(node) for node in view.usable),
        "selector": names.selector_text(pool_node_selector(view.pool)),
    }
    if view.pool.spec.managed:
        going = {machine.node for machine in view.machines if machine.terminating}
        there = sum(node.name not in going for node in view.nodes)
        said["pendingNodes"] = max(len(view.coming) - there, 0)
    if view.remembered is not None:
        said["cloud"] = view.remembered.to_dict()
    if view.idle.stamp is not None:
        said["idleSince"] = view.idle.stamp
    return said


def _named(nodes: Sequence[NodeState]) -> str:
    shown = ", ".join(sorted(n.name for n in nodes)[:_SHOWN])
    return shown if len(nodes) <= _SHOWN else f"{shown} and {len(nodes) - _SHOWN} more"


def _nodes_ready(view: PoolView) -> Finding:
    gpus = sum(view.gpus(node) for node in view.usable)
    message = f"{count(len(view.usable), 'ready node')}: {count(gpus, view.pool.spec.accelerator.type + ' GPU')}"
    return Finding(conditions.READY, True, Reason.NODES_READY, message)


def _no_gpus(view: PoolView) -> Finding | None:
    """Ready nodes, of which none offers a GPU: what that waits for."""
    usable = view.usable
    if not usable or any(view.gpus(node) for node in usable):
        return None
    resource = view.pool.spec.accelerator.resource_name
    if view.policy is not None:
        way_out = f"the GPU Operator has not made them available; its ClusterPolicy {view.policy.name} says more"
    elif view.pool.spec.drivers.install:
        way_out = "the device plugin has not announced them yet; DriversInstalled says more"
    else:
        way_out = "install the GPU drivers and device plugin there, or set drivers.install: true"
    return Finding(conditions.READY, False, Reason.NO_GPUS, f"nodes without {resource}: {_named(usable)}; {way_out}")


def _ready(view: PoolView) -> Finding:
    """Of nodes that exist already."""
    accelerator = view.pool.spec.accelerator
    wanted, nodes, usable, full = view.bounds.minimum, view.nodes, view.usable, view.full
    selector = names.selector_text(pool_node_selector(view.pool))
    if len(full) >= wanted:
        return _nodes_ready(view)
    if not nodes:
        return Finding(
            conditions.READY,
            False,
            Reason.NO_NODES,
            f"no node carries the labels {selector}; label nodes, or mend provider.static.matchLabels",
        )
    if len(usable) < wanted:
        away = [n for n in nodes if n not in usable]
        message = f"{len(usable)} of {count(len(nodes), 'node')} with {selector} ready, {wanted} wanted"
        if away:
            message += f"; not ready or cordoned: {_named(away)}"
        return Finding(conditions.READY, False, Reason.NOT_ENOUGH_NODES, message)
    if (without := _no_gpus(view)) is not None:
        return without
    return Finding(
        conditions.READY,
        False,
        Reason.FEWER_GPUS,
        f"{len(full)} of {count(wanted, 'wanted node')} with {accelerator.count} {accelerator.resource_name}; fewer on "
        f"{_named([n for n in usable if n not in full])}",
    )


def _provisioned(view: PoolView) -> Finding:
    """Whether what makes the pool's nodes is there, and works."""
    kind = view.pool.spec.provider.key
    if (problem := view.missing or view.problem) is not None:
        return Finding(conditions.PROVISIONED, False, problem.reason, problem.message)
    if view.maker is None or view.maker.ready is None:
        message = f"{kind} has not looked at NodePool {view.pool.metadata.name} yet; where that stays, it does not run"
        return Finding(conditions.PROVISIONED, False, Reason.PROVIDER_STARTING, message)
    if not view.maker.ready:
        message = f"{kind} makes no nodes of NodePool {view.pool.metadata.name}: {view.maker.message}"
        return Finding(conditions.PROVISIONED, False, Reason.PROVIDER_NOT_READY, message)
    most = view.bounds.maximum
    many = (
        f"{count(most, 'node')}" if view.bounds.minimum == most else f"up to {count(most, 'node')}, as pods need them"
    )
    return Finding(conditions.PROVISIONED, True, Reason.PROVIDER_READY, f"{kind} keeps {many}")


def _ready_managed(view: PoolView, made: Finding, drivers: Finding | None) -> Finding:
    """Of nodes that are made: whether those that are asked for are there with their GPUs."""
    if made.status is not True:
        return Finding(conditions.READY, False, made.reason, made.message)
    # A cloud tells of no single machine: of those that its autoscaler adds we know once they have joined.
    wanted = max(view.bounds.minimum, len(view.coming) if view.remembered is None else len(view.nodes))
    if wanted == 0:
        return _none_wanted(view)
    slow = [machine for machine in sorted(view.coming, key=lambda m: m.name) if machine.waits_for]
    waiting = [f"{machine.node or machine.name}: {machine.waits_for}" for machine in slow]
    there = min(len(view.full), wanted - len(waiting))
    if there >= wanted:
        return _nodes_ready(view)
    accelerator = view.pool.spec.accelerator
    message = f"{there} of {count(wanted, 'node')} with {accelerator.count} {accelerator.resource_name}"
    if waiting:
        more = f"; and {len(waiting) - _SHOWN} more" if len(waiting) > _SHOWN else ""
        message += f"; {'; '.join(waiting[:_SHOWN])}{more}"
    if drivers is not None and not drivers.status and any(machine.node for machine in slow):
        message += f"; of the drivers: {drivers.message}"
    if view.remembered is not None:
        if len(view.nodes) < wanted:
            message += f"; {wanted - len(view.nodes)} not joined yet: {view.remembered.resource} was asked for them"
    elif len(view.coming) < wanted:
        message += (
            f"; {wanted - len(view.coming)} not asked for yet: Karpenter keeps a fixed number only where its feature "
            "gate StaticCapacity is on"
        )
    if not waiting and (without := _no_gpus(view)) is not None:
        return without
    return Finding(conditions.READY, False, Reason.NODES_PENDING, message)


def _none_wanted(view: PoolView) -> Finding:
    if view.used and view.bounds.maximum:
        message = (
            "servers on the pool ask for replicas, and no node was asked for yet; where a pod stays Pending, kubectl "
            "describe pod says what keeps the autoscaler from it"
        )
        return Finding(conditions.READY, False, Reason.NODES_PENDING, message)
    if view.idle.due:
        message = f"no server has used the pool since {view.idle.stamp}: no nodes are kept until one does"
        return Finding(conditions.READY, True, Reason.SCALED_TO_ZERO, message)
    message = "no server asks for nodes; they are made when one does"
    return Finding(conditions.READY, True, Reason.NOTHING_ASKED_FOR, message)


def _drivers(view: PoolView) -> Finding:
    if view.policy is not None:
        ready, said = view.policy.state == "ready", view.policy.state or "not looked at yet"
        return Finding(
            conditions.DRIVERS_INSTALLED,
            ready,
            Reason.GPU_OPERATOR_READY if ready else Reason.GPU_OPERATOR_NOT_READY,
            f"left to the GPU Operator, whose ClusterPolicy {view.policy.name} is {said}",
        )
    if (problem := view.policy_unknown or view.plugin_problem) is not None:
        return Finding(conditions.DRIVERS_INSTALLED, False, problem.reason, problem.message)
    plugin, name = view.plugin, names.device_plugin(view.pool.metadata.name)
    if plugin is None or not plugin.generation_seen or plugin.ready < plugin.desired:
        ready_on, desired = (plugin.ready, plugin.desired) if plugin is not None else (0, 0)
        reason, message = Reason.PLUGIN_STARTING, f"DaemonSet {name} is ready on {ready_on} of {count(desired, 'node')}"
        failing = {pod.name: pod.problem for pod in view.plugin_pods if pod.active and pod.problem is not None}
        if failing:
            problem = failing[min(failing)]
            reason, message = problem.reason, f"{message}; {problem.message}"
        return Finding(conditions.DRIVERS_INSTALLED, False, reason, message)
    return Finding(
        conditions.DRIVERS_INSTALLED,
        True,
        Reason.PLUGIN_RUNNING,
        f"DaemonSet {name} is ready on {count(plugin.ready, 'node')}",
    )
