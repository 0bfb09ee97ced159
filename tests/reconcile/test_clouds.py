"""How long a pool that is being deleted waits for its cloud."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gravswell.errors import UnavailableError
from gravswell.kube.errors import ApiForbiddenError
from gravswell_operator.api import GPUNodePool
from gravswell_operator.api.gpunodepool import CloudStatus
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.queue import work
from gravswell_operator.conditions import Reason
from gravswell_operator.providers.base import CALLS, Ask, Cloud, CloudState, fingerprints
from gravswell_operator.reconcile import clouds
from gravswell_operator.reconcile.clouds import FINALIZER, given_up
from gravswell_operator.reconcile.engine import Engine
from gravswell_operator.runtime import WORKERS
from gravswell_operator.state import Problem

from .conftest import World


@pytest.mark.parametrize(
    ("drain", "hours", "minutes", "over"),
    [(None, 1, 59, False), (None, 2, 1, True), ("10m", 1, 9, False), ("10m", 1, 11, True), ("3h", 3, 59, False)],
)
def test_the_time_to_drain_and_an_hour(
    manifest: Callable[..., dict[str, Any]], drain: str | None, hours: int, minutes: int, over: bool
) -> None:
    pool = GPUNodePool.model_validate(manifest("GPUNodePool", {"spec": {"drainTimeout": drain}}))
    assert given_up(pool, hours * 3600.0 + minutes * 60.0) is over


class Throttled:
    """A cloud that takes no calls."""

    async def reconcile(self, ask: Ask) -> CloudState:
        raise AssertionError(f"{ask.pool.metadata.name} is being deleted")

    async def release(self, ask: Ask) -> CloudState:
        resource = CloudStatus(resource=f"nodePools/{ask.pool.metadata.name}")
        return CloudState(resource, Problem(Reason.PROVIDER_UNREACHABLE, "too many requests"))


@pytest.fixture
def with_cloud(world: World) -> Callable[[Cloud], World]:
    """The world with this provider for its pools of GKE's."""

    def make(cloud: Cloud) -> World:
        world.api.store({"kind": "Namespace", "metadata": {"name": "kube-system"}})
        world.context = replace(world.context, clouds={"GKE": cloud})
        world.engine = Engine(world.context)
        return world

    return make


PROVIDER = {"type": "GKE", "static": None, "gke": {"project": "demo", "location": "us-east4-b", "cluster": "demo"}}
SPEC = {"provider": PROVIDER, "size": 1, "vcpus": 16}
DELETED = {"deletionTimestamp": "2025-12-29T10:00:00Z", "finalizers": [FINALIZER]}


async def test_an_operator_that_comes_back_late_does_not_give_up_with_its_first_look(
    with_cloud: Callable[[Cloud], World],
) -> None:
    """The pool was deleted on a Friday, and nobody ran until Monday."""
    world = with_cloud(Throttled())
    world.own(resources.GPU_NODE_POOL, {"metadata": DELETED, "spec": SPEC})
    await world.tick()
    assert world.api.writes == ["status GPUNodePool pool"]  # the finalizer is still there
    assert world.condition("GPUNodePool", "pool")["reason"] == "ProviderUnreachable"
    world.pass_by(hours=2, minutes=1)
    await world.tick()
    assert world.condition("GPUNodePool", "pool")["reason"] == "LeftBehind"
    assert world.api.writes[-1] == "apply GPUNodePool pool"
    assert not world.context.releasing


async def test_a_clock_that_is_set_on_gives_no_pool_up(with_cloud: Callable[[Cloud], World]) -> None:
    world = with_cloud(Throttled())
    world.own(resources.GPU_NODE_POOL, {"metadata": DELETED, "spec": SPEC})
    await world.tick()
    world.now += timedelta(hours=36)
    world.pass_by(minutes=1)
    await world.tick()
    assert world.api.writes == ["status GPUNodePool pool"]
    assert world.condition("GPUNodePool", "pool")["reason"] == "ProviderUnreachable"


