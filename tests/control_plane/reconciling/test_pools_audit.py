"""``gravswell pools audit`` on a simulated Google, beside a real API server that says which pools are wanted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.cloud import container_v1 as container

from gravswell.cloudbreak import google as cb
from gravswell_operator.devcluster import ControlPlane

from ...cloudbreak.gke import BLOCKED, SimulatedGke
from ...commands import Run, run
from ..operating import api_of

__all__ = ["run"]

ROOT = Path(__file__).parents[3]
CLUSTER = "projects/demo/locations/us-east4-b/clusters/demo"


@pytest.fixture
def google() -> Iterator[SimulatedGke]:
    """With a node pool of each kind: of a pool that is gone, of another cluster's operator, and a person's."""
    with SimulatedGke() as server:
        yield server


def pool(name: str, **labels: str) -> container.NodePool:
    config = cb.create_gpu_node_pool_config(vcpus=16, gpus=4, gpu_type="t4", resource_labels=labels)
    return container.NodePool(name=name, initial_node_count=1, config=config)


def test_a_pool_that_is_made_during_the_audit_is_no_orphan(
    cluster: ControlPlane, google: SimulatedGke, run: Run, request: pytest.FixtureRequest
) -> None:
    """Its node pool is in the cloud's answer, and its object was not there when the audit began."""
    api = api_of(cluster)
    cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/gpunodepools.gravswell.dev")
    home = api.get("namespace", "", "kube-system")
    assert home is not None
    manager = cb.ClusterManager(project="demo", zone="us-east4-b", endpoint=google.url, owner="ann", seconds=60)
    manager.create_resource(container.Cluster(name="demo", initial_node_count=1))
    request.addfinalizer(lambda: api.delete("gpunodepool", "", "meanwhile"))

    def meanwhile() -> None:
        provider = {"type": "Static", "static": {"matchLabels": {"gpus": "t4"}}}
        spec = {"provider": provider, "accelerator": {"type": "t4", "count": 4}}
        document = {"apiVersion": "gravswell.dev/v1alpha1", "kind": "GPUNodePool", "metadata": {"name": "meanwhile"}}
        api.apply("", {**document, "spec": spec})
        made = api.get("gpunodepool", "", "meanwhile")
        assert made is not None
        labels = {"gravswell-pool": made["metadata"]["uid"], "gravswell-cluster": home["metadata"]["uid"]}
        manager.api.create_pool("demo", pool("meanwhile", **labels))
        google.settle()

    google.before("ListClusters", meanwhile)
    arguments = ["pools", "audit", "--project", "demo", "--kubeconfig", cluster.kubeconfig, "--endpoint", google.url]
    said = run(*arguments, "--delete", "--yes", "--output", "json")
    assert said.code == 0, said.err
    assert [(p["name"], p["verdict"], p["removed"]) for p in said.data["pools"]] == [("meanwhile", "owned", False)]


def test_orphans_are_found_and_deleted_after_a_question(cluster: ControlPlane, google: SimulatedGke, run: Run) -> None:
    home = api_of(cluster).get("namespace", "", "kube-system")
    assert home is not None
    uid = home["metadata"]["uid"]
    manager = cb.ClusterManager(project="demo", zone="us-east4-b", endpoint=google.url, owner="ann", seconds=60)
    made = manager.create_resource(container.Cluster(name="demo", initial_node_count=1))
    made.create_resource(pool("anns"))
    for name, labels in {
        "blocked": {"gravswell-pool": "0c-gone", "gravswell-cluster": uid},
        "left": {"gravswell-pool": "0a-gone", "gravswell-cluster": uid},
        "theirs": {"gravswell-pool": "0b-theirs", "gravswell-cluster": "another"},
    }.items():
        manager.api.create_pool("demo", pool(name, **labels))
        google.settle()
    arguments = ["pools", "audit", "--project", "demo", "--kubeconfig", cluster.kubeconfig, "--endpoint", google.url]
    said = run(*arguments, "--output", "json")
    assert said.code == 0, said.err
    verdicts = {p["name"]: (p["verdict"], p["poolId"], p["owner"], p["removed"]) for p in said.data["pools"]}
    assert verdicts == {
        "anns": ("by hand", "", "ann", False),
        "blocked": ("orphan", "0c-gone", "", False),
        "left": ("orphan", "0a-gone", "", False),
        "theirs": ("elsewhere", "0b-theirs", "", False),
    }
    assert [(c["name"], c["owner"]) for c in said.data["clusters"]] == [("demo", "ann")]
    text = run(*arguments).out
    assert "orphan: 0a-gone" in text
    assert "2 orphans; --delete deletes them with their nodes" in text
    refused = run(*arguments, "--delete", stdin="n\n")
    assert refused.code == 1
    assert "Delete 2 node pools with all nodes in demo?" in refused.err
    assert f"{CLUSTER}/nodePools/left" in google.pools()
    google.fault("DeleteNodePool", BLOCKED)
    partly = run(*arguments, "--delete", "--yes", "--output", "json")
    assert partly.code != 0
    assert "in use by the backend service 'front'" in partly.err
    assert {p["name"] for p in partly.data["pools"] if p["removed"]} == {"left"}
    assert f"{CLUSTER}/nodePools/left" not in google.pools()
    deleted = run(*arguments, "--delete", "--yes")
    assert deleted.code == 0, deleted.err
    assert "1 orphan deleted" in deleted.out
    assert len(google.pools()) == 3
    assert "no orphans" in run(*arguments).out
