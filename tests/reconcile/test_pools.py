"""Pools whose nodes are made: what is applied, what waits for others' definitions, and what an unused one is left."""

import pytest

from gravswell.kube import errors
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Key

KARPENTER = {
    "type": "Karpenter",
    "static": None,
    "karpenter": {"nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpus"}},
}
SIZED = {"spec": {"provider": KARPENTER, "size": 2, "idleAfter": "10m"}}
INSTALLED = dict.fromkeys(resources.OPTIONAL)
POOL = Key(resources.GPU_NODE_POOL, "", "pool")
ABSENT = dict.fromkeys(resources.OPTIONAL, "")


@pytest.fixture
def cluster(world):
    """``cluster({kind: None or why not})``: what was found out about the kinds that may be absent."""

    def know(found):
        for kind, why in found.items():
            world.context.found(kind, why)

    return know


def ready(world, type_="Ready"):
    condition = world.condition("GPUNodePool", "pool", type_)
    return condition["status"], condition["reason"]


async def test_nothing_is_said_before_anybody_has_looked(world, cluster):
    world.own(resources.GPU_NODE_POOL, SIZED)
    await world.settle()
    assert world.api.writes == []
    cluster(INSTALLED)
    await world.settle()
    assert "apply NodePool pool" in world.api.writes


async def test_a_static_pool_waits_for_nobody(world):
    world.own(resources.GPU_NODE_POOL)
    await world.settle()
    assert ready(world) == ("False", "NoNodes")


