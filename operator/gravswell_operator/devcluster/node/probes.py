"""Probes: one attempt of each kind, and the counting of thresholds."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from gravswell.errors import InvalidInputError

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What one attempt found. ``message`` is worded as a kubelet's."""

    success: bool
    message: str = ""


@dataclass(frozen=True)
class Target:
    """What a probe or hook is aimed at: a container of a pod."""

    container: Document
    address: str
    run: Callable[[list[str]], Awaitable[tuple[int, str]]]
    """Runs a command as an ``exec`` in the container would; returns its exit code and output."""


async def attempt(probe: Document, target: Target) -> Outcome:
    """Try ``probe`` once, within its ``timeoutSeconds``."""
    seconds = probe.get("timeoutSeconds", 1)
    try:
        async with asyncio.timeout(seconds):
            return await _attempt(probe, target)
    except TimeoutError:
        return Outcome(False, f"no answer within {seconds} s")


async def _attempt(probe: Document, target: Target) -> Outcome:
    if "httpGet" in probe:
        return await http_get(probe["httpGet"], target)
    if "tcpSocket" in probe:
        return await _tcp(probe["tcpSocket"], target)
    if "exec" in probe:
        code, output = await target.run(list(probe["exec"]["command"]))
        return Outcome(code == 0, "" if code == 0 else f"command exited with {code}: {output[-500:]}")
    if "grpc" in probe:
        return await _grpc(probe["grpc"], target)
    raise InvalidInputError(f"a probe by {', '.join(probe)} is not offered by the local node")


def port_of(reference: int | str, container: Document) -> int:
    """Return the port that ``reference``, a number or the name of a container's port, means."""
    if isinstance(reference, int) or reference.isdigit():
        return int(reference)
    for port in container.get("ports") or ():
        if port.get("name") == reference:
            return int(port["containerPort"])
    raise InvalidInputError(f"container {container['name']!r} has no port named {reference!r}")


async def http_get(action: Document, target: Target) -> Outcome:
    """GET as a kubelet does: any certificate is taken, redirects to elsewhere succeed, 200 to 399 is success."""
    scheme = action.get("scheme", "HTTP").lower()
    host = action.get("host") or target.address
    path = "/" + action.get("path", "/").lstrip("/")
    url = f"{scheme}://{host}:{port_of(action['port'], target.container)}{path}"
    headers = {"User-Agent": "kube-probe/gravswell", "Accept": "*/*"}
    headers |= {header["name"]: header["value"] for header in action.get("httpHeaders") or ()}
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # as a kubelet: a probe asks whether it serves, not who it is
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, force_close=True)) as session,
            session.get(url, headers=headers, allow_redirects=False) as answer,
        ):
            if 200 <= answer.status < 400:
                return Outcome(True)
            body = (await answer.content.read(300)).decode(errors="replace").strip()
            return Outcome(
                False, f"HTTP probe failed with statuscode: {answer.status}" + (f" ({body})" if body else "")
            )
    except aiohttp.ClientConnectorError as error:
        return Outcome(False, f"Get {url}: dial tcp: {error.os_error.strerror or error.os_error}")
    except (aiohttp.ClientError, OSError) as error:
        return Outcome(False, f"Get {url}: {error}")


async def _tcp(action: Document, target: Target) -> Outcome:
    host = action.get("host") or target.address
    port = port_of(action["port"], target.container)
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return Outcome(False, f"dial tcp {host}:{port}: {error}")
    writer.close()
    return Outcome(True)


async def _grpc(action: Document, target: Target) -> Outcome:
    import grpc.aio  # noqa: PLC0415  heavy, and most nodes never need it

    service = (action.get("service") or "").encode()
    request = b"\x0a" + bytes([len(service)]) + service if service else b""  # HealthCheckRequest: 1: string service
    where = f"{target.address}:{action['port']}"
    async with grpc.aio.insecure_channel(where) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", None, None)
        try:
            answer = await check(request)
        except grpc.aio.AioRpcError as error:
            return Outcome(False, f"grpc {where}: {error.code().name}: {error.details()}")
    serving = answer == b"\x08\x01"  # HealthCheckResponse: 1: enum status = SERVING
    return Outcome(serving, "" if serving else f"grpc {where}: not serving")


class Thresholds:
    """Counts outcomes in a row: ``update`` returns True or False when a threshold is reached, None before."""

    def __init__(self, probe: Document) -> None:
        self._needed = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
        self._last: bool | None = None
        self._count = 0

    def update(self, success: bool) -> bool | None:
        """Count one outcome."""
        self._count = self._count + 1 if success == self._last else 1
        self._last = success
        return success if self._count >= self._needed[success] else None
