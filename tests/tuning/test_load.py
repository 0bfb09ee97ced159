"""The load, on a server that answers as slowly as it is told."""

import asyncio

import pytest

from gravswell.errors import InvalidInputError, UnavailableError
from gravswell.tuning.load import Load, drive

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def _serving(answer: bytes, delay: float) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            await asyncio.sleep(delay)
            writer.write(answer)
            if not answer:
                break
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def _drive(
    answer: bytes, delay: float, *, concurrency: int = 2, seconds: float = 0.3, warm_up: float = 0.05
) -> Load:
    async with await _serving(answer, delay) as server:
        host, port = server.sockets[0].getsockname()
        return await drive(f"{host}:{port}", b"x", concurrency=concurrency, seconds=seconds, warm_up=warm_up)


async def test_every_request_of_the_measured_time_counts() -> None:
    load = await _drive(OK, 0.01, seconds=1.0)
    assert load.answered > 0
    assert abs(load.answered - len(load.latencies)) <= 2  # what was under way at the beginning, and at the end
    assert load.seconds == 1.0
    assert min(load.latencies) >= 0.01
    assert load.percentile(50) in load.latencies
    assert load.percentile(100) == max(load.latencies)


async def test_a_model_slower_than_the_measured_time_is_measured_all_the_same() -> None:
    load = await _drive(OK, 0.5, seconds=0.1, warm_up=0.3)  # both ask before that is over, however busy it is
    assert len(load.latencies) == 2  # one of each client
    assert load.answered == 4  # and one that was under way when the time began: both took from it
    assert load.seconds >= 0.5


async def test_what_the_server_says_is_told() -> None:
    with pytest.raises(InvalidInputError, match="Triton refused the request: no such input"):
        await _drive(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 13\r\n\r\nno such input", 0)


async def test_a_server_that_hangs_up_is_told() -> None:
    with pytest.raises(UnavailableError, match="broke off"):
        await _drive(b"", 0)


async def test_a_server_that_is_not_there_is_told() -> None:
    async with await _serving(OK, 0) as server:
        _, port = server.sockets[0].getsockname()
    with pytest.raises(UnavailableError, match="takes no connection"):
        await drive(f"127.0.0.1:{port}", b"x", concurrency=1, seconds=0.1, warm_up=0)
