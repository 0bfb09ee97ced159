"""Nodes that the real Karpenter makes for pods that wait, and removes when nobody uses them."""

import json
from typing import Any

from gravswell_operator.devcluster.karpenter import INSTANCE_LABELS, NODE_CLASS, install_definitions

from ..reconciling.test_operator_rights import granted, used

NODE_CLASS_REF = {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": NODE_CLASS["metadata"]["name"]}
GPUS = 4
THE_MACHINE = {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": [f"t4-{GPUS}"]}
"""Of a fixed number the simulated cloud wants to be told the very machine; of others Karpenter tells it."""


def pool(world: Any, requirements: tuple[dict[str, Any], ...] = (), **spec: Any) -> None:
    provider = {"nodeClassRef": NODE_CLASS_REF, "instanceLabels": INSTANCE_LABELS, "requirements": requirements}
    defaults = {
        "provider": {"type": "Karpenter", "karpenter": provider},
        "accelerator": {"type": "t4", "count": GPUS},
        "vcpus": GPUS,
    }
    world.apply("GPUNodePool", world.pool, **{**defaults, **spec})


def nodes(world: Any) -> list[dict[str, Any]]:
    return world.objects("nodes", selector=f"gravswell.dev/pool={world.pool}")


def status(world: Any) -> dict[str, Any]:
    return world.get("gpunodepool", world.pool)["status"]


def test_nodes_come_for_a_server_that_waits_and_go_when_it_is_gone(world, karpenter):
    pool(world, autoscaling={"max": 2}, idleAfter="5s")
    provisioned = world.condition("gpunodepool", world.pool, "Provisioned", reason="ProviderMissing")
    assert "does not know nodepools.karpenter.sh/v1: install Karpenter" in provisioned["message"]
    world.condition("gpunodepool", world.pool, status="False", reason="ProviderMissing")

    karpenter()  # the operator is not started again
    world.condition("gpunodepool", world.pool, status="True", reason="ScaledToZero")
    assert status(world)["idleSince"]
    assert nodes(world) == []

    world.make_repository(url="s3://models")
    world.make_server(nodePoolRef={"name": world.pool}, gpus=3, replicas=2)
    world.until(lambda: len(nodes(world)) == 2)

    def both_are_ready() -> bool:  # the pool is as soon as one of them is
        ready = world.condition("gpunodepool", world.pool, status="True", reason="NodesReady")
        return bool(ready["message"] == "2 ready nodes: 8 t4 GPUs")

    world.until(both_are_ready)
    assert "idleSince" not in status(world)
    assert (status(world)["nodes"], status(world)["readyNodes"], status(world)["pendingNodes"]) == (2, 2, 0)
    for node in nodes(world):
        assert node["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "t4-4"
        assert {"key": "nvidia.com/gpu", "effect": "NoSchedule"} in node["spec"]["taints"]
    world.rolled_out()
    on = {world.get("pod", name)["spec"]["nodeName"] for name in world.pods()}
    assert on == {node["metadata"]["name"] for node in nodes(world)}

    # The limit holds, and the server says what it waits for.
    world.make_server("more", nodePoolRef={"name": world.pool}, gpus=4)
    world.condition("inferenceserver", "more", reason="PodUnschedulable")
    assert len(nodes(world)) == 2
    world.delete("inferenceserver", "more")

    world.delete("inferenceserver", "server")
    world.condition("gpunodepool", world.pool, status="True", reason="ScaledToZero")
    world.until(lambda: not nodes(world))
    world.until(lambda: status(world)["nodes"] == 0)


def test_a_pool_of_a_fixed_size_is_kept_and_goes_with_its_nodes(world, karpenter):
    karpenter()
    pool(world, requirements=(THE_MACHINE,), size=1, drainTimeout="1m")
    world.condition("gpunodepool", world.pool, status="True", reason="NodesReady")
    world.kubectl("scale", "gpunodepool", world.pool, "--replicas=2")
    # Ready of this generation: both nodes are registered, and not merely there. Karpenter removes those that are.
    world.condition("gpunodepool", world.pool, status="True", reason="NodesReady")
    assert status(world)["allocatableGPUs"] == 2 * GPUS

    world.make_server(nodePoolRef={"name": world.pool}, gpus=1)
    world.make_repository(url="s3://models")
    world.rolled_out()

    world.delete("gpunodepool", world.pool)
    world.until(lambda: world.get("nodepool", world.pool) is None)
    world.until(lambda: not nodes(world), 300)  # draining alone may take the minute


def test_nodes_that_shall_be_others_are_replaced_one_after_the_other(world, karpenter):
    """By Karpenter, within the disruption budget of the NodePool that it was given."""
    karpenter()
    pool(world, requirements=(THE_MACHINE,), size=2)
    world.condition("gpunodepool", world.pool, status="True", reason="NodesReady")
    before = {node["metadata"]["name"] for node in nodes(world)}
    pool(world, requirements=(THE_MACHINE,), size=2, taints=[{"key": "example.com/other"}])
    going = []

    def replaced() -> bool:
        there = nodes(world)
        going.append(sum("deletionTimestamp" in node["metadata"] for node in there))
        tainted = [any(taint["key"] == "example.com/other" for taint in node["spec"]["taints"]) for node in there]
        return len(there) == 2 and all(tainted) and not before & {node["metadata"]["name"] for node in there}

    world.until(replaced, 300)
    assert max(going) <= 1, going
    world.condition("gpunodepool", world.pool, status="True", reason="NodesReady")


def test_a_pool_that_goes_while_its_node_joins_leaves_no_node(world, karpenter):
    """Karpenter gives up the machine and forgets its node; in a cloud that goes with the machine."""
    karpenter()
    pool(world, requirements=(THE_MACHINE,), size=1)
    world.until(lambda: nodes(world))
    world.delete("gpunodepool", world.pool)
    world.until(lambda: world.get("nodepool", world.pool) is None)
    world.until(lambda: not world.objects("nodeclaims", selector=f"gravswell.dev/pool={world.pool}"))
    world.until(lambda: not nodes(world), 180)


def test_a_pool_that_goes_respects_disruption_budgets_for_as_long_as_it_said_and_no_longer(world, karpenter):
    karpenter()
    pool(world, requirements=(THE_MACHINE,), size=1, drainTimeout="30s")
    world.condition("gpunodepool", world.pool, status="True", reason="NodesReady")
    container = {"name": "kept", "image": "kept:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    spec = {
        "nodeSelector": {"gravswell.dev/pool": world.pool},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }
    labels = {"app.kubernetes.io/managed-by": "gravswell", "gravswell.dev/server": "kept"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kept", "labels": labels}, "spec": spec}
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "kept"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}},
    }
    world.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [budget, pod]}))
    world.until(lambda: (world.get("pod", "kept")["status"]).get("phase") == "Running")
    world.until(lambda: (world.get("poddisruptionbudget", "kept").get("status") or {}).get("currentHealthy") == 1)

    world.delete("gpunodepool", world.pool)
    (node,) = nodes(world)

    def said(kind: str, reason: str) -> str:
        chosen = f"--field-selector=involvedObject.kind={kind},reason={reason}"
        found = json.loads(world.kubectl("get", "events", "-n", "default", chosen, "-o", "json"))["items"]
        return " ".join(event["message"] for event in found if world.pool in event["involvedObject"]["name"])

    assert "1 pods are waiting to be evicted" in world.until(
        lambda: said("Node", "FailedDraining")
    )  # Karpenter's words
    drains = f"node {node['metadata']['name']} drains: it waits for {world.namespace}/kept, whose disruption budgets"
    assert drains in world.until(lambda: said("NodeClaim", "Deleting"))
    kept = world.get("pod", "kept")
    assert "deletionTimestamp" not in kept["metadata"], "the budget allows no eviction, and the time to drain goes on"
    world.until(lambda: not nodes(world), 180)
    assert world.get("poddisruptionbudget", "kept") is not None


