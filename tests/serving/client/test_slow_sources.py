"""Sources that stall: every call waits for them equally long, names the row that did not come, and leaves nothing.

Hours pass on the loop's clock alone: it is put forward once the source holds back and nothing else is to be had of it.
"""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gravswell.errors import InvalidInputError, UnavailableError
from gravswell.serving import AsyncClient, Client
from gravswell.serving.client import aio
from gravswell.serving.client.inbox import Inbox
from gravswell.serving.client.model import Model, Tensor
from gravswell.serving.client.run import TICK_SECONDS
from gravswell.serving.client.sources import Batches, Request
from gravswell.serving.client.wire import Packer
from gravswell.serving.triton import EmbeddedTriton

HOUR = 3600.0
X = np.arange(4 * 32, dtype=np.float32).reshape(32, 4)
GIVEN = 24
STALLED = rf"the source of the rows for model 'scale' stalled at row {GIVEN}: it gave nothing for 1800 s \(source_time"


class Held:
    """Gives 24 rows, and then no more until it is ``let_go``. Tells when it holds back, and when it was left."""

    def __init__(self) -> None:
        self.holds, self.let_go, self.left = threading.Event(), threading.Event(), threading.Event()

    def plain(self) -> Iterator[Any]:
        try:
            yield X[:16]
            yield X[16:GIVEN]
            self.holds.set()
            assert self.let_go.wait(120)
            yield X[GIVEN:]
            raise AssertionError("nobody wants more")
        finally:
            self.left.set()

    async def asynchronous(self) -> AsyncIterator[Any]:
        try:
            for batch in (X[:16], X[16:GIVEN]):
                yield batch
            self.holds.set()
            await asyncio.Event().wait()
        finally:
            self.left.set()


def pass_an_hour(loop: asyncio.AbstractEventLoop) -> None:
    """For all that ``loop`` waits for, and for good."""
    clock = loop.time
    loop.time = lambda: clock() + HOUR  # type: ignore[method-assign]


@pytest.fixture(params=["plain", "asynchronous"])
def source(request: pytest.FixtureRequest) -> Iterator[tuple[Held, Any]]:
    """One of a thread or of the loop; whichever it is, it and its thread have ended after the test."""
    before, held = set(threading.enumerate()), Held()
    yield held, getattr(held, request.param)()
    if request.param == "plain":
        assert not held.left.is_set(), "a thread ends when what it waits for comes"
        held.let_go.set()
    assert held.left.wait(120)
    for thread in set(threading.enumerate()) - before:
        if thread.name == "gravswell-source":
            thread.join(120)
            assert not thread.is_alive()


@pytest.mark.parametrize("call", ["infer", "stream"])
def test_blocking_calls_give_a_source_up_that_stalls(
    server: EmbeddedTriton, source: tuple[Held, Any], call: str
) -> None:
    rows = 0
    with Client(server.http_address, source_timeout=HOUR / 2) as client:

        def answered(count: int) -> None:
            nonlocal rows
            rows += count
            if rows == GIVEN:
                assert source[0].holds.wait(120)
                pass_an_hour(client._running())

        def asks() -> None:
            if call == "infer":
                client.infer("scale", source[1], batch_size=8, on_rows=answered)
            for part in client.stream("scale", source[1], batch_size=8):
                np.testing.assert_array_equal(part.outputs["y"], 2 * X[part.start : part.stop])
                answered(part.stop - part.start)

        with pytest.raises(UnavailableError, match=STALLED):
            asks()
        assert rows == GIVEN
        np.testing.assert_array_equal(client.infer("scale", X)["y"], 2 * X)  # it goes on with others


@pytest.mark.parametrize("call", ["infer", "stream"])
async def test_coroutines_give_a_source_up_that_stalls(
    server: EmbeddedTriton, source: tuple[Held, Any], call: str
) -> None:
    rows, before = 0, asyncio.all_tasks()

    def answered(count: int) -> None:
        nonlocal rows
        rows += count
        if rows == GIVEN:
            pass_an_hour(asyncio.get_running_loop())

    async def asks() -> None:
        if call == "infer":
            await client.infer("scale", source[1], batch_size=8, on_rows=answered)
        async for part in client.stream("scale", source[1], batch_size=8):
            np.testing.assert_array_equal(part.outputs["y"], 2 * X[part.start : part.stop])
            answered(part.stop - part.start)

    async with AsyncClient(server.http_address, source_timeout=HOUR / 2) as client:
        with pytest.raises(UnavailableError, match=STALLED):
            await asks()
        assert rows == GIVEN
        np.testing.assert_array_equal((await client.infer("scale", X))["y"], 2 * X)
    async with asyncio.timeout(120):
        while asyncio.all_tasks() - before - {asyncio.current_task()}:  # noqa: ASYNC110  tasks tell nobody
            await asyncio.sleep(0.01)


