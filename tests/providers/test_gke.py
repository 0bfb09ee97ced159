"""The GKE provider against a simulated Google that speaks the real Container API: every pass may be the last one."""

import base64
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from google import cloud as google_cloud

from gravswell.cloudbreak import google as cb
from gravswell_operator.api import GPUNodePool
from gravswell_operator.api.gpunodepool import CloudStatus
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.pools import Bounds
from gravswell_operator.providers.base import Ask, CloudState, fingerprints
from gravswell_operator.providers.gke import LOST_SECONDS, RETRY_SECONDS, Gke

from ..cloudbreak import gke

PARENT = "projects/demo/locations/us-east4-b/clusters/demo"
UID = "0a1b2c3d-1111-2222-3333-444455556666"
POOL = f"{PARENT}/nodePools/gw-gpus-0a1b2c3d"
PoolStatus = gke.container.NodePool.Status
HOME = "99999999-1111-2222-3333-444455556666"


@pytest.fixture(scope="module")
def server() -> Iterator[gke.SimulatedGke]:
    with gke.SimulatedGke() as running:
        yield running


@pytest.fixture
def google(server: gke.SimulatedGke) -> Iterator[gke.SimulatedGke]:
    """With one cluster, in which somebody else's node pool is."""
    manager = cb.ClusterManager(project="demo", zone="us-east4-b", endpoint=server.url, owner="ann", seconds=60)
    manager.create_resource(cb_cluster())
    server.made.clear()
    yield server
    server.mend()
    server.clusters.clear()
    server.nodes.clear()


def cb_cluster() -> Any:
    return gke.container.Cluster(name="demo", initial_node_count=1)


class Operator:
    """Passes over one pool, by a provider that may die after any of them."""

    def __init__(self, google: gke.SimulatedGke, pool: GPUNodePool) -> None:
        self.google, self.now = google, 0.0
        self.ask = Ask(pool, Bounds(1, 1), HOME)
        self.restart()

    def restart(self) -> None:
        self.provider = Gke(
            lambda project, location: cb.Api(project, location, endpoint=self.google.url), lambda: self.now
        )

    def want(self, minimum: int, maximum: int | None = None, **spec: Any) -> None:
        self.ask = replace(self.ask, bounds=Bounds(minimum, minimum if maximum is None else maximum))
        if spec:
            changed = self.ask.pool.spec.model_copy(update=spec)
            self.ask = replace(self.ask, pool=self.ask.pool.model_copy(update={"spec": changed}))

    def remember(self, cloud: CloudStatus | None) -> None:
        status = self.ask.pool.status.model_copy(update={"cloud": cloud})
        self.ask = replace(self.ask, pool=self.ask.pool.model_copy(update={"status": status}))

    def have(self, nodes: int) -> None:
        """The pool's status says that it has so many nodes."""
        status = self.ask.pool.status.model_copy(update={"nodes": nodes})
        self.ask = replace(self.ask, pool=self.ask.pool.model_copy(update={"status": status}))

    async def once(self, *, crash: bool = False, release: bool = False) -> CloudState:
        """One pass; with ``crash`` its status is never written, and a new operator comes."""
        state = await (self.provider.release(self.ask) if release else self.provider.reconcile(self.ask))
        if crash:
            self.restart()
        else:
            self.remember(state.remembered)
        return state

    async def settle(self, *, crash: bool = False, release: bool = False) -> CloudState:
        """Passes until nothing is under way."""
        for _ in range(200):
            state = await self.once(crash=crash, release=release)
            under_way = {Reason.PROVIDER_STARTING, Reason.PROVIDER_UNREACHABLE}
            if state.problem is None or state.problem.reason not in under_way:
                return state
            self.google.settle()
            self.now += state.look_again or 0.0
        raise AssertionError(f"still under way: {state}")


@pytest.fixture
def operator(google: gke.SimulatedGke, manifest: Callable[..., dict[str, Any]]) -> Operator:
    provider = {
        "type": "GKE",
        "static": None,
        "gke": {"project": "demo", "location": "us-east4-b", "cluster": "demo", "spot": True, "diskSizeGB": 200},
    }
    taints = [{"key": "nvidia.com/gpu"}, {"key": "team", "value": "ml"}]
    spec = {"provider": provider, "size": 1, "vcpus": 16, "accelerator": {"type": "t4"}, "taints": taints}
    change = {"metadata": {"name": "gpus", "uid": UID}, "spec": spec}
    return Operator(google, GPUNodePool.model_validate(manifest("GPUNodePool", change)))