class Silent:
    """A cloud that does not answer until ``answering`` is set."""

    def __init__(self) -> None:
        self.answering, self.asked, self.released = asyncio.Event(), list[str](), list[Ask]()

    async def reconcile(self, ask: Ask) -> CloudState:
        self.asked.append(ask.pool.metadata.name)
        await self.answering.wait()
        return CloudState(CloudStatus(resource=ask.pool.metadata.name))

    async def release(self, ask: Ask) -> CloudState:
        self.released.append(ask)
        return CloudState(gone=self.answering.is_set())


async def until(fact: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not fact():  # noqa: ASYNC110  what workers do, they do not signal
            await asyncio.sleep(0.01)


async def test_a_cloud_that_does_not_answer_leaves_workers_for_everything_else(
    with_cloud: Callable[[Cloud], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clouds, "BUSY_SECONDS", 0.01)
    cloud = Silent()
    world = with_cloud(cloud)
    names = [f"pool-{number}" for number in range(2 * WORKERS)]
    for name in names:
        world.own(resources.GPU_NODE_POOL, {"metadata": {"name": name, "finalizers": [FINALIZER]}, "spec": SPEC})
    world.time = 1.0
    workers = [asyncio.create_task(work(world.context.queue, world.engine.handle)) for _ in range(WORKERS)]
    try:

        async def passes() -> None:
            while True:  # the queue's clock is the world's
                world.time += 0.1
                world.context.queue._wakeup.set()
                await asyncio.sleep(0.01)

        workers.append(asyncio.create_task(passes()))
        await until(lambda: len(cloud.asked) >= CALLS)
        world.own(resources.GPU_NODE_POOL, {"metadata": {"name": "static"}})
        await until(lambda: (world.get("GPUNodePool", "static") or {}).get("status"))
        assert len(cloud.asked) == CALLS
        cloud.answering.set()
        await until(lambda: all((world.get("GPUNodePool", name) or {}).get("status") for name in names))
        assert sorted(set(cloud.asked)) == sorted(names)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.wait(workers, timeout=60)


async def test_a_pass_that_does_not_end_is_cut_and_told(
    with_cloud: Callable[[Cloud], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clouds, "CALL_SECONDS", 0.01)
    world = with_cloud(Silent())
    world.own(resources.GPU_NODE_POOL, {"metadata": {"finalizers": [FINALIZER]}, "spec": SPEC})
    await world.tick()
    assert world.condition("GPUNodePool", "pool", "Provisioned")["reason"] == "ProviderUnreachable"


async def test_a_pool_that_cannot_be_read_any_more_is_released_by_what_can_be(
    with_cloud: Callable[[Cloud], World],
) -> None:
    cloud = Silent()
    world = with_cloud(cloud)
    spec = {**SPEC, "accelerator": {"type": "t4", "count": "as many as there are"}, "taints": "none"}
    remembered = {"resource": "nodePools/pool", "operation": "operation-1", "size": 1}
    world.own(resources.GPU_NODE_POOL, {"metadata": DELETED, "spec": spec, "status": {"cloud": remembered}})
    await world.tick()
    (ask,) = cloud.released
    assert ask.tag["gravswell-pool"] == "uid-GPUNodePool-pool"
    assert ask.pool.spec.provider.gke is not None
    assert ask.pool.spec.provider.gke.cluster == "demo"
    assert ask.pool.status.cloud == CloudStatus.model_validate(remembered)
    assert world.condition("GPUNodePool", "pool")["reason"] == "Deleting"
    assert "apply GPUNodePool pool" not in world.api.writes
    cloud.answering.set()
    world.pass_by(minutes=1)
    await world.tick()
    assert world.api.writes[-1] == "apply GPUNodePool pool"


async def test_a_pool_of_which_nobody_can_read_where_it_is_goes_after_an_hour_and_is_told(
    with_cloud: Callable[[Cloud], World],
) -> None:
    cloud = Silent()
    world = with_cloud(cloud)
    spec = {**SPEC, "provider": {"type": "Moon", "moon": {"crater": "Tycho"}}}
    world.own(resources.GPU_NODE_POOL, {"metadata": DELETED, "spec": spec})
    await world.tick()
    assert world.condition("GPUNodePool", "pool")["reason"] == "InvalidSpec"
    world.pass_by(minutes=59)
    await world.tick()
    assert "apply GPUNodePool pool" not in world.api.writes
    world.pass_by(minutes=2)
    await world.tick()
    assert world.api.writes[-1] == "apply GPUNodePool pool"
    assert world.events.told[-1] == "GPUNodePool LeftBehind"
    assert not cloud.released
    assert not world.context.releasing


class Broken:
    """A provider of others' that does in each call what it must not."""

    def __init__(self, how: Callable[[], object]) -> None:
        self.how, self.calls = how, 0

    async def reconcile(self, ask: Ask) -> CloudState:
        del ask
        self.calls += 1
        return self.how()  # type: ignore[return-value]  # what is tested

    async def release(self, ask: Ask) -> CloudState:
        return await self.reconcile(ask)


def raising(error: BaseException) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


BROKEN = {
    "error": raising(KeyError("rack")),
    "no answer": raising(UnavailableError("the rack is away")),
    "refused": raising(ApiForbiddenError("the rack's own API server refuses it")),
    "cancelled": raising(asyncio.CancelledError()),
    "exit": raising(SystemExit(3)),
    "none": lambda: None,
    "remembered": lambda: CloudState(remembered=None),  # type: ignore[arg-type]
    "problem": lambda: CloudState(problem="no machines"),  # type: ignore[arg-type]
    "never": lambda: CloudState(look_again=float("inf")),
}


@pytest.mark.parametrize("how", BROKEN.values(), ids=BROKEN)
async def test_a_fault_of_a_provider_is_told_and_tried_again_later_and_later(
    with_cloud: Callable[[Cloud], World], how: Callable[[], object]
) -> None:
    cloud = Broken(how)
    world = with_cloud(cloud)
    world.own(resources.GPU_NODE_POOL, {"metadata": {"finalizers": [FINALIZER]}, "spec": SPEC})
    await world.tick()
    for kind in ("Ready", "Provisioned"):
        told = world.condition("GPUNodePool", "pool", kind)
        assert told["reason"] == "ProviderNotReady"
        assert "provider GKE" in told["message"]
    for _ in range(60):
        await world.tick()
    assert 3 <= cloud.calls <= 10
    assert world.api.writes == ["status GPUNodePool pool"]


@pytest.mark.parametrize("how", BROKEN.values(), ids=BROKEN)
async def test_a_fault_of_a_provider_holds_a_deletion_no_longer_than_any_other(
    with_cloud: Callable[[Cloud], World], how: Callable[[], object]
) -> None:
    world = with_cloud(Broken(how))
    world.own(resources.GPU_NODE_POOL, {"metadata": DELETED, "spec": SPEC})
    await world.tick()
    assert world.api.writes == ["status GPUNodePool pool"]
    assert world.condition("GPUNodePool", "pool")["reason"] == "ProviderNotReady"
    world.pass_by(hours=2, minutes=1)
    await world.tick()
    assert world.condition("GPUNodePool", "pool")["reason"] == "LeftBehind"
    assert world.api.writes[-1] == "apply GPUNodePool pool"


async def test_a_pass_that_does_not_let_itself_be_cut_holds_no_worker(
    with_cloud: Callable[[Cloud], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clouds, "CALL_SECONDS", 0.01)
    ended = asyncio.Event()

    class Deaf(Silent):
        async def reconcile(self, ask: Ask) -> CloudState:
            try:
                return await super().reconcile(ask)
            except asyncio.CancelledError:
                await ended.wait()
                raise

    world = with_cloud(Deaf())
    world.own(resources.GPU_NODE_POOL, {"metadata": {"finalizers": [FINALIZER]}, "spec": SPEC})
    async with asyncio.timeout(60):
        await world.tick()
    assert world.condition("GPUNodePool", "pool", "Provisioned")["reason"] == "ProviderUnreachable"
    ended.set()


async def test_what_somebody_does_in_the_cloud_behind_our_back_is_seen_in_the_end(
    with_cloud: Callable[[Cloud], World],
) -> None:
    cloud = Broken(CloudState)
    world = with_cloud(cloud)
    world.own(resources.GPU_NODE_POOL, {"metadata": {"finalizers": [FINALIZER]}, "spec": SPEC})
    await world.settle()
    cloud.calls = 0
    world.pass_by(minutes=9)
    await world.settle()
    assert cloud.calls == 0
    world.pass_by(minutes=2)
    await world.settle()
    assert cloud.calls == 1


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("says", [0.0, 0.001])
async def test_a_cloud_that_wants_the_next_pass_at_once_keeps_no_worker_busy(
    with_cloud: Callable[[Cloud], World], says: float, deleted: bool
) -> None:
    world = with_cloud(Broken(lambda: CloudState(look_again=says)))
    metadata = DELETED if deleted else {"finalizers": [FINALIZER]}
    key = world.own(resources.GPU_NODE_POOL, {"metadata": metadata, "spec": SPEC})
    for _ in range(3):
        await world.tick()
    assert world.context.queue._entries[key].due - world.time >= 1.0


@pytest.mark.parametrize("verify", [True, False])
async def test_a_provider_is_told_the_clusters_authorities_unless_its_name_is_to_be_believed(
    with_cloud: Callable[[Cloud], World], verify: bool
) -> None:
    cloud = Silent()
    cloud.answering.set()
    world = with_cloud(cloud)
    certificate = "-----BEGIN CERTIFICATE-----\nb3Vycw==\n-----END CERTIFICATE-----\n"
    where = {"name": "kube-root-ca.crt", "namespace": "kube-system"}
    world.api.store({"kind": "ConfigMap", "metadata": where, "data": {"ca.crt": certificate}})
    world.context = replace(world.context, verify_cluster=verify)
    world.engine = Engine(world.context)
    world.own(resources.GPU_NODE_POOL, {"metadata": DELETED, "spec": SPEC})
    await world.tick()
    (ask,) = cloud.released
    assert ask.authorities == (fingerprints(certificate) if verify else frozenset())


UNINSTALLED = {"provider": {"type": "Custom", "static": None, "custom": {"name": "rack"}}, "size": 1}


async def test_a_pool_that_no_provider_was_ever_asked_for_is_not_held(with_cloud: Callable[[Cloud], World]) -> None:
    world = with_cloud(Throttled())
    world.own(resources.GPU_NODE_POOL, {"spec": UNINSTALLED})
    await world.settle()
    assert world.condition("GPUNodePool", "pool")["reason"] == "ProviderMissing"
    assert world.api.writes == ["status GPUNodePool pool"]


async def test_a_pool_whose_provider_is_not_there_any_more_is_held_until_its_time_is_over(
    with_cloud: Callable[[Cloud], World],
) -> None:
    world = with_cloud(Throttled())
    world.own(resources.GPU_NODE_POOL, {"metadata": DELETED, "spec": UNINSTALLED})
    await world.tick()
    assert world.condition("GPUNodePool", "pool")["reason"] == "ProviderMissing"
    assert world.api.writes == ["status GPUNodePool pool"]
    world.pass_by(hours=2, minutes=1)
    await world.tick()
    assert world.condition("GPUNodePool", "pool")["reason"] == "LeftBehind"
    assert world.api.writes[-1] == "apply GPUNodePool pool"