async def test_definitions_may_come_and_go(world, cluster):
    world.own(resources.GPU_NODE_POOL, SIZED)
    cluster(ABSENT)
    await world.settle()
    assert ready(world) == ready(world, "Provisioned") == ("False", "ProviderMissing")
    assert world.get("NodePool", "pool") is None
    cluster(INSTALLED)
    await world.settle()
    assert ready(world, "Provisioned") == ("False", "ProviderStarting")
    made = world.get("NodePool", "pool")
    world.see(resources.KARPENTER_NODE_POOL, {**made, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    await world.settle()
    assert ready(world, "Provisioned") == ("True", "ProviderReady")
    world.api.writes.clear()
    cluster(INSTALLED)  # no news
    await world.settle()
    assert world.api.writes == []
    cluster(ABSENT)
    await world.settle()
    assert ready(world) == ("False", "ProviderMissing")


async def test_a_right_that_is_missing_is_said(world, cluster):
    world.own(resources.GPU_NODE_POOL, SIZED)
    cluster(ABSENT | {resources.KARPENTER_NODE_POOL: "nodepools is forbidden"})
    await world.settle()
    assert ready(world) == ("False", "Forbidden")
    assert "nodepools is forbidden" in world.condition("GPUNodePool", "pool")["message"]


async def test_a_node_pool_of_somebody_else_is_left_alone(world, cluster):
    other = {"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "pool"}, "spec": {}}
    world.own(resources.GPU_NODE_POOL, SIZED)
    world.api.store(other)
    cluster(INSTALLED)
    await world.tick()
    assert ready(world, "Provisioned") == ("False", "NameTaken")
    assert world.get("NodePool", "pool")["spec"] == {}


async def test_an_unused_pool_loses_its_nodes_and_gets_them_back(world, cluster):
    world.own(resources.GPU_NODE_POOL, SIZED)
    cluster(INSTALLED)
    await world.settle()
    assert world.get("NodePool", "pool")["spec"]["replicas"] == 2
    assert world.get("GPUNodePool", "pool")["status"]["idleSince"] == "2026-01-01T00:00:00Z"
    world.pass_by(minutes=10)
    await world.settle()
    assert world.get("NodePool", "pool")["spec"]["replicas"] == 0
    world.own(resources.INFERENCE_SERVER)
    await world.settle()
    assert world.get("NodePool", "pool")["spec"]["replicas"] == 2
    assert "idleSince" not in world.get("GPUNodePool", "pool")["status"]
    world.change(resources.INFERENCE_SERVER, "server", replicas=0)
    await world.settle()
    assert world.get("GPUNodePool", "pool")["status"]["idleSince"] == "2026-01-01T00:10:00Z"


async def test_a_server_that_cannot_be_read_keeps_its_pool(world, cluster):
    world.own(resources.GPU_NODE_POOL, SIZED)
    world.own(resources.INFERENCE_SERVER, {"spec": {"replicas": "as many as there are"}})
    cluster(INSTALLED)
    await world.settle()
    world.pass_by(minutes=11)
    await world.settle()
    assert world.get("NodePool", "pool")["spec"]["replicas"] == 2
    world.remove(resources.INFERENCE_SERVER, "server")
    await world.settle()
    assert world.get("GPUNodePool", "pool")["status"]["idleSince"] == "2026-01-01T00:11:00Z"


async def test_what_makes_the_nodes_of_a_pool_that_is_gone_is_not_made_anew(world, cluster):
    """The garbage collector was faster than the watch of pools; Karpenter would launch machines for it at once."""
    world.own(resources.GPU_NODE_POOL, SIZED)
    cluster(INSTALLED)
    await world.settle()
    gone = world.api.objects.pop(("GPUNodePool", "", "pool"))
    world.remove(resources.KARPENTER_NODE_POOL, "pool")
    world.api.writes.clear()
    await world.settle()
    assert world.api.writes == []
    world.see(resources.GPU_NODE_POOL, {**gone, "metadata": {**gone["metadata"], "uid": "another"}, "status": {}})
    await world.settle()
    assert world.get("NodePool", "pool")["metadata"]["ownerReferences"][0]["uid"] == "another"


async def test_a_pool_that_is_gone_has_it_told_which_pods_its_nodes_wait_for(world, cluster):
    world.own(resources.GPU_NODE_POOL, SIZED)
    cluster(INSTALLED)
    await world.settle()
    of_pool = {"labels": {"gravswell.dev/pool": "pool"}}
    claim = {"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": {"name": "pool-1", **of_pool}}
    claim["status"] = {"nodeName": "node-1"}
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "node-1"}, "status": {"phase": "Running"}}
    of_server = {"namespace": "ns", "labels": {"gravswell.dev/server": "server"}}
    world.see(resources.NODE_CLAIM, claim)
    world.see(resources.POD, {**pod, "metadata": {"name": "server-1", **of_server}})
    world.see(resources.POD, {**pod, "metadata": {"name": "server-2", **of_server}, "spec": {"nodeName": "other"}})
    world.see(resources.POD, {**pod, "metadata": {"name": "plugin-1", "namespace": "drivers", **of_pool}})
    await world.settle()
    world.remove(resources.GPU_NODE_POOL, "pool")
    await world.settle()
    assert not world.context.draining
    going = {**claim, "metadata": {**claim["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    for message in ("draining", "draining still"):
        drained = {"type": "Drained", "status": "Unknown", "message": message}
        world.see(resources.NODE_CLAIM, {**going, "status": {**claim["status"], "conditions": [drained]}})
        world.context.queue.add(POOL)
        await world.settle()
    (words,) = [words for words in world.events.words if words.startswith("NodeClaim pool-1")]
    assert "GPUNodePool pool is gone, and node node-1 drains: it waits for ns/server-1, whose disruption" in words
    world.see(resources.NODE_CLAIM, going, deleted=True)
    world.context.queue.add(POOL)
    await world.settle()
    assert not world.context.draining


async def test_a_node_pool_that_somebody_deletes_is_made_anew(world, cluster):
    world.own(resources.GPU_NODE_POOL, SIZED)
    cluster(INSTALLED)
    await world.settle()
    world.remove(resources.KARPENTER_NODE_POOL, "pool")
    await world.settle()
    assert world.get("NodePool", "pool")["spec"]["replicas"] == 2


async def test_device_plugins_are_the_gpu_operators_where_it_is(world, cluster):
    world.own(resources.GPU_NODE_POOL, {"spec": {"drivers": {"install": True}}})
    cluster(ABSENT)
    await world.settle()
    plugin = world.get("DaemonSet", "pool-device-plugin")
    cluster(INSTALLED)
    policy = {"apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy", "metadata": {"name": "cluster-policy"}}
    world.see(resources.CLUSTER_POLICY, {**policy, "status": {"state": "notReady"}})
    await world.settle()
    assert world.get("DaemonSet", "pool-device-plugin") is None
    world.see(resources.DAEMON_SET, plugin, deleted=True)
    assert ready(world, "DriversInstalled") == ("False", "GPUOperatorNotReady")
    world.see(resources.CLUSTER_POLICY, {**policy, "status": {"state": "ready"}})
    await world.settle()
    assert ready(world, "DriversInstalled") == ("True", "GPUOperatorReady")
    world.see(resources.CLUSTER_POLICY, policy, deleted=True)
    await world.settle()
    assert world.get("DaemonSet", "pool-device-plugin") is not None


@pytest.mark.parametrize(
    ("plugin", "ours"), [({"enabled": False}, True), ({"enabled": True}, False), ({}, False), (None, False)]
)
async def test_device_plugins_that_the_gpu_operator_is_told_to_leave_are_ours(world, cluster, plugin, ours):
    world.own(resources.GPU_NODE_POOL, {"spec": {"drivers": {"install": True}}})
    cluster(INSTALLED)
    policy = {"apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy", "metadata": {"name": "cluster-policy"}}
    status = {"status": {"state": "ready"}}
    world.see(resources.CLUSTER_POLICY, {**policy, "spec": {"devicePlugin": plugin}, **status})
    await world.settle()
    assert (world.get("DaemonSet", "pool-device-plugin") is not None) is ours
    assert ready(world, "DriversInstalled") == ("True", "PluginRunning" if ours else "GPUOperatorReady")
    world.see(resources.CLUSTER_POLICY, {**policy, "spec": {"devicePlugin": {"enabled": ours}}, **status})
    await world.settle()  # and the other way round, as soon as the policy says so
    assert (world.get("DaemonSet", "pool-device-plugin") is not None) is not ours


async def test_a_device_plugin_that_cannot_be_made_is_no_fault_of_karpenters_and_the_other_way_round(world, cluster):
    refused = {"apply DaemonSet pool-device-plugin", "apply NodePool pool"}
    world.api.refuse = lambda words: errors.ApiForbiddenError(f"may not {words}") if words in refused else None
    world.own(resources.GPU_NODE_POOL, {"spec": {**SIZED["spec"], "drivers": {"install": True}}})
    cluster(INSTALLED)
    await world.tick()
    said = {kind: world.condition("GPUNodePool", "pool", kind) for kind in ("Provisioned", "DriversInstalled")}
    assert [(c["reason"], c["message"].rpartition("may not ")[2]) for c in said.values()] == [
        ("Forbidden", "apply NodePool pool"),
        ("Forbidden", "apply DaemonSet pool-device-plugin"),
    ]
    assert world.failures(kind="GPUNodePool") == 1
    refused.remove("apply NodePool pool")
    world.pass_by(minutes=1)
    await world.tick()
    assert ready(world, "Provisioned") == ("False", "ProviderStarting")
    assert ready(world, "DriversInstalled") == ("False", "Forbidden")


async def test_machines_are_counted_from_when_they_are_asked_for(world, cluster):
    world.own(resources.GPU_NODE_POOL, SIZED)
    cluster(INSTALLED)
    await world.settle()
    made = world.get("NodePool", "pool")
    world.see(resources.KARPENTER_NODE_POOL, {**made, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    claim = {"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim"}
    launched = {"type": "Launched", "status": "Unknown", "reason": "Launching", "message": "no capacity in zone a"}
    world.see(
        resources.NODE_CLAIM,
        {
            **claim,
            "metadata": {"name": "pool-1", "labels": {"gravswell.dev/pool": "pool"}},
            "status": {"conditions": [launched]},
        },
    )
    await world.settle()
    assert world.get("GPUNodePool", "pool")["status"]["pendingNodes"] == 1
    message = world.condition("GPUNodePool", "pool")["message"]
    assert "pool-1: its machine is being made (no capacity in zone a)" in message
    assert "1 not asked for yet" in message


async def test_a_node_pool_that_comes_into_sight_during_a_pass_is_not_taken_for_an_unwanted_one(world, cluster):
    """The watch of NodePools was refused for a moment; deleting one drains every node of the pool."""
    world.own(resources.GPU_NODE_POOL, {"spec": {**SIZED["spec"], "drivers": {"install": True}}})
    cluster(INSTALLED)
    await world.settle()
    made = world.get("NodePool", "pool")
    for record in world.context.cache.all(resources.KARPENTER_NODE_POOL):
        world.context.forget(record)
    cluster({resources.KARPENTER_NODE_POOL: "nodepools is forbidden"})
    world.remove(resources.DAEMON_SET, "pool-device-plugin")

    def listed_again(request):
        if request == "apply DaemonSet pool-device-plugin":
            world.context.observe(resources.KARPENTER_NODE_POOL, made)
            cluster(INSTALLED)

    world.api.refuse = listed_again
    await world.settle()
    assert "delete NodePool pool" not in world.api.writes
    assert world.get("NodePool", "pool") is not None


async def test_device_plugins_stay_as_they_are_while_nobody_knows_of_the_gpu_operator(world, cluster):
    world.own(resources.GPU_NODE_POOL, {"spec": {"drivers": {"install": True}}})
    cluster(INSTALLED)
    policy = {"apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy", "metadata": {"name": "cluster-policy"}}
    world.see(resources.CLUSTER_POLICY, {**policy, "status": {"state": "ready"}})
    await world.settle()
    assert world.get("DaemonSet", "pool-device-plugin") is None
    for record in world.context.cache.all(resources.CLUSTER_POLICY):
        world.context.forget(record)
    cluster({resources.CLUSTER_POLICY: "clusterpolicies is forbidden"})
    await world.settle()
    assert world.get("DaemonSet", "pool-device-plugin") is None
    assert ready(world, "DriversInstalled") == ("False", "Forbidden")
    assert "clusterpolicies is forbidden" in world.condition("GPUNodePool", "pool", "DriversInstalled")["message"]
