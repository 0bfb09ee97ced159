"""What the agent asks and has done by a Triton some of whose HTTP threads answer nobody."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from gravswell.quiver.config import config_to_json, parse_config
from gravswell.serving.agent.triton import IndexEntry, TritonControl, TritonSilentError
from gravswell.serving.triton import EmbeddedTriton

from .running import KEY, until
from .versions import config_text, scaling_graph

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


PATIENT = """
import pathlib, time

class TritonPythonModel:
    def initialize(self, args):
        while not pathlib.Path({go!r}).exists():
            time.sleep(0.05)
"""
"""A model whose load ends when it is told to."""


def put(models: Path, name: str, file: str, content: bytes) -> None:
    (models / name / "1").mkdir(parents=True)
    (models / name / "1" / file).write_bytes(content)
    (models / name / "config.pbtxt").write_text(config_text(name, kind="KIND_CPU"))


async def test_what_is_loaded_beside_a_load_that_takes_long_is_loaded_at_once_and_once(
    triton: EmbeddedTriton, models: Path, tmp_path: Path
) -> None:
    """All come at the same time: what the thread of the long one was sent too would be carried out after that."""
    go, names = tmp_path / "go", [f"quick-{number}" for number in range(8)]
    put(models, "slow", "model.py", PATIENT.format(go=str(go)).encode())
    for name in names:
        put(models, name, "model.onnx", scaling_graph(2.0))

    def loads(name: str) -> int:
        return triton.process.log.read_text().count(f"loading: {name}:1")

    async with TritonControl(triton.http_address, key=KEY) as control:
        python = json.dumps({"name": "slow", "backend": "python"})
        slow = asyncio.create_task(control.load("slow", python))
        texts = {name: config_to_json(parse_config(config_text(name, kind="KIND_CPU"))) for name in names}
        await asyncio.gather(*(control.load(name, text) for name, text in texts.items()))
        await control.unload(names[0])
        assert not slow.done()
        go.touch()
        await slow
        await asyncio.sleep(1)  # for what its thread was sent meanwhile
        assert [loads(name) for name in names] == [1] * len(names)
        assert not await control.is_there(names[0])
        assert await control.is_there(names[1])


async def test_a_load_is_sent_to_a_thread_that_answers_only() -> None:
    """Here every connection is of a thread of its own, and those of the first two are held."""
    threads: list[object] = []
    sent: list[int] = []

    async def serve(request: web.Request) -> web.Response:
        if request.transport not in threads:
            threads.append(request.transport)
        number = threads.index(request.transport)
        if request.method == "POST":
            sent.append(number)
        if number < 2:
            await asyncio.Event().wait()
        return web.Response()

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with TritonControl(f"127.0.0.1:{runner.addresses[0][1]}") as triton:
            await triton.load("m", "{}")
            await triton.ask_unload("m")
        assert sent == [2, 3]
    finally:
        await runner.cleanup()
