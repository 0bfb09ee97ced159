"""Sources that come batch by batch: order, slow ones, and how far ahead of the answers they are read."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from gravswell.errors import InvalidInputError
from gravswell.serving import AsyncClient, Client
from gravswell.serving.triton import EmbeddedTriton

X = np.arange(4 * 1003, dtype=np.float32).reshape(1003, 4)


def batches(*sizes: int, rows: Any = X, named: bool = False) -> Iterator[Any]:
    start, k = 0, 0
    while start < len(rows):
        batch = rows[start : start + sizes[k % len(sizes)]]
        yield {"x": batch} if named else batch
        start, k = start + len(batch), k + 1


async def later(source: Iterator[Any]) -> AsyncIterator[Any]:
    for item in source:
        await asyncio.sleep(0)
        yield item


SOURCES: list[Callable[[], Any]] = [
    lambda: batches(8),
    lambda: batches(1, 20, 3, named=True),
    lambda: list(batches(100, named=True)),
    lambda: iter(X[:, None]),
    lambda: later(batches(5, 0, 11)),
    lambda: X,
    lambda: {"x": X.tolist()},
]


@pytest.mark.parametrize("source", SOURCES)
async def test_parts_come_in_the_order_of_the_rows(client: AsyncClient, source: Callable[[], Any]) -> None:
    parts = [part async for part in client.stream("scale", source(), batch_size=8, max_wait=60)]
    assert [(part.start, part.stop) for part in parts] == [(k, min(k + 8, 1003)) for k in range(0, 1003, 8)]
    assert {part.version for part in parts} == {"1"}
    np.testing.assert_array_equal(np.concatenate([part.outputs["y"] for part in parts]), 2 * X)


async def test_infer_takes_sources_too(client: AsyncClient) -> None:
    counted: list[int] = []
    outputs = await client.infer("scale", batches(7), on_rows=counted.append)
    np.testing.assert_array_equal(outputs["y"], 2 * X)
    assert sum(counted) == len(X)
    with pytest.raises(InvalidInputError, match="no rows"):
        await client.infer("scale", iter(()))


def test_rows_of_a_slow_source_do_not_wait_for_more(server: EmbeddedTriton) -> None:
    """The source gives the next rows only when those before were answered."""
    answered = threading.Semaphore(1)

    def source() -> Iterator[Any]:
        for batch in batches(3, rows=X[:12]):
            assert answered.acquire(timeout=60)
            yield batch

    with Client(server.http_address) as client:
        parts = []
        for part in client.stream("scale", source(), batch_size=8, max_wait=0.05):
            parts.append((part.start, part.stop))
            answered.release()
    assert parts == [(0, 3), (3, 6), (6, 9), (9, 12)]


@pytest.mark.parametrize("in_flight", [1, 4])
def test_a_source_is_read_a_little_ahead_of_the_answers_that_were_taken(server: EmbeddedTriton, in_flight: int) -> None:
    """Requests under way and answered, those that wait to be sent, and the one that its maker holds in its hand."""
    made = 0

    def endless() -> Iterator[Any]:
        nonlocal made
        while True:
            made += 1
            yield X[:8]

    window = 2 * in_flight
    with Client(server.http_address, in_flight=in_flight) as client:
        stream = client.stream("scale", endless(), batch_size=8)
        for taken, _ in enumerate(stream, 1):
            # ready parts are handed over together: what the generator holds was taken from the window
            assert made - taken <= 2 * window + window + 2
            if taken == 300:
                break
        stream.close()
        with Client(server.http_address, in_flight=in_flight, max_bytes=1) as poor:
            assert len(list(poor.stream("scale", batches(8), batch_size=8))) == 126


async def test_leaving_early_ends_the_source(client: AsyncClient) -> None:
    ended = asyncio.Event()

    async def source() -> AsyncIterator[Any]:
        try:
            while True:
                yield X
        finally:
            ended.set()

    async with aclosing(client.stream("scale", source(), batch_size=8)) as parts:
        async for part in parts:
            assert part.start == 0
            break
    async with asyncio.timeout(60):
        await ended.wait()


async def test_what_the_source_raises_comes_as_it_is(client: AsyncClient) -> None:
    def torn() -> Iterator[Any]:
        yield X[:8]
        raise OSError("the disk")

    for source in (torn(), later(torn())):
        with pytest.raises(OSError, match="the disk"):
            async for _ in client.stream("scale", source, batch_size=8):
                pass


async def test_a_batch_that_is_wrong_is_named_by_its_rows(client: AsyncClient) -> None:
    with pytest.raises(InvalidInputError, match=r"the batch from row 8 on: input 'x' .* \[8, 3\]"):
        await client.infer("scale", iter([X[:8], X[:8, :3]]), batch_size=8)
    with pytest.raises(InvalidInputError, match=r"rows 2 to 2 are 1, and model 'pairs' takes exactly 2"):
        await client.infer("pairs", iter([X[:3]]), batch_size=2)
    with pytest.raises(InvalidInputError, match="max_wait"):
        async for _ in client.stream("scale", X, max_wait=-1):
            pass
