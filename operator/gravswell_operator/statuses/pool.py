"""The status of a ``GPUNodePool``: the nodes that belong to it, and whether they offer what it promises."""

from collections.abc import Sequence
from decimal import Decimal

from gravswell_operator import conditions, names
from gravswell_operator.api import GPUNodePool
from gravswell_operator.conditions import Finding, Reason, count
from gravswell_operator.state import NodeState, Problem, WorkloadState

_SHOWN = 3
"""Nodes that a message names before it says how many more."""


def findings(
    pool: GPUNodePool,
    nodes: Sequence[NodeState],
    plugin: WorkloadState | None,
    problem: Problem | None,
) -> list[Finding]:
    """The pool's conditions. ``problem`` is why its children could not be applied, if they could not."""
    found = [_ready(pool, nodes)]
    if pool.spec.drivers.install:
        found.append(_drivers(pool, plugin, problem))
    return found


def fields(pool: GPUNodePool, nodes: Sequence[NodeState]) -> dict[str, object]:
    """The status beside the conditions, by the names of the API."""
    usable = [n for n in nodes if n.ready and n.schedulable]
    static = pool.spec.provider.static
    return {
        "nodes": len(nodes),
        "readyNodes": len(usable),
        "allocatableGPUs": sum(_gpus(pool, node) for node in usable),
        "selector": names.selector_text(dict(static.match_labels)) if static is not None else "",
    }


def _gpus(pool: GPUNodePool, node: NodeState) -> int:
    return int(node.allocatable.get(pool.spec.accelerator.resource_name, Decimal(0)))


def _named(nodes: Sequence[NodeState]) -> str:
    shown = ", ".join(sorted(n.name for n in nodes)[:_SHOWN])
    return shown if len(nodes) <= _SHOWN else f"{shown} and {len(nodes) - _SHOWN} more"


def _ready(pool: GPUNodePool, nodes: Sequence[NodeState]) -> Finding:
    accelerator = pool.spec.accelerator
    wanted = pool.spec.size if pool.spec.size is not None else 1
    static = pool.spec.provider.static
    selector = names.selector_text(dict(static.match_labels)) if static is not None else ""
    usable = [n for n in nodes if n.ready and n.schedulable]
    full = [n for n in usable if _gpus(pool, n) >= accelerator.count]
    if len(full) >= wanted:
        gpus = sum(_gpus(pool, n) for n in usable)
        message = f"{count(len(usable), 'ready node')}: {count(gpus, accelerator.type + ' GPU')}"
        return Finding(conditions.READY, True, Reason.NODES_READY, message)
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
    poor = [n for n in usable if n not in full]
    if not any(_gpus(pool, n) for n in usable):
        way_out = (
            "the device plugin has not announced them yet; DriversInstalled says more"
            if pool.spec.drivers.install
            else "install the GPU drivers and device plugin there, or set drivers.install: true"
        )
        message = f"nodes without {accelerator.resource_name}: {_named(poor)}; {way_out}"
        return Finding(conditions.READY, False, Reason.NO_GPUS, message)
    return Finding(
        conditions.READY,
        False,
        Reason.FEWER_GPUS,
        f"{len(full)} of {count(wanted, 'wanted node')} with {accelerator.count} {accelerator.resource_name}; fewer on "
        f"{_named(poor)}",
    )


def _drivers(pool: GPUNodePool, plugin: WorkloadState | None, problem: Problem | None) -> Finding:
    if problem is not None:
        return Finding(conditions.DRIVERS_INSTALLED, False, problem.reason, problem.message)
    name = names.device_plugin(pool.metadata.name)
    if plugin is None or not plugin.generation_seen or plugin.ready < plugin.desired:
        ready, desired = (plugin.ready, plugin.desired) if plugin is not None else (0, 0)
        return Finding(
            conditions.DRIVERS_INSTALLED,
            False,
            Reason.PLUGIN_STARTING,
            f"DaemonSet {name} is ready on {ready} of {count(desired, 'node')}",
        )
    return Finding(
        conditions.DRIVERS_INSTALLED,
        True,
        Reason.PLUGIN_RUNNING,
        f"DaemonSet {name} is ready on {count(plugin.ready, 'node')}",
    )