async def test_what_a_source_gave_is_answered_before_it_is_given_up(
    client_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stands still for that long, and then goes on."""
    monkeypatch.setattr(aio, "MODEL_SECONDS", inf)
    held = Held()
    with EmbeddedTriton(client_models, models=["scale"]) as server:
        async with AsyncClient(server.http_address, source_timeout=HOUR / 2, request_timeout=10 * HOUR) as client:
            await client.model("scale")

            def under_way() -> int:
                return sum(replica.busy for replica in client._replicas.all)

            os.killpg(server.process.pid, signal.SIGSTOP)
            try:
                parts = client.stream("scale", held.asynchronous(), batch_size=8)
                first = asyncio.ensure_future(anext(parts))
                async with asyncio.timeout(120):
                    while not held.holds.is_set() or under_way() < 3:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                pass_an_hour(asyncio.get_running_loop())
                await asyncio.sleep(5 * TICK_SECONDS)
            finally:
                os.killpg(server.process.pid, signal.SIGCONT)
            assert (await first).start == 0
            assert (await anext(parts)).start == 8
            assert (await anext(parts)).start == 16
            with pytest.raises(UnavailableError, match=STALLED):
                await anext(parts)
    assert await asyncio.to_thread(held.left.wait, 120)


class Clocked:
    """A source for a model of pairs of numbers whose clock stands where it is set."""

    def __init__(self, *, max_wait: float, timeout: float, batch: int = 4) -> None:
        self.now = 100.0
        self.inbox = Inbox(8, lambda: None, lambda: self.now)
        model = Model("m", ("1",), (Tensor("x", "FP32", (-1, 2)),), (), None)
        packer = Packer(model.datatypes(), None)
        self.batches = Batches(self.inbox, model, batch, packer, max_wait=max_wait, timeout=timeout)

    def at(self, now: float) -> Request | None:
        """What it has to send then, after a look whether it stalled."""
        self.now = now
        request = self.batches.next(now)
        if request is None:
            self.batches.check_waiting(now)
        return request

    def give(self, rows: int) -> None:
        self.inbox.put(np.zeros((rows, 2), np.float32))


def test_the_wait_begins_when_there_is_nothing_left_and_ends_with_each_batch() -> None:
    source = Clocked(max_wait=0, timeout=10)
    source.give(4)
    assert source.at(1000) is not None, "what is here was not waited for"
    assert source.at(1000) is None
    assert source.at(1009) is None
    source.give(4)
    assert source.at(1011) is not None
    assert source.at(1012) is None
    assert source.at(1021) is None
    with pytest.raises(UnavailableError, match=r"model 'm' stalled at row 8: it gave nothing for 10 s"):
        source.at(1022)


def test_a_source_that_never_gives_anything_stalls_at_row_0_and_one_that_ended_does_not() -> None:
    source = Clocked(max_wait=0, timeout=10)
    assert source.at(100) is None
    with pytest.raises(UnavailableError, match="stalled at row 0"):
        source.at(110)
    source.inbox.end()
    assert source.at(200) is None
    assert source.batches.ended


def test_rows_that_wait_for_others_go_before_their_source_is_given_up() -> None:
    source = Clocked(max_wait=inf, timeout=10)
    source.give(3)
    assert source.at(101) is None
    request = source.at(111)
    assert request is not None
    assert (request.start, request.stop) == (0, 3)
    with pytest.raises(UnavailableError, match="stalled at row 3"):
        source.at(111)


def test_without_a_bound_a_source_may_be_silent_for_as_long_as_it_takes() -> None:
    source = Clocked(max_wait=0, timeout=inf)
    assert source.at(0) is None
    assert source.at(1e12) is None
    source.give(1)
    assert source.at(1e12) is not None


@pytest.mark.parametrize("seconds", [0, -1, "60", float("nan")])
def test_seconds_that_cannot_be_right(seconds: Any) -> None:
    with pytest.raises(InvalidInputError, match="source_timeout is a number of seconds above 0, or None, and not"):
        Client("127.0.0.1:9", source_timeout=seconds)