async def test_made_once_with_its_tag_its_label_and_its_machines(google: gke.SimulatedGke, operator: Operator) -> None:
    first = await operator.once()
    assert first.problem is not None
    assert first.problem.reason == Reason.PROVIDER_STARTING
    assert first.look_again is not None
    assert 0.7 <= first.look_again <= 1.0
    assert "create node pool" in first.problem.message
    last = await operator.settle()
    assert last == CloudState(remembered=CloudStatus(resource=POOL, size=1))
    assert google.made == [POOL]
    made = google.pool(POOL)
    assert dict(made.config.resource_labels) == {"gravswell-pool": UID, "gravswell-cluster": HOME}
    assert dict(made.config.labels) == {"gravswell.dev/pool": "gpus"}
    assert made.config.machine_type == "n1-standard-16"
    assert (made.config.spot, made.config.disk_size_gb) == (True, 200)
    assert [(t.key, t.value, t.effect.name) for t in made.config.taints] == [("team", "ml", "NO_SCHEDULE")]
    assert made.node_drain_config.pdb_timeout_duration.total_seconds() == 3600
    assert list(made.locations) == ["us-east4-b"]


@pytest.mark.parametrize("crash", [False, True])
async def test_sized_autoscaled_and_sized_again(google: gke.SimulatedGke, operator: Operator, crash: bool) -> None:
    await operator.settle()
    operator.want(3)
    await operator.settle()
    assert google.nodes[POOL] == 3
    autoscaling = {"min": 0, "max": 5}
    operator.want(1, 5, size=None, autoscaling=autoscaling)
    assert (await operator.settle(crash=crash)).problem is None
    scaled = google.pool(POOL).autoscaling
    assert (scaled.enabled, scaled.total_min_node_count, scaled.total_max_node_count) == (True, 1, 5)
    operator.want(2, 2, size=2, autoscaling=None)
    await operator.settle()
    assert not google.pool(POOL).autoscaling.enabled
    assert google.nodes[POOL] == 2
    operator.want(0)  # idle
    await operator.settle()
    assert google.nodes[POOL] == 0
    assert google.made == [POOL]
    calls = google.calls.copy()
    assert (await operator.once()).problem is None
    assert google.calls - calls == {"ListNodePools": 1}


async def test_an_operator_that_dies_after_each_call_makes_no_second_pool(
    google: gke.SimulatedGke, operator: Operator
) -> None:
    for _ in range(4):
        await operator.once(crash=True)
        google.settle()
    assert google.made == [POOL]
    assert (await operator.settle()).problem is None
    for _ in range(4):
        state = await operator.once(crash=True, release=True)
        google.settle()
    assert state.gone
    assert google.made == [POOL]
    assert POOL not in google.pools()


@pytest.mark.parametrize("kind", [gke.LOST, gke.AWAY, gke.THROTTLE, gke.FORGETS])
@pytest.mark.parametrize("method", ["CreateNodePool", "SetNodePoolSize", "DeleteNodePool", "ListNodePools"])
async def test_passing_faults(google: gke.SimulatedGke, operator: Operator, method: str, kind: str) -> None:
    google.fault(method, kind)
    await operator.settle()
    operator.want(2)
    await operator.settle()
    assert google.nodes[POOL] == 2
    assert google.made == [POOL]
    assert (await operator.settle(release=True)).gone
    assert POOL not in google.pools()


@pytest.mark.parametrize(
    ("kind", "reason", "words"),
    [
        (gke.QUOTA, Reason.QUOTA_EXCEEDED, "requires '64.0' and is short '40.0'"),
        (gke.DENIED, Reason.FORBIDDEN, "roles/container.admin"),
        (gke.FAILS, Reason.QUOTA_EXCEEDED, "Quota 'NVIDIA_T4_GPUS' exceeded"),
        (gke.STOCKOUT, Reason.OUT_OF_STOCK, "does not have enough resources"),
    ],
)
async def test_what_blocks_is_told_and_tried_again_later(
    google: gke.SimulatedGke, operator: Operator, kind: str, reason: Reason, words: str
) -> None:
    google.fault("CreateNodePool", kind)
    state = await operator.settle()
    assert state.problem is not None
    assert (state.problem.reason, state.look_again) == (reason, RETRY_SECONDS)
    assert words in state.problem.message
    if kind in {gke.FAILS, gke.STOCKOUT}:  # what was half made stays until then, and is told
        again = await operator.settle()
        assert again.problem is not None
        assert again.problem.reason == reason
    operator.now += RETRY_SECONDS
    assert (await operator.settle()).problem is None
    assert google.pool(POOL).status.name == "RUNNING"


