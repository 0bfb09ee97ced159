"""What a GPUNodePool says of its nodes."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from gravswell_operator.api.gpunodepool import CloudStatus
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.pools import Idleness
from gravswell_operator.state import ClusterPolicyState, MachineState, MakerState, NodeState, PodState, Problem
from gravswell_operator.statuses.pool import PoolView, fields, findings


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
    (ready,) = findings(PoolView(resource("GPUNodePool", change), nodes))
    assert (ready.status, ready.reason) == (status, reason)
    assert says in ready.message


def test_many_nodes_are_not_all_named(resource):
    nodes = [node(f"n{i}", ready=False) for i in range(9)]
    (ready,) = findings(PoolView(resource("GPUNodePool"), nodes))
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
    ready, drivers = findings(PoolView(pool, [node("a")], state, plugin_problem=problem))
    assert ready.status is True
    assert (drivers.status, drivers.reason) == (status, reason)


def test_fields_count_what_can_be_used(resource):
    made = fields(
        PoolView(resource("GPUNodePool"), [node("a"), node("b", ready=False), node("c", 2, schedulable=True)])
    )
    assert made == {
        "nodes": 3,
        "readyNodes": 2,
        "allocatableGPUs": 6,
        "selector": "nvidia.com/gpu.product=T4",
    }


@pytest.mark.parametrize(
    ("state", "status", "reason"),
    [
        ("ready", True, Reason.GPU_OPERATOR_READY),
        ("notReady", False, Reason.GPU_OPERATOR_NOT_READY),
        ("", False, Reason.GPU_OPERATOR_NOT_READY),
    ],
)
def test_drivers_are_the_gpu_operators_where_it_is(resource, state, status, reason):
    pool = resource("GPUNodePool", {"spec": {"drivers": {"install": True}}})
    policy = ClusterPolicyState("cluster-policy", state)
    ready, drivers = findings(PoolView(pool, [node("a", 0)], policy=policy))
    assert (ready.reason, drivers.status, drivers.reason) == (Reason.NO_GPUS, status, reason)
    assert "ClusterPolicy cluster-policy" in drivers.message
    assert "ClusterPolicy cluster-policy" in ready.message


KARPENTER = {
    "type": "Karpenter",
    "static": None,
    "karpenter": {"nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpus"}},
}
MADE = MakerState(True)
LAUNCHING = "its machine is being made"


def machine(name, waits_for="", *, terminating=False):
    return MachineState(f"claim-{name}", name if not waits_for else "", waits_for, terminating)


@pytest.fixture
def managed(resource):
    def make(nodes=(), machines=(), maker=MADE, *, scale=None, **other):
        pool = resource("GPUNodePool", {"spec": {"provider": KARPENTER, **(scale or {"autoscaling": {"max": 2}})}})
        return PoolView(pool, nodes, maker=maker, machines=machines, **other)

    return make


@pytest.mark.parametrize(
    ("world", "status", "reason", "says"),
    [
        ({}, True, Reason.NOTHING_ASKED_FOR, "they are made when one does"),
        ({"used": True}, False, Reason.NODES_PENDING, "kubectl describe pod"),
        (
            {"idle": Idleness(datetime(2026, 1, 1, tzinfo=UTC))},
            True,
            Reason.SCALED_TO_ZERO,
            "since 2026-01-01T00:00:00Z",
        ),
        ({"machines": [machine("a", LAUNCHING)]}, False, Reason.NODES_PENDING, f"claim-a: {LAUNCHING}"),
        ({"nodes": [node("a")], "machines": [machine("a")]}, True, Reason.NODES_READY, "1 ready node: 4"),
        (
            {"nodes": [node("a")], "machines": [machine("a"), machine("b", LAUNCHING)], "used": True},
            False,
            Reason.NODES_PENDING,
            "1 of 2 nodes with 4 nvidia.com/gpu; claim-b:",
        ),
        (
            {"nodes": [node("a")], "machines": [machine("a"), machine("b", LAUNCHING, terminating=True)]},
            True,
            Reason.NODES_READY,
            "",
        ),
        ({"nodes": [node("a", 0)], "machines": [machine("a")]}, False, Reason.NO_GPUS, "install the GPU drivers"),
        (
            {"scale": {"size": 2}, "nodes": [node("a")], "machines": [machine("a")]},
            False,
            Reason.NODES_PENDING,
            "1 not asked for yet: Karpenter keeps a fixed number only where its feature gate StaticCapacity is on",
        ),
        ({"scale": {"size": 1}, "nodes": [node("a")], "machines": [machine("a")]}, True, Reason.NODES_READY, ""),
    ],
)
def test_a_pool_whose_nodes_are_made_is_ready_with_their_gpus(managed, world, status, reason, says):
    ready, provisioned = findings(managed(**world))
    assert (provisioned.status, provisioned.reason) == (True, Reason.PROVIDER_READY)
    assert (ready.status, ready.reason) == (status, reason)
    assert says in ready.message


@pytest.mark.parametrize(
    ("world", "reason", "says"),
    [
        ({"maker": None}, Reason.PROVIDER_STARTING, "has not looked at NodePool pool yet"),
        ({"maker": MakerState(None)}, Reason.PROVIDER_STARTING, ""),
        (
            {"maker": MakerState(False, "NodeClassReady is False: no")},
            Reason.PROVIDER_NOT_READY,
            "NodeClassReady is False",
        ),
        ({"missing": Problem(Reason.PROVIDER_MISSING, "install it")}, Reason.PROVIDER_MISSING, "install it"),
        ({"problem": Problem(Reason.NAME_TAKEN, "taken")}, Reason.NAME_TAKEN, "taken"),
    ],
)
def test_what_keeps_nodes_from_being_made_is_said_twice(managed, world, reason, says):
    ready, provisioned = findings(managed([node("a")], **world))
    assert (ready.status, provisioned.status) == (False, False)
    assert ready.reason == provisioned.reason == reason
    assert says in provisioned.message


def test_a_device_plugin_that_cannot_be_made_is_no_fault_of_the_cloud(resource):
    gke = {"type": "GKE", "static": None, "gke": {"project": "demo", "location": "us-east4-b", "cluster": "demo"}}
    pool = resource("GPUNodePool", {"spec": {"provider": gke, "size": 1, "vcpus": 16, "drivers": {"install": True}}})
    problem = Problem(Reason.NAMESPACE_NOT_FOUND, "no such namespace")
    view = PoolView(pool, [node("a")], maker=MADE, remembered=CloudStatus(), plugin_problem=problem)
    assert [finding.reason for finding in findings(view)] == [
        Reason.NODES_READY,
        Reason.PROVIDER_READY,
        Reason.NAMESPACE_NOT_FOUND,
    ]


@pytest.mark.parametrize(
    ("plugin", "reason", "says"),
    [
        ({"plugin_problem": Problem(Reason.NAMESPACE_NOT_FOUND, "no such namespace")}, None, "no such namespace"),
        ({"plugin_pods": [PodState("plugin-1", False, False, False, None)]}, Reason.PLUGIN_STARTING, "ready on 0 of 0"),
        (
            {"plugin_pods": [PodState("plugin-1", False, False, False, Problem(Reason.IMAGE_PULL_FAILED, "no image"))]},
            Reason.IMAGE_PULL_FAILED,
            "ready on 0 of 0 nodes; no image",
        ),
    ],
)
def test_a_device_plugin_that_fails_is_told_where_karpenters_nodes_wait_for_it(resource, plugin, reason, says):
    """Their GPUs are what such a node waits for, and Karpenter does not know why they do not come."""
    pool = resource("GPUNodePool", {"spec": {"provider": KARPENTER, "size": 1, "drivers": {"install": True}}})
    waits = MachineState("claim-a", "a", "its node has joined, and does not offer its GPUs yet", False)
    ready, provisioned, drivers = findings(PoolView(pool, [node("a", 0)], maker=MADE, machines=[waits], **plugin))
    assert provisioned.reason == Reason.PROVIDER_READY
    assert (drivers.status, drivers.reason) == (False, reason or Reason.NAMESPACE_NOT_FOUND)
    assert says in drivers.message
    assert ready.reason == Reason.NODES_PENDING
    assert f"a: {waits.waits_for}; of the drivers: {drivers.message}" in ready.message


def test_fields_of_nodes_that_are_made(managed):
    going = machine("b", terminating=True)
    nodes, machines = [node("a"), node("b")], [machine("a"), going, machine("c", LAUNCHING)]
    made = fields(managed(nodes, machines, idle=Idleness(datetime(2026, 1, 1, tzinfo=UTC), 9)))
    assert (made["nodes"], made["pendingNodes"], made["idleSince"]) == (2, 1, "2026-01-01T00:00:00Z")
    assert made["selector"] == "gravswell.dev/pool=pool"
