"""The work queue: nothing is lost, nothing runs twice at once, what fails waits longer and longer."""

import asyncio
import time
from collections import Counter

import pytest

from gravswell_operator.cluster.queue import (
    FIRST_RETRY_SECONDS,
    LONGEST_RETRY_SECONDS,
    PATIENCE,
    Urgency,
    WorkQueue,
    work,
)


class Clock:
    """Monotonic seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def soon(awaitable):
    return await asyncio.wait_for(awaitable, 30)


async def test_what_is_added_twice_is_worked_on_once(clock):
    queue = WorkQueue[str](clock)
    queue.add("a")
    queue.add("a")
    clock.now += 1
    assert await soon(queue.get()) == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_what_is_added_while_it_is_worked_on_is_worked_on_again(clock):
    queue = WorkQueue[str](clock)
    queue.add("a", 0)
    assert await soon(queue.get()) == "a"
    queue.add("a", 0)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()  # not by two workers at once
    queue.done("a")
    assert await soon(waiting) == "a"


async def test_an_earlier_time_wins(clock):
    queue = WorkQueue[str](clock)
    queue.add("a", 1000)
    queue.add("b", 5)
    queue.add("a", 1)
    queue.add("a", 2000)
    clock.now += 2
    assert await soon(queue.get()) == "a"
    clock.now += 4
    assert await soon(queue.get()) == "b"


async def order(queue, count):
    """The next ``count`` keys, each worked on at once."""
    taken = []
    for _ in range(count):
        taken.append(await soon(queue.get()))
        queue.done(taken[-1])
    return taken


async def test_an_edit_goes_before_a_thousand_objects_that_are_only_looked_at(clock):
    queue = WorkQueue[str](clock)
    for number in range(1000):
        queue.add(f"look-{number}", urgency=Urgency.LOOK)
    clock.now += 1
    await order(queue, 10)
    queue.add("edited", urgency=Urgency.EDIT)
    queue.add("news")
    clock.now += 1
    taken = await order(queue, 5)
    assert taken[0] == "edited"
    assert "news" in taken
    assert len(queue) == 1000 + 2 - 15


async def test_an_edit_of_what_waits_to_be_looked_at_is_one_work_and_urgent(clock):
    queue = WorkQueue[str](clock)
    for name in ("a", "b", "edited", "c"):
        queue.add(name, urgency=Urgency.LOOK)
    clock.now += 1
    queue.add("edited", urgency=Urgency.EDIT)
    queue.add("edited", 1000)
    assert await order(queue, 4) == ["edited", "a", "b", "c"]
    assert len(queue) == 0


async def test_an_edit_of_what_is_worked_on_is_as_urgent_afterwards(clock):
    queue = WorkQueue[str](clock)
    queue.add("a", 0, Urgency.LOOK)
    assert await soon(queue.get()) == "a"
    queue.add("b", 0, Urgency.LOOK)
    queue.add("a", 0, Urgency.EDIT)
    queue.done("a")
    assert await order(queue, 2) == ["a", "b"]


async def test_edits_without_end_hold_up_nothing_for_good(clock):
    queue = WorkQueue[tuple[str, int]](clock)
    for number in range(10):
        queue.add(("look", number), 0, Urgency.LOOK)
        queue.add(("news", number), 0)
    taken = []
    for number in range(200):
        queue.add(("edit", number), 0, Urgency.EDIT)
        taken += await order(queue, 1)
    for what in ("look", "news"):
        turns = [turn for turn, (kind, _) in enumerate(taken) if kind == what]
        assert len(turns) == 10
        assert max(b - a for a, b in zip([-1, *turns], turns, strict=False)) <= PATIENCE + 2
    edits = [number for kind, number in taken if kind == "edit"]
    assert edits == sorted(edits), "of one urgency and kind, in their order"


async def test_the_kinds_take_turns_so_that_many_of_one_hold_up_no_other(clock):
    queue = WorkQueue[tuple[str, int]](clock, kind=lambda key: key[0])
    for number in range(100):
        queue.add(("server", number))
    queue.add(("repository", 0))
    queue.add(("pool", 0))
    clock.now += 1
    taken = await order(queue, 102)
    assert {kind for kind, _ in taken[:3]} == {"server", "repository", "pool"}
    assert [number for kind, number in taken if kind == "server"] == list(range(100))


def test_failures_of_one_key_wait_longer_each_time_and_only_its_own(clock):
    queue = WorkQueue[str](clock)
    delays = []
    for _ in range(20):
        delays.append(queue.retry_delay("a"))
        clock.now += delays[-1]
    assert delays[0] == FIRST_RETRY_SECONDS
    assert delays[1] == 2 * FIRST_RETRY_SECONDS
    assert delays[-1] == LONGEST_RETRY_SECONDS
    assert queue.retry_delay("b") == FIRST_RETRY_SECONDS
    assert queue.failing == 2
    queue.forget("a")
    assert queue.retry_delay("a") == FIRST_RETRY_SECONDS


def test_failures_of_what_events_wake_do_not_make_the_wait_longer(clock):
    queue = WorkQueue[str](clock)
    queue.retry_delay("a")
    clock.now += FIRST_RETRY_SECONDS
    assert queue.retry_delay("a") == 2 * FIRST_RETRY_SECONDS
    for _ in range(20):
        clock.now += FIRST_RETRY_SECONDS / 20
        delay = queue.retry_delay("a")
    assert delay == pytest.approx(FIRST_RETRY_SECONDS)  # what is left of that wait


async def test_under_load_every_add_is_followed_by_work_and_no_key_is_in_two_hands():
    """Eight workers and a swarm of wake-ups: after the last add of each key, its work has run."""
    queue = WorkQueue[int](time.monotonic)
    state, seen, busy = Counter[int](), {}, set()

    async def handle(key):
        assert key not in busy
        busy.add(key)
        value = state[key]
        await asyncio.sleep(0)
        seen[key] = value
        busy.discard(key)

    workers = [asyncio.create_task(work(queue, handle)) for _ in range(8)]
    for round_ in range(50):
        for key in range(40):
            state[key] += 1
            queue.add(key, 0.001 * (round_ % 3))
        await asyncio.sleep(0.001)

    async def drained():
        while len(queue):  # noqa: ASYNC110  the queue has no event for emptiness, and needs none
            await asyncio.sleep(0.01)

    await soon(drained())
    for worker in workers:
        worker.cancel()
    results = await asyncio.gather(*workers, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert seen == dict(state)


@pytest.mark.parametrize("steps", range(4))
async def test_a_worker_ends_when_it_is_cancelled_also_as_it_is_woken(steps):
    queue = WorkQueue[str](time.monotonic)

    async def handle(key):
        raise AssertionError(f"{key} is not due")

    queue.add("later", 600)
    worker = asyncio.create_task(work(queue, handle))
    await asyncio.sleep(0.01)
    queue.add("sooner", 500)
    for _ in range(steps):
        await asyncio.sleep(0)
    worker.cancel()
    done, _ = await asyncio.wait([worker], timeout=10)
    assert done
