"""The machine's clock is set while a canary is under way, or a pool stands unused: what was waited for counts, and
nothing else does."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from gravswell.kube.errors import ApiUnavailableError
from gravswell_operator.cluster import resources

from .conftest import World, serve
from .test_pools import INSTALLED, SIZED
from .test_rollout import CANARY, Rollouts

FAR = timedelta(hours=36)
GOOD = {1: (100, 0), 2: (10, 0)}
BETTER = {1: (100, 0), 2: (20, 0)}
"""Other counts: their report is news, for which the Model is looked at."""


@pytest.fixture
async def canary(manifest: Callable[..., dict[str, Any]]) -> Rollouts:
    """One of four replicas serves version 2, since now; it is asked enough to be judged, and is good."""
    rollouts = Rollouts(serve(World(manifest)))
    rollouts.asked = GOOD
    await rollouts.begin(**CANARY)
    assert rollouts.new() == ["p-1"]
    return rollouts


async def looked_at(rollouts: Rollouts) -> None:
    """Everything is reported anew."""
    rollouts.asked = BETTER if rollouts.asked is GOOD else GOOD
    await rollouts.settle()


@pytest.mark.parametrize("restarted", [False, True], ids=["", "and the operator restarted"])
@pytest.mark.parametrize("jump", [FAR, -FAR], ids=["on", "back"])
async def test_a_pause_lasts_as_long_as_it_shall(canary: Rollouts, jump: timedelta, restarted: bool) -> None:
    world = canary.world
    world.pass_by(minutes=6)
    world.now += jump
    await looked_at(canary)
    if restarted:
        world.restart()
    world.pass_by(minutes=3)
    await looked_at(canary)
    assert (canary.new(), canary.status["step"]) == (["p-1"], 1)
    await canary.pass_by(minutes=2)
    assert (canary.new(), canary.status["step"]) == (["p-1", "p-2"], 2)


@pytest.mark.parametrize("jump", [FAR, -FAR], ids=["on", "back"])
async def test_a_deadline_lasts_as_long_as_it_shall(manifest: Callable[..., dict[str, Any]], jump: timedelta) -> None:
    rollouts = Rollouts(serve(World(manifest)))
    rollouts.failing = "NoSpace"  # may pass, and is waited for
    await rollouts.begin(**CANARY)
    rollouts.world.now += jump
    rollouts.world.pass_by(minutes=4)
    rollouts.failing = "FetchFailed"
    await rollouts.settle()
    assert rollouts.status["state"] == "Progressing"
    await rollouts.pass_by(minutes=2)
    assert rollouts.status["state"] == "RolledBack"
    assert "progressDeadline 5m has passed" in rollouts.status["message"]


@pytest.mark.parametrize("restarted", [False, True], ids=["", "and the operator restarted"])
@pytest.mark.parametrize("jump", [FAR, -FAR], ids=["on", "back"])
async def test_it_stands_still_while_the_model_is_suspended(canary: Rollouts, jump: timedelta, restarted: bool) -> None:
    world = canary.world
    world.pass_by(minutes=6)
    world.change(resources.MODEL, "model", suspend=True)
    await canary.settle()
    await canary.pass_by(hours=1)
    world.now += jump
    await looked_at(canary)
    if restarted:
        world.restart()
    world.change(resources.MODEL, "model", suspend=False)
    await canary.settle()
    await canary.pass_by(minutes=3)
    assert (canary.new(), canary.status["step"]) == (["p-1"], 1)
    await canary.pass_by(minutes=2)
    assert (canary.new(), canary.status["step"]) == (["p-1", "p-2"], 2)


async def test_a_status_that_is_not_written_is_tried_again_with_the_same_times(canary: Rollouts) -> None:
    world = canary.world
    world.now += FAR
    canary.asked = BETTER
    refused = iter(range(2))
    world.api.refuse = lambda words: (
        ApiUnavailableError("no answer") if words == "status Model model" and next(refused, None) is not None else None
    )
    await canary.settle()
    assert next(refused, None) is None, "two were refused"
    await canary.pass_by(minutes=9)
    await looked_at(canary)
    assert canary.new() == ["p-1"]


async def test_no_clock_is_remembered_for_what_is_over(canary: Rollouts) -> None:
    world = canary.world
    assert list(world.context.ahead.values()) != []
    world.change(resources.MODEL, "model", rollout={**CANARY, "promote": 2})
    await canary.settle()
    assert canary.status["state"] == "Complete"
    assert world.context.ahead == {}


async def test_no_clock_is_remembered_for_what_is_gone(canary: Rollouts) -> None:
    world = canary.world
    world.remove(resources.MODEL, "model")
    await world.settle()
    assert world.context.ahead == {}


@pytest.fixture
async def unused(world: World) -> World:
    """A pool of two nodes, which go when nobody used them for ten minutes; nobody has since now."""
    world.own(resources.GPU_NODE_POOL, SIZED)
    for kind, why in INSTALLED.items():
        world.context.found(kind, why)
    await world.settle()
    assert nodes(world) == 2
    return world


def nodes(world: World) -> int:
    pool = world.get("NodePool", "pool")
    assert pool is not None
    return int(pool["spec"]["replicas"])


@pytest.mark.parametrize("restarted", [False, True], ids=["", "and the operator restarted"])
@pytest.mark.parametrize("jump", [FAR, -FAR], ids=["on", "back"])
async def test_an_unused_pool_keeps_its_nodes_as_long_as_it_shall(
    unused: World, jump: timedelta, restarted: bool
) -> None:
    unused.pass_by(minutes=6)
    unused.now += jump
    unused.change(resources.GPU_NODE_POOL, "pool", allowedNamespaces=["ns"])
    await unused.settle()
    if restarted:
        unused.restart()
        for kind, why in INSTALLED.items():
            unused.context.found(kind, why)
    unused.pass_by(minutes=3)
    await unused.settle()
    assert nodes(unused) == 2
    unused.pass_by(minutes=2)
    await unused.settle()
    assert nodes(unused) == 0


async def test_no_clock_is_remembered_for_a_pool_in_use(unused: World) -> None:
    assert list(unused.context.ahead.values()) != []
    unused.own(resources.INFERENCE_SERVER)
    await unused.settle()
    await unused.settle()
    unused.change(resources.GPU_NODE_POOL, "pool", allowedNamespaces=["ns"])
    await unused.settle()
    assert unused.context.ahead == {}
