"""What a GPUNodePool says of its nodes."""

from decimal import Decimal

import pytest

from gravswell_operator.conditions import Reason
from gravswell_operator.state import NodeState, Problem
from gravswell_operator.statuses.pool import fields, findings


def node(name, gpus=4, *, ready=True, schedulable=True):
    return NodeState(name, {}, ready, schedulable, {"nvidia.com/gpu": Decimal(gpus)} if gpus else {})


@pytest.mark.parametrize(
    ("size", "nodes", "status", "reason", "says"),
    [
        (None, [], False, Reason.NO_NODES, "nvidia.com/gpu.product=T4"),
        (None, [node("a")], True, Reason.NODES_READY, "1 ready node: 4 nvidia-tesla-t4 GPUs"),
        (2, [node("a")], False, Reason.NOT_ENOUGH_NODES, "1 of 1 node with"),
        (1, [node("a", ready=False)], False, Reason.NOT_ENOUGH_NODES, "not ready or cordoned: a"),
        (1, [node("a", schedulable=False)], False, Reason.NOT_ENOUGH_NODES, "not ready or cordoned: a"),
        (1, [node("a", 0)], False, Reason.NO_GPUS, "nodes without nvidia.com/gpu: a; install the GPU drivers"),
        (2, [node("a"), node("b", 3)], False, Reason.FEWER_GPUS, "fewer on b"),
        (1, [node("a"), node("b", 3)], True, Reason.NODES_READY, "7"),
        (0, [], True, Reason.NODES_READY, "0"),
    ],
)
def test_ready(resource, size, nodes, status, reason, says):
    change = {"spec": {"size": size}} if size is not None else {}
    (ready,) = findings(resource("GPUNodePool", change), nodes, None, None)
    assert (ready.status, ready.reason) == (status, reason)
    assert says in ready.message


def test_many_nodes_are_not_all_named(resource):
    nodes = [node(f"n{i}", ready=False) for i in range(9)]
    (ready,) = findings(resource("GPUNodePool"), nodes, None, None)
    assert "n0, n1, n2 and 6 more" in ready.message


@pytest.mark.parametrize(
    ("plugin", "problem", "status", "reason"),
    [
        (None, None, False, Reason.PLUGIN_STARTING),
        ({"desired": 2, "ready": 1}, None, False, Reason.PLUGIN_STARTING),
        ({"desired": 2, "ready": 2}, None, True, Reason.PLUGIN_RUNNING),
        (None, Problem(Reason.FORBIDDEN, "no"), False, Reason.FORBIDDEN),
    ],
)
def test_drivers_have_a_condition_of_their_own(resource, workload, plugin, problem, status, reason):
    pool = resource("GPUNodePool", {"spec": {"drivers": {"install": True}}})
    state = workload(**plugin) if plugin is not None else None
    ready, drivers = findings(pool, [node("a")], state, problem)
    assert ready.status is True
    assert (drivers.status, drivers.reason) == (status, reason)


def test_fields_count_what_can_be_used(resource):
    made = fields(resource("GPUNodePool"), [node("a"), node("b", ready=False), node("c", 2, schedulable=True)])
    assert made == {
        "nodes": 3,
        "readyNodes": 2,
        "allocatableGPUs": 6,
        "selector": "nvidia.com/gpu.product=T4",
    }
