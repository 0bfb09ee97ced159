"""Nodes that go, come back and are cordoned, under a pool and under the servers on it."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from .conftest import GPUS, node_document


@dataclass(frozen=True)
class Rack:
    """Two nodes of one pool, of this test alone."""

    world: Any
    nodes: tuple[str, str]

    def ready(self, node: str, *, ready: bool) -> None:
        """What a kubelet says of itself."""
        said = {"type": "Ready", "status": str(ready), "reason": "KubeletReady" if ready else "KubeletNotReady"}
        self.status("node", node, conditions=[said])

    def status(self, kind: str, name: str, **status: Any) -> None:
        self.world.patch(kind, name, {"status": status}, subresource="status")

    def pool(self) -> dict[str, Any]:
        return self.world.get("gpunodepool", self.world.pool)["status"]

    def server(self, **spec: Any) -> None:
        self.world.make_server(nodePoolRef={"name": self.world.pool}, gpus=1, **spec)


@pytest.fixture
def rack(world):
    labels = {"rack": world.namespace}
    nodes = tuple(f"{world.namespace}-{letter}" for letter in "ab")
    for name in nodes:
        node = node_document(name, **labels)
        world.kubectl("create", "-f", "-", stdin=json.dumps(node))
        world.patch("node", name, {"status": node["status"]}, subresource="status")
    world.make_pool(provider={"type": "Static", "static": {"matchLabels": labels}}, taints=[], size=2)
    made = Rack(world, nodes)
    world.condition("gpunodepool", world.pool, status="True")
    yield made
    world.kubectl("delete", "node", *nodes, "--wait=false")


def test_a_pool_counts_the_nodes_that_work(rack):
    world, (first, second) = rack.world, rack.nodes
    assert (rack.pool()["nodes"], rack.pool()["readyNodes"], rack.pool()["allocatableGPUs"]) == (2, 2, 2 * GPUS)

    world.kubectl("scale", "gpunodepool", world.pool, "--replicas=3")
    ready = world.condition("gpunodepool", world.pool, status="False", reason="NotEnoughNodes")
    assert ready["message"] == f"2 of 2 nodes with rack={world.namespace} ready, 3 wanted"
    world.kubectl("scale", "gpunodepool", world.pool, "--replicas=2")
    world.condition("gpunodepool", world.pool, status="True")

    rack.ready(second, ready=False)
    ready = world.condition("gpunodepool", world.pool, status="False", reason="NotEnoughNodes")
    assert f"not ready or cordoned: {second}" in ready["message"]
    assert (rack.pool()["nodes"], rack.pool()["readyNodes"], rack.pool()["allocatableGPUs"]) == (2, 1, GPUS)
    rack.ready(second, ready=True)
    world.condition("gpunodepool", world.pool, status="True")

    rack.status("node", first, allocatable={"nvidia.com/gpu": str(GPUS - 1)})
    ready = world.condition("gpunodepool", world.pool, status="False", reason="FewerGPUs")
    assert f"fewer on {first}" in ready["message"]


def test_a_suspended_pool_says_what_it_said_and_catches_up(rack, operator):
    world, (first, _) = rack.world, rack.nodes
    world.make_pool(
        provider={"type": "Static", "static": {"matchLabels": {"rack": world.namespace}}},
        taints=[],
        size=2,
        drivers={"install": True},
        suspend=True,
    )
    world.condition("gpunodepool", world.pool, "Suspended", status="True")
    before = rack.pool()
    seen = operator.metric("gravswell_reconcile_duration_seconds_count", kind="GPUNodePool")
    world.kubectl("cordon", first)
    world.until(lambda: operator.metric("gravswell_reconcile_duration_seconds_count", kind="GPUNodePool") > seen)
    world.until(lambda: operator.metric("gravswell_queue_length") == 0)
    assert rack.pool() == before
    plugin = ("get", "daemonset", f"{world.pool}-device-plugin", "-n", "gravswell-drivers", "--ignore-not-found")
    assert world.kubectl(*plugin) == ""
    world.patch("gpunodepool", world.pool, {"spec": {"suspend": False}})
    world.condition("gpunodepool", world.pool, status="False", reason="NotEnoughNodes")
    world.until(lambda: world.kubectl(*plugin))
    assert "Suspended" not in {c["type"] for c in rack.pool()["conditions"]}


def test_a_node_that_goes_away_under_a_replica_is_named(rack):
    world = rack.world
    world.make_repository()
    rack.server()
    world.rolled_out()
    (pod,) = world.pods()
    node = world.get("pod", pod)["spec"]["nodeName"]
    # Its heartbeats end, which the node's controller takes for a fault after 50 seconds.
    world.kubectl("label", "node", node, "type-")
    words = f"0 of 1 replica ready; pod {pod} is on node {node}, which is not ready"
    world.until(lambda: words in world.condition("inferenceserver", "server", reason="NodeNotReady")["message"])
    world.kubectl("label", "node", node, "type=kwok")
    rack.ready(node, ready=True)
    said = world.get("pod", pod)["status"]["conditions"]
    rack.status("pod", pod, conditions=[{**c, "status": "True"} for c in said])  # as its kubelet, back again
    world.rolled_out()


def test_nodes_that_are_cordoned_keep_what_runs_and_are_named_where_something_waits(rack):
    world = rack.world
    world.make_repository()
    rack.server()
    world.make_model()
    world.publish(1)
    world.condition("inferenceserver", "server", status="True")
    world.kubectl("cordon", *rack.nodes)
    world.condition("gpunodepool", world.pool, status="False", reason="NotEnoughNodes")
    assert world.condition("inferenceserver", "server")["status"] == "True"

    world.kubectl("scale", "inferenceserver", "server", "--replicas=2")
    ready = world.condition("inferenceserver", "server", status="False", reason="PodUnschedulable")
    assert "1 of 2 replicas ready" in ready["message"]
    assert f"GPUNodePool {world.pool}: 0 of 2 nodes with rack={world.namespace} ready, 2 wanted; " in ready["message"]
    assert f"not ready or cordoned: {', '.join(rack.nodes)}" in ready["message"]
    # What is said of the pool is what the pool says now.
    world.kubectl("scale", "gpunodepool", world.pool, "--replicas=1")
    world.until(lambda: "ready, 1 wanted" in world.condition("inferenceserver", "server")["message"])
    world.kubectl("uncordon", *rack.nodes)
    world.condition("inferenceserver", "server", status="True")