async def test_what_only_time_mends_is_not_asked_again_whoever_wakes_the_pool(
    google: gke.SimulatedGke, operator: Operator
) -> None:
    google.fault("CreateNodePool", gke.QUOTA, times=2)
    first = await operator.settle()
    calls = google.calls.copy()
    operator.now = 100.0
    again = await operator.once()
    assert again == replace(first, look_again=RETRY_SECONDS - 100.0)
    assert google.calls == calls
    operator.want(2)  # an edit
    assert (await operator.settle()).problem is not None
    assert google.calls["CreateNodePool"] == calls["CreateNodePool"] + 1
    operator.now += RETRY_SECONDS
    assert (await operator.settle()).problem is None


async def test_an_upgrade_of_googles_own_is_no_problem_of_a_pool_that_fits(
    google: gke.SimulatedGke, operator: Operator
) -> None:
    await operator.settle()
    google.pool(POOL).status = PoolStatus.RECONCILING
    assert (await operator.once()).problem is None
    operator.want(2)
    state = await operator.once()
    assert state.problem is not None
    assert state.problem.reason == Reason.PROVIDER_STARTING
    google.pool(POOL).status = PoolStatus.RUNNING
    await operator.settle()
    assert google.nodes[POOL] == 2


async def test_a_size_that_could_not_be_given_is_asked_for_again(google: gke.SimulatedGke, operator: Operator) -> None:
    await operator.settle()
    google.fault("SetNodePoolSize", gke.STOCKOUT)
    operator.want(4)
    state = await operator.settle()
    assert state.problem is not None
    assert state.problem.reason == Reason.OUT_OF_STOCK
    operator.now += RETRY_SECONDS
    assert (await operator.settle()).problem is None
    assert google.nodes[POOL] == 4


async def test_a_creation_that_is_taken_after_its_pool_was_deleted_leaves_nothing(
    google: gke.SimulatedGke, operator: Operator
) -> None:
    google.fault("CreateNodePool", gke.LATE, seconds=0.2)
    assert (await operator.once()).problem is not None
    state = await operator.once(release=True)
    assert not state.gone
    assert state.problem is not None
    assert "may still be taken" in state.problem.message
    google.settle()
    assert POOL in google.pools()
    assert (await operator.settle(release=True)).gone
    assert POOL not in google.pools()


async def test_a_call_that_was_never_taken_holds_a_deletion_for_a_minute(
    google: gke.SimulatedGke, operator: Operator
) -> None:
    google.fault("CreateNodePool", gke.AWAY)
    await operator.once()
    assert not (await operator.once(release=True)).gone
    operator.now = LOST_SECONDS
    assert (await operator.once(release=True)).gone
    assert not google.made


async def test_a_node_pool_that_goes_while_it_is_deleted_is_gone(google: gke.SimulatedGke, operator: Operator) -> None:
    await operator.settle()

    def taken_away() -> None:
        del google.clusters[PARENT]

    google.before("DeleteNodePool", taken_away)
    assert (await operator.once(release=True)).gone


async def test_a_deletion_that_fails_says_why_and_is_tried_again(google: gke.SimulatedGke, operator: Operator) -> None:
    await operator.settle()
    google.fault("DeleteNodePool", gke.BLOCKED)
    state = await operator.settle(release=True)
    assert not state.gone
    assert state.problem is not None
    assert "in use by the backend service 'front'" in state.problem.message
    assert state.look_again == RETRY_SECONDS
    operator.now += RETRY_SECONDS
    assert (await operator.settle(release=True)).gone
    assert POOL not in google.pools()


async def test_a_node_pool_that_breaks_with_nodes_is_told_and_stays(
    google: gke.SimulatedGke, operator: Operator
) -> None:
    await operator.settle()
    google.pool(POOL).status = PoolStatus.ERROR
    google.pool(POOL).status_message = "the upgrade of its nodes failed"
    operator.have(1)
    for now in (0.0, 2 * RETRY_SECONDS):
        operator.now = now
        state = await operator.once()
        assert state.problem is not None
        assert "the upgrade of its nodes failed" in state.problem.message
        assert google.pool(POOL).status == PoolStatus.ERROR
    operator.have(0)
    operator.now += RETRY_SECONDS
    await operator.settle()
    assert google.pool(POOL).status == PoolStatus.RUNNING


async def test_what_is_not_ours_is_left_alone(google: gke.SimulatedGke, operator: Operator) -> None:
    ann = cb.ClusterManager(project="demo", zone="us-east4-b", endpoint=google.url, owner="ann", seconds=60)
    config = cb.create_gpu_node_pool_config(vcpus=16, gpus=4, gpu_type="t4")
    name = POOL.rpartition("/")[2]
    ann.cluster("demo").create_resource(gke.container.NodePool(name=name, initial_node_count=1, config=config))
    state = await operator.settle()
    assert state.problem is not None
    assert state.problem.reason == Reason.NAME_TAKEN
    state = await operator.settle(release=True)
    assert state.problem is not None
    assert state.problem.reason == Reason.NAME_TAKEN
    assert POOL in google.pools()


