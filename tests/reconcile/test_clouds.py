"""How long a pool that is being deleted waits for its cloud."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gravswell_operator.api import GPUNodePool
from gravswell_operator.api.gpunodepool import CloudStatus
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.queue import work
from gravswell_operator.conditions import Reason
from gravswell_operator.providers.base import CALLS, Ask, Cloud, CloudState
from gravswell_operator.reconcile import clouds
from gravswell_operator.reconcile.clouds import FINALIZER, given_up
from gravswell_operator.reconcile.engine import Engine
from gravswell_operator.runtime import WORKERS
from gravswell_operator.state import Problem

from .conftest import World


@pytest.mark.parametrize(
    ("drain", "hour", "minute", "over"),
    [(None, 11, 59, False), (None, 12, 1, True), ("10m", 11, 9, False), ("10m", 11, 11, True), ("3h", 13, 59, False)],
)
def test_the_time_to_drain_and_an_hour(
    manifest: Callable[..., dict[str, Any]], drain: str | None, hour: int, minute: int, over: bool
) -> None:
    pool = GPUNodePool.model_validate(manifest("GPUNodePool", {"spec": {"drainTimeout": drain}}))
    began = datetime(2026, 1, 1, 10, tzinfo=UTC)
    assert given_up(pool, began, datetime(2026, 1, 1, hour, minute, tzinfo=UTC)) is over


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
    world.now += timedelta(hours=2, minutes=1)
    world.time += 7260
    await world.tick()
    assert world.condition("GPUNodePool", "pool")["reason"] == "LeftBehind"
    assert world.api.writes[-1] == "apply GPUNodePool pool"
    assert not world.context.releasing


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
        await asyncio.wait(workers)


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
