"""GPU node pools of GKE, by the operator as a process: made once whatever happens, told in words, deleted whole.

The cloud is simulated: a server that speaks the real Container API's gRPC, and kwok nodes for its machines.
"""

import base64
import signal

from google.cloud import container_v1 as container

from gravswell_operator.devcluster import ControlPlane

from ...cloudbreak import gke
from ...commands import Run, run
from ..operating import ACCOUNT, API, OperatorProcess, conditions, may, wait_until
from ..reconciling.test_operator_rights import granted, used
from .conftest import CLUSTER, Pools

__all__ = ["run"]

AUTHORITY = "-----BEGIN CERTIFICATE-----\nYW5vdGhlcg==\n-----END CERTIFICATE-----\n"
"""Of another API server; nobody looks into it."""


def test_made_scaled_and_deleted(pools: Pools, google: gke.SimulatedGke, cluster: ControlPlane) -> None:
    pools.apply("plain")
    body = pools.until("plain", Ready="NodesReady", Provisioned="ProviderReady", nodes=1, allocatableGPUs=8)
    assert body["metadata"]["finalizers"] == ["gravswell.dev/cloud"]
    (path,) = pools.cloud("plain")
    assert body["status"]["cloud"] == {"resource": path, "operation": "", "size": 1}
    cluster.kubectl("scale", "gnp/plain", "--replicas=2")
    pools.until("plain", Ready="NodesReady", nodes=2)
    cluster.kubectl("scale", "gnp/plain", "--replicas=0")
    pools.until("plain", nodes=0)
    google.fault("DeleteNodePool", gke.LOST)
    pools.delete("plain")
    going = lambda: pools.api.get("gpunodepool", "", "plain")  # noqa: E731
    wait_until(lambda: (body := going()) is None or conditions(body).get("Ready", {}).get("reason") != "NodesReady")
    pools.until_gone("plain")
    assert path not in google.pools()
    assert pools.cloud("plain") == [path]


def test_autoscaling_is_google_s_own(pools: Pools, google: gke.SimulatedGke) -> None:
    pools.apply("auto", autoscaling={"min": 1, "max": 3})
    pools.until("auto", Ready="NodesReady", nodes=1)
    scaled = google.pool(pools.cloud("auto")[0]).autoscaling
    assert (scaled.enabled, scaled.total_min_node_count, scaled.total_max_node_count) == (True, 1, 3)


def test_an_unused_pool_loses_its_nodes_and_gets_them_back(pools: Pools, google: gke.SimulatedGke) -> None:
    name = "unused"
    spec = {"repositoryRef": {"name": "models"}, "nodePoolRef": {"name": name}, "tag": "24.08", "vcpus": "1"}
    server = {
        "apiVersion": API,
        "kind": "InferenceServer",
        "metadata": {"name": "user"},
        "spec": spec | {"replicas": 1},
    }

    def only() -> str:
        """The one that was ever made, which is there."""
        (path,) = pools.cloud(name)
        assert [there for there in google.pools() if f"/gw-{name}-" in there] == [path]
        return path

    pools.apply(name, size=2, idleAfter="3s")
    body = pools.until(name, Ready="ScaledToZero", nodes=0)
    assert body["status"]["idleSince"]
    path = only()
    pools.api.apply("default", server)
    try:
        body = pools.until(name, Ready="NodesReady", nodes=2, readyNodes=2)
        assert "idleSince" not in body["status"]
        assert only() == path
    finally:
        pools.api.delete("inferenceserver", "default", "user")
    pools.until(name, Ready="ScaledToZero", nodes=0)
    assert only() == path


def test_an_operator_that_is_killed_between_the_call_and_the_status(
    pools: Pools, google: gke.SimulatedGke, operator: OperatorProcess
) -> None:
    google.fault("CreateNodePool", gke.SLOW, seconds=5)  # it is taken at once, and answered late
    pools.apply("killed")
    wait_until(lambda: pools.cloud("killed"))
    operator.stop(signal.SIGKILL)  # the answer comes seconds later
    assert "cloud" not in pools.get("killed").get("status", {})
    operator.start()
    pools.until("killed", Ready="NodesReady", nodes=1)
    google.fault("DeleteNodePool", gke.SLOW, seconds=5)
    before = google.calls["DeleteNodePool"]
    pools.delete("killed")
    wait_until(lambda: google.calls["DeleteNodePool"] > before)
    operator.stop(signal.SIGKILL)
    operator.start()
    pools.until_gone("killed")
    assert len(pools.cloud("killed")) == 1


def test_what_blocks_is_in_the_status(pools: Pools, google: gke.SimulatedGke) -> None:
    google.fault("CreateNodePool", gke.QUOTA, 1000)
    pools.apply("poor")
    body = pools.until("poor", Ready="QuotaExceeded", Provisioned="QuotaExceeded")
    message = conditions(body)["Ready"]["message"]
    assert "cluster demo in demo/us-east4-b" in message
    assert "requires '64.0' and is short '40.0'" in message
    assert "ask for more" in message
    google.mend()
    pools.apply("poor", size=2)  # an edit is a reason to look again at once
    pools.until("poor", Ready="NodesReady", nodes=2)