def test_a_node_pool_that_is_retained_stays_and_is_taken_over(world, karpenter):
    karpenter()
    pool(world, autoscaling={"max": 1}, deletionPolicy="Retain")
    made = world.until(lambda: world.get("nodepool", world.pool))
    world.delete("gpunodepool", world.pool)
    world.until(lambda: world.get("gpunodepool", world.pool) is None)

    pool(world, autoscaling={"max": 2})
    world.condition("gpunodepool", world.pool, status="True", reason="NothingAskedFor")
    taken = world.get("nodepool", world.pool)
    assert taken["metadata"]["uid"] == made["metadata"]["uid"]
    assert taken["metadata"]["ownerReferences"][0]["kind"] == "GPUNodePool"
    assert taken["spec"]["limits"]["nodes"] == "2"
    world.delete("gpunodepool", world.pool)
    world.until(lambda: world.get("nodepool", world.pool) is None)


def test_a_pool_outlives_the_definitions_that_it_needs_and_goes_without_them(world, karpenter):
    karpenter()
    pool(world, autoscaling={"max": 1})
    world.condition("gpunodepool", world.pool, status="True", reason="NothingAskedFor")
    world.kubectl("delete", "crd", "nodepools.karpenter.sh")
    world.condition("gpunodepool", world.pool, status="False", reason="ProviderMissing")
    world.delete("gpunodepool", world.pool)
    world.until(lambda: world.get("gpunodepool", world.pool) is None)
    pool(world, autoscaling={"max": 1})
    world.condition("gpunodepool", world.pool, status="False", reason="ProviderMissing")
    install_definitions(world.cluster)
    world.condition("gpunodepool", world.pool, status="True", reason="NothingAskedFor")


def test_every_right_on_karpenter_s_kinds_is_used_and_none_is_missing(world, karpenter, operator, cluster):
    karpenter()
    operator.restart()  # what was refused while the definitions were being deleted is another matter
    pool(world, autoscaling={"max": 1})
    world.condition("gpunodepool", world.pool, status="True", reason="NothingAskedFor")
    asked = {request: codes for request, codes in used(operator).items() if request[1].startswith("karpenter.sh/")}
    assert not [request for request, codes in asked.items() if "403" in codes]
    rights = {(verb, where) for verb, where in granted(cluster) if where.startswith("karpenter.sh/")}
    assert ("patch", "karpenter.sh/nodepools") in rights
    # An apply creates, and looks at what it may not overwrite.
    unused = rights - asked.keys() - {(verb, "karpenter.sh/nodepools") for verb in ("create", "get")}
    assert not unused, f"granted by the chart's role, and never used: {sorted(unused)}"