async def test_a_cluster_that_is_not_there(google: gke.SimulatedGke, operator: Operator) -> None:
    google.clusters.clear()
    state = await operator.settle()
    assert state.problem is not None
    assert state.problem.reason == Reason.PROVIDER_MISSING
    assert (await operator.once(release=True)).gone


async def test_machines_that_nobody_makes_are_refused(google: gke.SimulatedGke, operator: Operator) -> None:
    operator.want(1, vcpus=15)
    state = await operator.once()
    assert state.problem is not None
    assert state.problem.reason == Reason.REJECTED
    assert "no machine has 15 vCPUs with 4 GPUs of type t4" in state.problem.message
    assert not google.made


OURS, THEIRS = (
    f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n" for text in ("b3Vycw==", "dGhlaXJz")
)


@pytest.mark.parametrize(
    ("said", "known", "made"),
    [
        (OURS, OURS, True),
        (OURS + THEIRS, OURS, True),  # an authority is replaced by another
        (THEIRS, OURS, False),
        ("", OURS, True),  # what is not known is believed
        (THEIRS, "", True),
    ],
)
async def test_a_cluster_in_which_the_operator_does_not_run_gets_no_node_pool(
    google: gke.SimulatedGke, operator: Operator, said: str, known: str, made: bool
) -> None:
    google.clusters[PARENT].master_auth.cluster_ca_certificate = base64.b64encode(said.encode()).decode()
    operator.ask = replace(operator.ask, authorities=fingerprints(known))
    state = await operator.settle()
    assert bool(google.made) is made
    if made:
        return
    assert state.problem is not None
    assert state.problem.reason == Reason.WRONG_CLUSTER
    assert "cluster demo in demo/us-east4-b is not the cluster that the operator runs in" in state.problem.message
    assert (await operator.settle(release=True)).gone
    google.clusters[PARENT].master_auth.cluster_ca_certificate = base64.b64encode(known.encode()).decode()
    operator.now += RETRY_SECONDS
    assert (await operator.settle()).problem is None
    assert google.made == [POOL]


async def test_who_may_not_look_at_clusters_makes_pools_all_the_same(
    google: gke.SimulatedGke, operator: Operator
) -> None:
    google.fault("GetCluster", gke.DENIED, times=10)
    operator.ask = replace(operator.ask, authorities=fingerprints(OURS))
    assert (await operator.settle()).problem is None
    assert google.made == [POOL]


async def test_what_shall_stay_is_marked_in_the_cloud_and_what_shall_not_is_not(
    google: gke.SimulatedGke, operator: Operator
) -> None:
    tag = {"gravswell-pool": UID, "gravswell-cluster": HOME}
    operator.want(1, deletion_policy="Retain")
    await operator.settle()
    assert dict(google.pool(POOL).config.resource_labels) == {**tag, "gravswell-retained": "true"}
    assert google.calls["UpdateNodePool"] == 0
    google.pool(POOL).config.resource_labels["team"] = "ml"
    for policy, mark in (("Delete", {}), ("Retain", {"gravswell-retained": "true"})):
        operator.want(1, deletion_policy=policy)
        assert (await operator.settle()).problem is None
        assert dict(google.pool(POOL).config.resource_labels) == {**tag, "team": "ml", **mark}
    assert google.made == [POOL]


async def test_without_googles_library_the_pool_says_how_to_get_it(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith(("gravswell.cloudbreak.google", "gravswell_operator.providers.gke_steps")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(google_cloud, "container_v1")
    monkeypatch.setitem(sys.modules, "google.cloud.container_v1", None)
    state = await Gke().reconcile(operator.ask)
    assert state.problem is not None
    assert state.problem.reason == Reason.PROVIDER_MISSING
    assert "needs google-cloud-container, which is not installed: pip install" in state.problem.message


async def test_a_node_pool_that_somebody_deletes_in_the_cloud_is_made_again(
    google: gke.SimulatedGke, operator: Operator
) -> None:
    assert (await operator.settle()).problem is None
    cluster = google.clusters[PARENT]
    cluster.node_pools = [pool for pool in cluster.node_pools if pool.name != POOL.rpartition("/")[2]]
    assert (await operator.settle()).problem is None
    assert google.made == [POOL, POOL]
    assert POOL in google.pools()