def test_an_operator_without_the_right_says_which_value_grants_it(
    pools: Pools, google: gke.SimulatedGke, cluster: ControlPlane
) -> None:
    role = pools.api.get("clusterrole", "", "gravswell")
    assert role is not None
    without = [
        rule for rule in role["rules"] if not (rule["verbs"] == ["patch"] and "gpunodepools" in rule["resources"])
    ]
    assert len(without) == len(role["rules"]) - 1
    pools.api.patch("clusterrole", "", "gravswell", {"rules": without})
    try:
        wait_until(lambda: not may(cluster, ACCOUNT, "patch", "gpunodepools.gravswell.dev"))  # a moment later
        pools.apply("forbidden")
        message = conditions(pools.until("forbidden", Ready="Forbidden"))["Ready"]["message"]
    finally:
        pools.api.patch("clusterrole", "", "gravswell", {"rules": role["rules"]})
    assert "cannot patch resource" in message
    assert "install the chart with gke.enabled=true" in message
    assert not pools.cloud("forbidden")


def test_throttling_and_lost_connections_pass(pools: Pools, google: gke.SimulatedGke) -> None:
    google.fault("CreateNodePool", gke.LOST)
    google.fault("ListNodePools", gke.AWAY)
    pools.apply("unlucky")
    pools.until("unlucky", Ready="NodesReady", nodes=1)
    assert len(pools.cloud("unlucky")) == 1


def test_what_is_retained_stays_and_the_audit_finds_it(
    pools: Pools, google: gke.SimulatedGke, cluster: ControlPlane, run: Run
) -> None:
    pools.apply("kept", deletionPolicy="Retain")
    body = pools.until("kept", Ready="NodesReady", nodes=1)
    assert "finalizers" not in body["metadata"]
    (path,) = pools.cloud("kept")
    arguments = ["pools", "audit", "--project", "demo", "--kubeconfig", cluster.kubeconfig, "--endpoint", google.url]
    found = run(*arguments, "--output", "json").data["pools"]
    assert [(pool["path"], pool["verdict"]) for pool in found] == [(path, "owned")]
    pools.delete("kept")
    pools.until_gone("kept")
    assert path in google.pools()

    def judged() -> list[tuple[str, str, bool]]:
        deleted = run(*arguments, "--delete", "--yes", "--output", "json")
        return [(pool["path"], pool["verdict"], pool["removed"]) for pool in deleted.data["pools"]]

    assert judged() == [(path, "retained", False)]
    assert path in google.pools()
    del google.pool(path).config.resource_labels["gravswell-retained"]  # as an operator of before that label left it
    assert judged() == [(path, "orphan", True)]
    assert path not in google.pools()


def test_a_pool_of_another_cluster_is_refused_and_goes(pools: Pools, google: gke.SimulatedGke) -> None:
    """Its nodes would join there; here, where its servers are, they would be waited for for ever."""
    another = container.Cluster(google.clusters[CLUSTER])
    another.name, another.node_pools = "another", []
    another.master_auth.cluster_ca_certificate = base64.b64encode(AUTHORITY.encode()).decode()
    google.clusters[CLUSTER.replace("clusters/demo", "clusters/another")] = another
    try:
        pools.apply("astray", provider={"cluster": "another"})
        message = conditions(pools.until("astray", Ready="WrongCluster", Provisioned="WrongCluster"))["Ready"][
            "message"
        ]
        assert "cluster another in demo/us-east4-b is not the cluster that the operator runs in" in message
        assert not pools.cloud("astray")
        pools.delete("astray")
        pools.until_gone("astray")
    finally:
        del google.clusters[CLUSTER.replace("clusters/demo", "clusters/another")]


def test_a_cluster_that_is_gone_holds_no_pool(pools: Pools, google: gke.SimulatedGke) -> None:
    pools.apply("homeless")
    pools.until("homeless", Ready="NodesReady")
    there = dict(google.clusters)
    google.clusters.clear()
    try:
        pools.delete("homeless")
        pools.until_gone("homeless")
    finally:
        google.clusters |= there
        for path in pools.cloud("homeless"):
            cluster, _, name = path.partition("/nodePools/")
            left = [pool for pool in google.clusters[cluster].node_pools if pool.name != name]
            google.clusters[cluster].node_pools = left
            google._have(cluster, name, 0)


def test_every_right_that_gke_enabled_adds_is_used_and_none_is_missing(
    pools: Pools, operator: OperatorProcess, cluster: ControlPlane
) -> None:
    wait_until(lambda: may(cluster, ACCOUNT, "patch", "gpunodepools.gravswell.dev"))  # taken from it by a test before
    operator.restart()
    pools.apply("rightful")
    pools.until("rightful", Ready="NodesReady", nodes=1)
    pools.delete("rightful")
    pools.until_gone("rightful")
    where = ("gravswell.dev/gpunodepools", "/namespaces")
    asked = {request: codes for request, codes in used(operator).items() if request[1] in where}
    assert not [request for request, codes in asked.items() if "403" in codes]
    rights = {(verb, place) for verb, place in granted(cluster) if place in where}
    assert {("patch", "gravswell.dev/gpunodepools"), ("get", "/namespaces")} <= rights
    assert rights <= asked.keys()
