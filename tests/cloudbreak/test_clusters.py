"""Clusters and node pools on a simulated Google that speaks the real Container API, and all the luck it can bring."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.api_core import exceptions
from google.cloud import container_v1 as container

from gravswell.cloudbreak import google as cb
from gravswell.cloudbreak.errors import QuotaError, StockoutError, TakenError, ThrottledError
from gravswell.cloudbreak.google.failures import told
from gravswell.errors import AccessDeniedError, ConflictError, InvalidInputError, UnavailableError

from ..commands import Run, run
from . import gke

__all__ = ["run"]

PARENT = "projects/demo/locations/us-east4-b"
T4 = cb.create_gpu_node_pool_config(vcpus=16, gpus=4, gpu_type="t4")


@pytest.fixture(scope="module")
def google() -> Iterator[gke.SimulatedGke]:
    with gke.SimulatedGke() as server:
        yield server


@pytest.fixture
def manager(google: gke.SimulatedGke) -> Iterator[cb.ClusterManager]:
    yield cb.ClusterManager(project="demo", zone="us-east4-b", endpoint=google.url, owner="ann", seconds=60)
    google.clusters.clear()
    google.made.clear()
    google.calls.clear()


@pytest.fixture
def cluster(manager: cb.ClusterManager) -> cb.Cluster:
    return manager.create_resource(container.Cluster(name="demo", initial_node_count=2))


def pool(name: str = "t4", nodes: int = 1, config: container.NodeConfig = T4) -> container.NodePool:
    return container.NodePool(name=name, initial_node_count=nodes, config=config)


def test_made_resized_and_deleted(google: gke.SimulatedGke, cluster: cb.Cluster) -> None:
    assert cluster.get().status.name == "RUNNING"
    assert dict(cluster.get().resource_labels) == {"gravswell-owner": "ann"}
    made = cluster.create_resource(pool())
    assert dict(made.get().config.resource_labels) == {"gravswell-owner": "ann"}
    made.resize(3)
    assert google.nodes[f"{PARENT}/clusters/demo/nodePools/t4"] == 3
    made.autoscale(1, 2)
    assert made.get().autoscaling.max_node_count == 2
    made.delete()
    made.delete()  # gone is fine
    cluster.delete()
    assert not google.clusters


def test_the_same_cells_again_take_over_what_is_there(google: gke.SimulatedGke, manager: cb.ClusterManager) -> None:
    for _ in range(2):
        cluster = manager.create_resource(container.Cluster(name="demo", initial_node_count=2))
        cluster.create_resource(pool())
    assert google.made == [f"{PARENT}/clusters/demo", f"{PARENT}/clusters/demo/nodePools/t4"]
    with pytest.raises(ConflictError, match=r"is another one: initial nodes 1, not 2; take another name, or delete it"):
        cluster.create_resource(pool(nodes=2))
    other = cb.create_gpu_node_pool_config(vcpus=8, gpus=1, gpu_type="t4")
    with pytest.raises(ConflictError, match="machine type n1-standard-16, not n1-standard-8; GPUs 4 nvidia-tesla-t4"):
        cluster.create_resource(pool(config=other))


def test_what_is_anothers_is_neither_used_nor_deleted(google: gke.SimulatedGke, cluster: cb.Cluster) -> None:
    ben = cb.ClusterManager(project="demo", zone="us-east4-b", endpoint=google.url, owner="ben", seconds=60)
    with pytest.raises(TakenError, match=r"cluster demo in demo/us-east4-b exists and is not ours to use: it is ann's"):
        ben.create_resource(container.Cluster(name="demo", initial_node_count=1))
    with pytest.raises(TakenError, match="not ours to delete: it is ann's"):
        ben.cluster("demo").delete()
    with pytest.raises(TakenError, match="it does not bear our label"):
        cluster.node_pool("default-pool").delete()
    with ben.cluster("demo").create_resource(pool("bens")):  # a pool of one's own in another's cluster is fine
        assert len(google.pools()) == 2
    assert len(google.pools()) == 1


def test_context_managers_delete_and_keep(google: gke.SimulatedGke, manager: cb.ClusterManager) -> None:
    with manager.manage_resource(container.Cluster(name="demo", initial_node_count=1)) as cluster:
        with cluster.manage_resource(pool(), keep=True):
            pass
        assert f"{PARENT}/clusters/demo/nodePools/t4" in google.pools()
    assert not google.clusters


@pytest.mark.parametrize("kind", [gke.LOST, gke.AWAY, gke.THROTTLE, gke.FORGETS])
@pytest.mark.parametrize("method", ["CreateNodePool", "DeleteNodePool", "SetNodePoolSize"])
def test_passing_faults_make_nothing_twice(
    google: gke.SimulatedGke, cluster: cb.Cluster, method: str, kind: str
) -> None:
    google.fault(method, kind)
    made = cluster.create_resource(pool())
    made.resize(2)
    assert google.nodes[f"{PARENT}/clusters/demo/nodePools/t4"] == 2
    made.delete()
    assert google.made.count(f"{PARENT}/clusters/demo/nodePools/t4") == 1
    assert len(google.pools()) == 1


def test_faults_while_looking_are_waited_out(google: gke.SimulatedGke, cluster: cb.Cluster) -> None:
    google.fault("GetOperation", gke.AWAY, 2)
    google.fault("GetOperation", gke.THROTTLE, 1)
    assert cluster.create_resource(pool()).get().status.name == "RUNNING"


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        (gke.QUOTA, QuotaError, r"node pool t4 of cluster demo in demo/us-east4-b: the project's quota .*short '40.0'"),
        (gke.DENIED, AccessDeniedError, "container.clusters.create.*roles/container.admin"),
        (gke.FAILS, QuotaError, r"NVIDIA_T4_GPUS' exceeded.*it is left there \(error\).*call its delete\(\)$"),
        (gke.STOCKOUT, StockoutError, r"does not have enough resources.*another zone.*it is left there \(error\)"),
    ],
)
def test_what_waiting_does_not_mend_is_told(
    google: gke.SimulatedGke, cluster: cb.Cluster, kind: str, error: type[Exception], words: str
) -> None:
    google.fault("CreateNodePool", kind)
    with pytest.raises(error, match=words):
        cluster.create_resource(pool())


def test_a_broken_pool_is_told_again_and_can_be_deleted(google: gke.SimulatedGke, cluster: cb.Cluster) -> None:
    google.fault("CreateNodePool", gke.FAILS)
    for _ in range(2):
        with pytest.raises(QuotaError, match="NVIDIA_T4_GPUS"):
            cluster.create_resource(pool())
    cluster.node_pool("t4").delete()
    assert cluster.create_resource(pool()).get().status.name == "RUNNING"


def test_waits_are_bounded_and_say_what_goes_on(google: gke.SimulatedGke) -> None:
    hasty = cb.ClusterManager(project="demo", zone="us-east4-b", endpoint=google.url, owner="ann", seconds=1)
    google.fault("CreateCluster", gke.THROTTLE, 1000)
    with pytest.raises(
        UnavailableError, match=r"cluster slow .* was not made within 1 s: .*too many requests"
    ) as raised:
        hasty.create_resource(container.Cluster(name="slow", initial_node_count=1))
    assert isinstance(raised.value.__cause__, ThrottledError)
    google.mend()
    google.seconds = 3.0
    try:
        with pytest.raises(UnavailableError, match=r"was not made within 1 s; it is left there \(provisioning\)"):
            hasty.create_resource(container.Cluster(name="slow", initial_node_count=1))
    finally:
        google.seconds = 0.0
    patient = cb.ClusterManager(project="demo", zone="us-east4-b", endpoint=google.url, owner="ann", seconds=60)
    patient.create_resource(container.Cluster(name="slow", initial_node_count=1)).delete()


def test_a_server_that_restarts_is_waited_for(google: gke.SimulatedGke, cluster: cb.Cluster) -> None:
    google.stop()
    again = threading.Timer(1.0, google.start)
    again.start()
    try:
        assert cluster.create_resource(pool()).get().status.name == "RUNNING"
    finally:
        again.join()


def test_what_google_refuses_and_what_is_no_resource(manager: cb.ClusterManager, cluster: cb.Cluster) -> None:
    with pytest.raises(InvalidInputError, match=r"Google takes no such thing: Invalid name 'Demo'"):
        manager.create_resource(container.Cluster(name="Demo", initial_node_count=1))
    with pytest.raises(InvalidInputError, match="NodePool is no Cluster: a node pool is made with"):
        manager.create_resource(pool())  # type: ignore[arg-type]  # as a user might
    with pytest.raises(InvalidInputError, match="Cluster is no NodePool"):
        cluster.create_resource(container.Cluster(name="x"))  # type: ignore[arg-type]  # as a user might
    with pytest.raises(InvalidInputError, match="owner 'Ann B' cannot be a label"):
        cb.ClusterManager(project="demo", zone="z", owner="Ann B", endpoint="http://127.0.0.1:1")


def test_credentials_that_do_not_do_are_told_in_words_for_a_shell_and_for_python(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    way_out = "the key of a service account in GOOGLE_APPLICATION_CREDENTIALS, or without that variable those that "
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    audited = run("pools", "audit", "--project", "demo")
    assert audited.code == AccessDeniedError.exit_code
    refused = told("cluster demo", exceptions.Unauthenticated("expired"))  # the simulated Google is shown none
    for words in (audited.err, str(refused)):
        assert way_out in words
        assert "credentials=" not in words
