"""A way to the API server whose answers tests spoil: HTTP over TLS, with the API server's own certificate.

What a test does not spoil goes through as it is, so what comes back is the real API server's.
"""

import asyncio
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import aiohttp
import yaml
from aiohttp import web

from gravswell_operator.devcluster import ControlPlane

START_SECONDS = 30
_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Asked:
    """One request, as the API server's own log has it."""

    verb: str
    plural: str
    namespace: str
    name: str
    below: str
    """The subresource."""

    @property
    def writes(self) -> bool:
        return self.verb in _VERBS.values()

    def __str__(self) -> str:
        place = "/".join(part for part in (self.namespace, self.plural, self.name, self.below) if part)
        return f"{self.verb} {place}"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request, after ``seconds``.

    ``status``: it is answered so, and the API server never hears of it. ``cut``: the connection breaks, ``before`` the
    API server hears of it or ``after`` it has done it. ``event``: a watch begins with this event, and ends. ``ends``: a
    watch ends so many seconds later, as the API server ends it; ``torn``, in the middle of an event. With none of
    them it is only slow.
    """

    seconds: float = 0.0
    status: int = 0
    reason: str = ""
    retry_after: int | None = None
    cut: str = ""
    event: dict[str, object] | None = None
    ends: int | None = None
    torn: bool = False


def failure(code: int, reason: str, message: str) -> dict[str, object]:
    """A ``Status``, as the API server refuses."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }


def gone(*, as_event: bool) -> Fault:
    """410, in place of the watch or as its first event."""
    if as_event:
        told = failure(410, "Expired", "too old resource version: 1 (2)")
        return Fault(event={"type": "ERROR", "object": told})
    return Fault(status=410, reason="Expired")


@dataclass
class Seen:
    """A request that came, when, and with which fault."""

    asked: Asked
    at: float
    fault: Fault | None
    version: str = ""
    """The resource version that a watch goes on from."""
    status: int = 0
    errors: list[int] = field(default_factory=list)
    """The codes of the events ERROR that the API server itself sent in this watch."""


class Proxy:
    """A context manager. ``spoil`` is asked for each request; ``kubeconfig(path)`` makes one that comes this way."""

    def __init__(self, cluster: ControlPlane) -> None:
        self._cluster = cluster
        self.spoil: Callable[[Asked], Fault | None] = lambda _: None
        self.seen: list[Seen] = []
        self.address = ""
        self._held = threading.Event()
        self._open: dict[int, web.Request] = {}
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(START_SECONDS), "the proxy does not start"
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS)
        assert not self._thread.is_alive()

    def kubeconfig(self, original: Path, copy: Path) -> Path:
        """``original``, by this way, at ``copy``."""
        body = yaml.safe_load(original.read_text())
        body["clusters"][0]["cluster"]["server"] = f"https://{self.address}"
        copy.write_text(yaml.safe_dump(body))
        return copy

    def mend(self) -> None:
        """Let everything through from now on."""
        self.spoil = lambda _: None

    def hold(self) -> None:
        """Cut every connection that is open, and keep what comes waiting until :meth:`release`."""
        self._held.set()
        cut = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (self._cut_all(), cut.set()))
        assert cut.wait(START_SECONDS), "the proxy does not answer"

    def release(self) -> None:
        self._held.clear()

    def counts(self, since: float = 0.0, until: float = float("inf")) -> Counter[str]:
        """How often each request came."""
        return Counter(str(seen.asked) for seen in list(self.seen) if since <= seen.at < until)

    def _cut_all(self) -> None:
        for request in self._open.values():
            _abort(request)

    def _run(self) -> None:
        try:
            with self._runner:  # which ends what is left: whoever answers on a connection that was cut knows nothing
                self._runner.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._ready.set()
            raise

    async def _serve(self) -> None:
        pki = self._cluster.pki
        serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        serving.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
        onward = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        application = web.Application(client_max_size=2**26)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=onward, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        ) as self._session:
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=serving)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.address = f"{host}:{port}"
            self._ready.set()
            await self._stop.wait()
            self._cut_all()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self._open[id(request)] = request
        try:
            return await self._answer(request)
        finally:
            del self._open[id(request)]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = _asked(request)
        fault = self.spoil(asked)
        seen = Seen(asked, time.monotonic(), fault, request.query.get("resourceVersion", ""))
        self.seen.append(seen)
        fault = fault or Fault()
        while self._held.is_set():  # noqa: ASYNC110  set by another thread
            await asyncio.sleep(0.02)
        await asyncio.sleep(fault.seconds)
        if fault.cut == "before":
            return _abort(request)
        if fault.status:
            headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            said = failure(fault.status, fault.reason, f"spoiled by the test: {fault.reason or fault.status}")
            seen.status = fault.status
            return web.json_response(said, status=fault.status, headers=headers)
        if fault.event is not None:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            response.enable_chunked_encoding()
            await response.prepare(request)
            await response.write(json.dumps(fault.event).encode() + b"\n")
            return response
        return await self._forward(request, seen, fault)

    async def _forward(self, request: web.Request, seen: Seen, fault: Fault) -> web.StreamResponse:
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP}
        query = request.query.copy()
        watch = seen.asked.verb == "watch"
        if watch:
            headers["Accept-Encoding"] = "identity"
            if fault.ends is not None:
                query["timeoutSeconds"] = str(fault.ends)
        url = self._cluster.server_url + request.path
        try:
            async with self._session.request(
                request.method,
                url,
                params=query,
                headers=headers,
                data=await request.read() or None,
                allow_redirects=False,
            ) as answer:
                seen.status = answer.status
                kept = {key: value for key, value in answer.headers.items() if key.lower() not in _HOP}
                response = web.StreamResponse(status=answer.status, headers=kept)
                if not watch:
                    body = await answer.read()
                    if fault.cut == "after":
                        return _abort(request)
                    return web.Response(status=answer.status, headers=kept, body=body)
                response.enable_chunked_encoding()
                await response.prepare(request)
                async for line in _lines(answer.content):
                    if b'"type":"ERROR"' in line[:40]:
                        seen.errors.append(int(json.loads(line)["object"].get("code", 0)))
                    if fault.torn:
                        await response.write(line[: len(line) // 2])
                        return response
                    if fault.cut == "after":
                        return _abort(request)
                    await response.write(line)
                return response
        except (aiohttp.ClientError, ConnectionError):  # the API server, or the operator, went away
            return _abort(request)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in content.iter_any():
        *ends, rest = (rest + chunk).split(b"\n")
        for end in ends:
            yield end + b"\n"
    if rest:
        yield rest


def _abort(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _asked(request: web.Request) -> Asked:
    parts = urlsplit(request.path).path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if len(parts) > 2 and parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    plural, name, below = (*parts, "", "", "")[:3]
    verb = _VERBS.get(request.method, "")
    if not verb:
        verb = "watch" if request.query.get("watch") == "true" else "get" if name else "list"
    return Asked(verb, plural, namespace, name, below)
