"""A server on loopback that shows the faults that a real API server cannot be made to show."""

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from gravswell.kube import backoff, client
from gravswell.kube.client import Client
from gravswell.kube.credentials import Account, Endpoint

Handler = Callable[[web.Request], web.Response | Awaitable[web.StreamResponse]]


class Server:
    """Answers with ``handler``; without one, with what is in ``answers``, in turn.

    An answer is a response, or a list: the lines of a watch, objects or raw bytes, after which it ends. With None at
    its end the connection is cut instead.
    """

    def __init__(self) -> None:
        self.handler: Handler | None = None
        self.answers: list[Any] = []
        self.asked: list[web.Request] = []
        self.host = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.asked.append(request)
        answer = self.handler(request) if self.handler else self.answers.pop(0)
        if isinstance(answer, list):
            return await self.stream(request, answer)
        return answer if isinstance(answer, web.Response) else await answer

    async def stream(self, request: web.Request, lines: list[Any]) -> web.StreamResponse:
        """Answer with the lines of a watch."""
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for line in lines:
            if line is None:
                assert request.transport is not None
                request.transport.close()
            else:
                await response.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        return response

    def queries(self, *names: str) -> list[tuple[str | None, ...]]:
        """These parameters of each request so far."""
        return [tuple(request.query.get(name) for name in names) for request in self.asked]


@asynccontextmanager
async def serving(server: Server, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """``host:port`` at which ``server`` answers."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    host, port = runner.addresses[0]
    yield f"{host}:{port}"
    await runner.cleanup()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    async with serving(made) as address:
        made.host = f"http://{address}"
        yield made


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Client]:
    """A client of ``server``."""
    async with Client(Account(Endpoint(server.host)), name="tester") as made:
        yield made


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client wanted to wait; it does not."""
    told: list[float] = []

    class Told(backoff.Backoff):
        def failed(self, error: Exception | None = None) -> float:
            told.append(super().failed(error))
            return 0.0

    monkeypatch.setattr(client, "Backoff", Told)
    return told


def item(name: str, version: int = 1, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, **fields}


def page(*items: dict[str, Any], version: int = 7, more: str = "") -> web.Response:
    return web.json_response({"metadata": {"resourceVersion": str(version), "continue": more}, "items": list(items)})


def status(code: int, **headers: str) -> web.Response:
    body = {"kind": "Status", "code": code, "message": "the API server's own words"}
    return web.json_response(body, status=code, headers={k.replace("_", "-"): v for k, v in headers.items()})


def event(kind: str, thing: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": thing}
