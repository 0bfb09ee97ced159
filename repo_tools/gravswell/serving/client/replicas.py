"""The replicas of a server: where they are, which of them can be asked now, and connections to them.

Its law: it knows no request. A replica that failed is left alone for a while, twice as long each time, and then tried
with one request before it gets its share again. Names are resolved again from time to time, so that replicas that were
added get traffic, and those that went get none.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Protocol
from urllib.parse import urlsplit

from gravswell import addresses
from gravswell.errors import InvalidInputError
from gravswell.serving.client.connection import RECEIVE_BYTES, Connection

CONNECT_SECONDS = 10.0

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds that a replica is left alone after its first failure, and at most."""

RESOLVE_SECONDS = 10.0
"""How often names are resolved again while there is something to send."""

LONGEST_LIFE = 5.0
"""Seconds after which a connection is not used again. A Triton that is stopped answers on those that are open and waits
for them, and accepts no others: that is how its clients learn of it."""

DEFAULT_PORT = 8000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server as its user names it."""

    host: str
    port: int
    tls: bool
    prefix: str
    """Path before ``/v2``, without a slash at its end."""

    @classmethod
    def parse(cls, server: str) -> "Endpoint":
        """From ``host``, ``host:port`` (HTTP, 8000 by default), ``http://…`` or ``https://…``."""
        scheme, separator, rest = server.partition("://")
        if not separator:
            scheme, rest = "http", server
        told = f"{server!r} is no server: write host:port of its HTTP, as triton:8000, or an http:// or https:// URL"
        if scheme not in {"http", "https"} or not rest:
            raise InvalidInputError(told)
        try:
            url = urlsplit(f"//{rest}")
            host, port = url.hostname, url.port
        except ValueError as error:
            raise InvalidInputError(f"{told} ({error})") from None
        if not host or url.username or url.query or url.fragment or any(c.isspace() for c in server):
            raise InvalidInputError(told)
        standard = {"http": 80, "https": 443}[scheme] if separator else DEFAULT_PORT
        return cls(host, port if port is not None else standard, scheme == "https", url.path.rstrip("/"))


class Replica:
    """One address of a server."""

    def __init__(self, endpoint: Endpoint, ip: str, context: ssl.SSLContext | None, buffer: memoryview) -> None:
        self.endpoint = endpoint
        self.ip = ip
        self.address = addresses.join(ip, endpoint.port)
        self.busy = 0
        """Requests under way."""
        self.answers = 0
        """Requests that it has answered."""
        self.gone = False
        """Whether its name has it no more."""
        self.down_until = 0.0
        """The loop's time until which it is left alone."""
        self._failures = 0
        self._idle: list[Connection] = []
        self._context = context
        self._buffer = buffer

    def room(self, in_flight: int, now: float) -> int:
        """How many more requests it takes now: of one that failed last, nobody knows whether it is back."""
        if self.gone or now < self.down_until:
            return 0
        return (1 if self._failures else in_flight) - self.busy

    def worked(self) -> None:
        """It answered."""
        self.answers += 1
        self._failures = 0

    def failed(self, now: float) -> None:
        """It did not answer: leave it alone for a while. What fails together counts once."""
        self.close_idle()
        if now < self.down_until:
            return
        self.down_until = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._failures)
        self._failures = min(self._failures + 1, 16)

    def idle(self) -> Connection | None:
        """An open connection that nobody uses, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        return None

    async def open(self) -> Connection:
        """Another connection. OSError (of which TLS's are, too) where that fails or takes too long."""
        loop, name = asyncio.get_running_loop(), self.endpoint.host if self._context else None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._buffer),
                    self.ip,
                    self.endpoint.port,
                    ssl=self._context,
                    server_hostname=name,
                )
        except TimeoutError:
            raise TimeoutError(f"no connection within {CONNECT_SECONDS:.0f} s") from None
        return connection

    def release(self, connection: Connection, now: float) -> None:
        """Keep a connection for the next request, or close it where there will be none."""
        if connection.reusable and not self.gone and not self._failures and now - connection.opened_at < LONGEST_LIFE:
            self._idle.append(connection)
        else:
            connection.close()

    def close_idle(self, opened_before: float = inf) -> None:
        """Close the connections that nobody uses, or those of them that were opened before that."""
        idle, self._idle = self._idle, []
        for connection in idle:
            if connection.opened_at < opened_before:
                connection.close()
            else:
                self._idle.append(connection)


class Call(Protocol):
    """Who sends requests."""

    def pump(self) -> bool:
        """Send what there is room for; True where there is more, and it waits again."""


