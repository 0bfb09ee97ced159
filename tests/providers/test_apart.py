"""Providers of others in threads of their own: what blocks there holds up nobody else, and is told by its line."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gravswell.errors import UnavailableError
from gravswell_operator.api import GPUNodePool
from gravswell_operator.desired.pools import Bounds
from gravswell_operator.providers import apart
from gravswell_operator.providers.apart import Apart
from gravswell_operator.providers.base import Ask, CloudState, CloudStatus, ProviderError
from gravswell_operator.providers.passes import answer

WAIT_SECONDS = 60
ANSWER = CloudState(CloudStatus(resource="rack/1"))


@pytest.fixture
def ask(manifest: Callable[..., dict[str, Any]]) -> Ask:
    provider = {"type": "Custom", "static": None, "custom": {"name": "rack"}}
    change = {"metadata": {"name": "gpus", "uid": "0a1b"}, "spec": {"provider": provider, "size": 2}}
    return Ask(GPUNodePool.model_validate(manifest("GPUNodePool", change)), Bounds(2, 2), "9999")


class Blocking:
    """Its calls keep their thread until ``released``."""

    def __init__(self) -> None:
        self.released, self.calls = threading.Event(), 0

    async def reconcile(self, ask: Ask) -> CloudState:
        del ask
        self.calls += 1
        self.released.wait(WAIT_SECONDS)  # the line that is told
        return ANSWER

    async def release(self, ask: Ask) -> CloudState:
        return await self.reconcile(ask)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of providers; others may log what they like."""
    return [record.getMessage() for record in caplog.records if record.name == apart.__name__]


LINE = r"test_apart.py, line \d+, in reconcile"


@pytest.fixture
def blocking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Blocking]:
    """One at which it is looked often."""
    monkeypatch.setattr(apart, "BEAT_SECONDS", 0.05)
    made = Blocking()
    yield made
    made.released.set()


async def until_it_blocks(blocking: Blocking) -> None:
    """Only then may little time be long: before that, a thread without a processor would be told to block elsewhere."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not blocking.calls:  # noqa: ASYNC110  its loop is another
            await asyncio.sleep(0.01)


async def test_what_blocks_holds_up_nobody_else_is_told_once_and_answers_in_the_end(
    blocking: Blocking, ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pending = asyncio.create_task(Apart("rack", lambda: blocking).reconcile(ask))
    await until_it_blocks(blocking)
    monkeypatch.setattr(apart, "TOLD_SECONDS", 0.2)
    async with asyncio.timeout(WAIT_SECONDS):
        while "the provider rack blocks" not in caplog.text:  # noqa: ASYNC110  what is logged is not signalled
            await asyncio.sleep(0.01)  # which would not come back, were it this loop that is blocked
        await asyncio.sleep(0.2)
    assert not pending.done()
    assert "# the line that is told" in caplog.text
    assert len(told(caplog)) == 1
    blocking.released.set()
    assert await asyncio.wait_for(pending, WAIT_SECONDS) is ANSWER


async def test_what_blocks_for_too_long_is_told_and_given_nothing_more_until_it_goes_on(
    blocking: Blocking, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    rack = Apart("rack", lambda: blocking)
    for step in (rack.reconcile, rack.release):
        pending = asyncio.create_task(answer(step, ask, WAIT_SECONDS))
        await until_it_blocks(blocking)
        monkeypatch.setattr(apart, "CALL_SECONDS", 0.5)
        with pytest.raises(ProviderError, match=rf"provider rack: it blocks at {LINE}: what blocks belongs into a"):
            await pending
    assert blocking.calls == 1
    blocking.released.set()
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                assert await rack.release(ask) is ANSWER
                break
            except UnavailableError:  # it has not noticed yet
                await asyncio.sleep(0.01)


async def test_a_loop_that_answers_as_it_is_looked_at_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does so in its own thread, between any two things that ours does."""
    rack = Apart("rack", Blocking)

    def now() -> float:
        rack._answer()
        return time.monotonic()

    monkeypatch.setattr(apart, "time", SimpleNamespace(monotonic=now))
    rack._asked = time.monotonic()
    rack._check()
    assert rack._asked is None


async def test_what_waits_as_it_should_is_not_told_however_long_it_takes(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The bounds are such that a busy machine keeps them: its threads, too, wait for a processor."""
    monkeypatch.setattr(apart, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(apart, "TOLD_SECONDS", 2.0)
    monkeypatch.setattr(apart, "CALL_SECONDS", 2.0)

    class Slow(Blocking):
        async def reconcile(self, ask: Ask) -> CloudState:
            del ask
            await asyncio.sleep(2.5)
            return ANSWER

    assert await Apart("rack", Slow).reconcile(ask) is ANSWER
    assert not told(caplog)


async def test_it_is_made_in_the_loop_that_its_passes_run_in(ask: Ask) -> None:
    """A session for HTTP, or a lock, is of one loop."""
    loops = []

    class Noting(Blocking):
        def __init__(self) -> None:
            super().__init__()
            loops.append(asyncio.get_running_loop())

        async def reconcile(self, ask: Ask) -> CloudState:
            del ask
            loops.append(asyncio.get_running_loop())
            return ANSWER

    rack = Apart("rack", Noting)
    assert await rack.reconcile(ask) is await rack.release(ask) is ANSWER
    assert len(loops) == 3
    assert len(set(loops)) == 1
    assert asyncio.get_running_loop() not in loops


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("shelf"), "a fault of the provider rack.*KeyError: 'shelf'"),
        (UnavailableError("the rack is away"), "provider rack: the rack is away"),
        (asyncio.CancelledError(), "a fault of the provider rack.*CancelledError"),
        (SystemExit(3), "a fault of the provider rack.*it asked the process to end"),
        (TimeoutError("its own"), "a fault of the provider rack.*TimeoutError: its own"),
    ],
)
async def test_its_faults_are_told_as_of_any_other_and_end_nothing(ask: Ask, error: BaseException, words: str) -> None:
    class Failing(Blocking):
        async def reconcile(self, ask: Ask) -> CloudState:
            if ask.bounds.minimum:
                raise error
            return ANSWER

    rack = Apart("rack", Failing)
    with pytest.raises(ProviderError, match=words):
        await answer(rack.reconcile, ask, WAIT_SECONDS)
    assert await rack.release(Ask(ask.pool, Bounds(0, 0), ask.cluster)) is ANSWER


async def test_a_pass_that_is_cut_is_cancelled_there_too(ask: Ask) -> None:
    cancelled = threading.Event()

    class Endless(Blocking):
        async def reconcile(self, ask: Ask) -> CloudState:
            del ask
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            return ANSWER

    with pytest.raises(TimeoutError):
        await answer(Apart("rack", Endless).reconcile, ask, 0.2)
    assert await asyncio.to_thread(cancelled.wait, WAIT_SECONDS)


async def test_one_that_is_never_made_is_given_up(blocking: Blocking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "LOAD_SECONDS", 1.0)

    def make() -> Blocking:
        blocking.released.wait(WAIT_SECONDS)
        return blocking

    with pytest.raises(
        UnavailableError, match=r"was not made within 1 s, and stands at test_apart.py, line \d+, in make"
    ):
        Apart("rack", make)


@pytest.mark.parametrize("error", [OSError("no key"), TimeoutError("its own")])
def test_what_is_wrong_with_its_making_is_told(error: Exception) -> None:
    def make() -> Blocking:
        raise error

    with pytest.raises(type(error), match=str(error)):
        Apart("never made", make)
    for thread in threading.enumerate():
        if thread.name == "provider never made":
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()
