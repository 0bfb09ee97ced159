"""A cloud that answers late, twice or never: one node pool for each GPUNodePool all the same, and nobody else waits."""

import threading

from ...cloudbreak import gke
from ..operating import wait_until
from .conftest import Pools

HELD_SECONDS = 60


def test_a_call_that_is_taken_after_it_was_given_up_makes_no_second_pool(
    pools: Pools, google: gke.SimulatedGke
) -> None:
    """Late, and so twice: the first call is lost, the second is made, and then the first one arrives."""
    google.fault("CreateNodePool", gke.LATE, seconds=3)
    pools.apply("late")
    pools.until("late", Ready="NodesReady", nodes=1)
    google.settle()
    assert len(pools.cloud("late")) == 1
    assert len([path for path in google.pools() if path in pools.cloud("late")]) == 1


def test_an_answer_that_is_lost_and_asked_for_again_makes_one_pool(pools: Pools, google: gke.SimulatedGke) -> None:
    google.fault("CreateNodePool", gke.LOST, 2)
    google.fault("SetNodePoolSize", gke.LOST, 2)
    pools.apply("twice")
    pools.until("twice", Ready="NodesReady", nodes=1)
    pools.apply("twice", size=3)
    pools.until("twice", Ready="NodesReady", nodes=3)
    assert len(pools.cloud("twice")) == 1


def test_a_call_that_is_never_answered_keeps_no_other_pool_waiting(pools: Pools, google: gke.SimulatedGke) -> None:
    answered = threading.Event()
    google.before("CreateNodePool", lambda: answered.wait(HELD_SECONDS))
    try:
        before = google.calls["CreateNodePool"]
        pools.apply("never")
        wait_until(lambda: google.calls["CreateNodePool"] > before)
        pools.apply("other")
        pools.until("other", Ready="NodesReady", nodes=1)
        assert not pools.cloud("never")
    finally:
        answered.set()
    pools.until("never", Ready="NodesReady", nodes=1)
    assert len(pools.cloud("never")) == 1