class Replicas:
    """All replicas of all the endpoints."""

    def __init__(self, endpoints: Iterable[Endpoint], context: ssl.SSLContext | None) -> None:
        self.endpoints = list(dict.fromkeys(endpoints))
        self._context = context or (ssl.create_default_context() if any(e.tls for e in self.endpoints) else None)
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._known: dict[tuple[Endpoint, str], Replica] = {}
        self._waiting: dict[Call, None] = {}
        self._resolved_at: float | None = None
        self._resolving: asyncio.Task[None] | None = None
        self.problem = ""
        """Why a name could not be resolved, the last time that one could not."""

    @property
    def all(self) -> list[Replica]:
        """Those that there are now."""
        return list(self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    def choose(self, in_flight: int, now: float) -> Replica | None:
        """The one with the fewest requests under way of those that take another; None where none does.

        Whoever answers faster has fewer under way, and so gets more.
        """
        best, fewest = None, 0
        for replica in self._known.values():
            if replica.room(in_flight, now) > 0 and (best is None or replica.busy < fewest):
                best, fewest = replica, replica.busy
        return best

    def wait(self, call: Call) -> None:
        """Let ``call`` have a turn when it has waited longest; it keeps its place where it waits already."""
        self._waiting[call] = None

    def leave(self, call: Call) -> None:
        """It waits no more."""
        self._waiting.pop(call, None)

    def turn(self) -> None:
        """Something was answered, so there is room: calls that share these replicas take it by turns."""
        while self._waiting:
            call = next(iter(self._waiting))
            del self._waiting[call]
            if call.pump():
                return

    async def ensure_resolved(self, now: float) -> None:
        """Resolve for the first time, or again where that was long ago."""
        if self._resolved_at is None or now - self._resolved_at >= RESOLVE_SECONDS:
            await self._resolve(now)

    def refresh(self, now: float, changed: Callable[[], object], *, soon: bool = False) -> None:
        """Resolve again in the background where that is due (``soon``: a second after the last time)."""
        waited = RESOLVE_SECONDS if self._resolved_at is None else now - self._resolved_at
        if self._resolving is not None or waited < (1.0 if soon else RESOLVE_SECONDS):
            return
        self._resolving = asyncio.get_running_loop().create_task(self._resolve(now))

        def done(_: object) -> None:
            self._resolving = None
            changed()

        self._resolving.add_done_callback(done)

    def tidy(self) -> None:
        """Close the connections that are idle and old: nobody may come for a long time."""
        for replica in self._known.values():
            replica.close_idle(asyncio.get_running_loop().time() - LONGEST_LIFE)

    async def close(self) -> None:
        """Close every idle connection, and stop resolving."""
        if self._resolving is not None:
            self._resolving.cancel()
            with suppress(asyncio.CancelledError):
                await self._resolving
        for replica in self._known.values():
            replica.gone = True
            replica.close_idle()
        self._known, self._resolved_at = {}, None

    async def _resolve(self, now: float) -> None:
        self._resolved_at = now
        found: dict[tuple[Endpoint, str], Replica] = {}
        for endpoint in self.endpoints:
            try:
                ips = await _addresses(endpoint)
            except (OSError, UnicodeError) as error:
                self.problem = f"{endpoint.host} cannot be resolved: {error}"
                ips = [ip for known, ip in self._known if known == endpoint]  # a resolver that is away changes nothing
            for ip in ips:
                key = (endpoint, ip)
                context = self._context if endpoint.tls else None
                found[key] = self._known.get(key) or Replica(endpoint, ip, context, self._buffer)
        for key, replica in self._known.items():
            if key not in found:
                replica.gone = True
                replica.close_idle()
        self._known = found


async def _addresses(endpoint: Endpoint) -> list[str]:
    loop = asyncio.get_running_loop()
    rows = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    # Where a name has both families, the pods are the same: its IPv6 addresses would count them twice.
    ips = [str(row[4][0]) for row in rows if row[0] == socket.AF_INET] or [str(row[4][0]) for row in rows]
    return list(dict.fromkeys(ips))


def header_lines(endpoint: Endpoint, headers: Mapping[str, str]) -> bytes:
    """``Host`` and the user's own ``headers``, as lines of a request. InvalidInputError for what is no header."""
    default = 443 if endpoint.tls else 80
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    lines = {"Host": host if endpoint.port == default else addresses.join(endpoint.host, endpoint.port), **headers}
    for name, value in lines.items():
        text = f"{name}{value}"
        if not name or not text.isascii() or not text.isprintable() or any(c in name for c in " :"):
            raise InvalidInputError(f"header {name!r} cannot be sent: a name and its value are printable ASCII")
    return "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode()
