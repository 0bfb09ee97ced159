"""How long a pool that is being deleted waits for its cloud."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gravswell_operator.api import GPUNodePool
from gravswell_operator.api.gpunodepool import CloudStatus
from gravswell_operator.cluster import resources
from gravswell_operator.conditions import Reason
from gravswell_operator.providers.base import Ask, CloudState
from gravswell_operator.reconcile.clouds import FINALIZER, given_up
from gravswell_operator.reconcile.engine import Engine
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


async def test_an_operator_that_comes_back_late_does_not_give_up_with_its_first_look(world: World) -> None:
    """The pool was deleted on a Friday, and nobody ran until Monday."""
    gke = {"project": "demo", "location": "us-east4-b", "cluster": "demo"}
    metadata = {"deletionTimestamp": "2025-12-29T10:00:00Z", "finalizers": [FINALIZER]}
    spec = {"provider": {"type": "GKE", "static": None, "gke": gke}, "size": 1, "vcpus": 16}
    world.api.store({"kind": "Namespace", "metadata": {"name": "kube-system"}})
    world.context = replace(world.context, clouds={"GKE": Throttled()})
    world.engine = Engine(world.context)
    world.own(resources.GPU_NODE_POOL, {"metadata": metadata, "spec": spec})
    await world.tick()
    assert world.api.writes == ["status GPUNodePool pool"]  # the finalizer is still there
    assert world.condition("GPUNodePool", "pool")["reason"] == "ProviderUnreachable"
    world.now += timedelta(hours=2, minutes=1)
    world.time += 7260
    await world.tick()
    assert world.condition("GPUNodePool", "pool")["reason"] == "LeftBehind"
    assert world.api.writes[-1] == "apply GPUNodePool pool"
    assert not world.context.releasing
