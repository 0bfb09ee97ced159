"""What the agent asks a Triton some of whose HTTP threads answer nobody."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from gravswell.serving.agent.triton import IndexEntry, TritonControl, TritonSilentError

from .running import until

INDEX = "/v2/repository/index"


@asynccontextmanager
async def server(silent: Callable[[int], bool]) -> AsyncIterator[tuple[str, list[int]]]:
    """One that leaves the requests of some numbers without an answer, for which a real one wants two endless loads and
    luck; and the numbers of those that were broken off."""
    came, left = 0, []

    async def index(_: web.Request) -> web.Response:
        nonlocal came
        number, came = came, came + 1
        if silent(number):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                left.append(number)
                raise
        return web.json_response([{"name": "m", "version": "1", "state": "READY"}])

    runner = web.AppRunner(_routed(index), handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"127.0.0.1:{runner.addresses[0][1]}", left
    finally:
        await runner.cleanup()


def _routed(index: Callable[[web.Request], object]) -> web.Application:
    app = web.Application()
    app.router.add_post(INDEX, index)  # type: ignore[arg-type]
    return app


async def test_a_silent_thread_is_passed_by_on_another_connection() -> None:
    async with server(lambda number: number < 2) as (address, left), TritonControl(address) as triton:
        assert await triton.index() == [IndexEntry("m", 1, "READY", "")]
        await until(lambda: sorted(left) == [0, 1], "the requests that wait are given up")


async def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    async with server(lambda _: True) as (address, _), TritonControl(address) as triton:
        with pytest.raises(TritonSilentError, match=f"gave no answer to {INDEX} within 1.2 s"):
            await triton.index(limit=1.2)
