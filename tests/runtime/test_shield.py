"""What kopf is told of a fault: a watch lists anew, a list begins anew, and neither does so at once."""

import aiohttp
import orjson
import pytest
from aiohttp import web

from gravswell.kube import backoff
from gravswell.kube.backoff import Backoff
from gravswell_operator.handlers import shield

EVENT = b'{"type":"ADDED","object":{"metadata":{"resourceVersion":"7"}}}\n'
ERROR = b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcdserver: no leader"}}\n'
PAUSE = 1.5


@pytest.fixture
async def asked(monkeypatch):
    """``asked(status, body, watch)``: the status and the body that kopf gets of such an answer; and all waits."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(shield.asyncio, "sleep", sleep)
    monkeypatch.setattr(Backoff, "failed", lambda *_: PAUSE)
    monkeypatch.setattr(backoff, "SHORT_WATCH_SECONDS", 0.0)
    answers = []

    async def answer(_: web.Request) -> web.Response:
        status, body = answers.pop()
        return web.Response(status=status, body=body)

    application = web.Application()
    application.router.add_get("/models", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession(middlewares=[shield.Shield()]) as session:

        async def ask(status: int, body: bytes = b"", *, watch: bool = True) -> tuple[int, bytes]:
            answers.append((status, body))
            url = f"http://127.0.0.1:{port}/models" + ("?watch=true" if watch else "")
            async with session.get(url) as response:
                if not watch:
                    return response.status, await response.read()
                return response.status, b"".join([chunk async for chunk in response.content.iter_chunked(2**20)])

        yield ask, waits
    await runner.cleanup()


async def test_what_is_no_fault_passes_as_it_is(asked):
    ask, waits = asked
    assert await ask(200, EVENT * 2) == (200, EVENT * 2)
    assert await ask(200, b"{}", watch=False) == (200, b"{}")
    assert not waits


async def test_a_watch_that_ends_at_once_is_not_opened_again_at_once(asked, monkeypatch):
    """kopf itself makes no pause."""
    monkeypatch.setattr(backoff, "SHORT_WATCH_SECONDS", 60.0)
    ask, waits = asked
    for body in (b"", EVENT):
        assert await ask(200, body) == (200, body)
    assert waits == [PAUSE, PAUSE]


@pytest.mark.parametrize("status", [410, 500, 503, 429, 403, 404])
async def test_a_watch_that_is_refused_looks_forgotten(asked, status):
    ask, waits = asked
    answered, body = await ask(status, b'{"message": "no"}')
    assert (answered, orjson.loads(body)["object"]["code"]) == (200, 410)
    assert waits == [PAUSE]


@pytest.mark.parametrize("status", [410, 500, 503, 429, 403, 404])
async def test_a_list_that_is_refused_looks_broken(asked, status):
    ask, waits = asked
    with pytest.raises(aiohttp.ClientPayloadError, match="list of /models: no"):
        await ask(status, b'{"message": "no"}', watch=False)
    assert waits == [PAUSE]


async def test_credentials_are_kopfs_own_to_mend(asked):
    ask, waits = asked
    with pytest.raises(aiohttp.ClientPayloadError):
        await ask(403, watch=False)
    waits.clear()
    assert (await ask(401, watch=False))[0] == 401
    assert not waits


async def test_an_error_in_a_watch_looks_forgotten(asked):
    ask, waits = asked
    _, body = await ask(200, EVENT + ERROR + EVENT)
    first, last = body.splitlines()
    assert first + b"\n" == EVENT
    assert orjson.loads(last)["object"]["code"] == 410
    assert waits == [PAUSE]


@pytest.mark.parametrize("torn", [EVENT[:20], b"null\n", b'{"type":"ERROR"}\n', b"<html>\n"])
async def test_what_is_no_event_looks_broken(asked, torn):
    ask, waits = asked
    with pytest.raises(aiohttp.ClientPayloadError, match=r"^watch of /models: (?!watch)"):
        await ask(200, EVENT + torn)
    assert waits == [PAUSE]
