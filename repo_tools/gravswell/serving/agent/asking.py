"""Requests to Triton's HTTP API, whose threads carry loads out themselves: some may not answer for an hour.

Every request uses a connection that ends with it: Triton's stop waits for open HTTP connections, and an idle keep-alive
connection of the agent would hold it up until its exit time-out.
"""

import asyncio
import json
import re
import time
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import aiohttp

from gravswell import addresses
from gravswell.errors import GravswellError, UnavailableError
from gravswell.names import MEMBER_PREFIX
from gravswell.serving.triton.flags import key_headers
from gravswell.serving.triton.reasons import without_traceback

QUICK_SECONDS = 15.0
"""Limit of requests that only ask; a Triton that needs longer counts as not answering."""

ASK_AGAIN_SECONDS = 0.5
"""After which what only asks is asked again on another connection, and each time after twice as long."""

SENT_SECONDS = 0.2
"""After which a request is on its way, on a connection that is there already."""

LIVE = "/v2/health/live"

_MEMBER = re.compile(rf"{MEMBER_PREFIX}(\S+?)-[0-9a-f]{{32}}")
"""A member's name, and the entry's in it."""


class TritonUnavailableError(UnavailableError):
    """Triton does not answer: not started, restarting, or stuck."""


class TritonSilentError(TritonUnavailableError):
    """Triton took the connection and gave no answer in time: very busy, or stuck."""


class TritonRefusedError(GravswellError):
    """Triton answered with an error; the message is Triton's own."""


class TritonBusyError(UnavailableError):
    """An inference got no answer in time: Triton is slow or its queue is full, which proves nothing."""


class TritonHttp:
    """The HTTP API of one Triton, at ``http_address`` (``host:port``). An async context manager.

    ``key`` opens the model-control API of a Triton that closes it.
    """

    def __init__(self, http_address: str, *, key: str | None = None) -> None:
        self._url = f"http://{addresses.join(*addresses.split(http_address))}"
        self._headers = key_headers(key)[0] if key else {}
        self._session: aiohttp.ClientSession | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._session = _session(aiohttp.TCPConnector(force_close=True, limit=0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, method: str, path: str, *, limit: float = QUICK_SECONDS) -> Any:
        """The first answer to what may be asked any number of times.

        Triton's HTTP threads carry loads out themselves: with two loads that never end every fourth connection waits
        for ever, and nothing tells which.
        """
        asked: set[asyncio.Task[Any]] = set()
        pause = ASK_AGAIN_SECONDS
        try:
            async with asyncio.timeout(limit):
                while True:
                    asked.add(asyncio.create_task(self._json(method, path, limit=limit)))
                    done, _ = await asyncio.wait(asked, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                    if done:
                        return done.pop().result()
                    pause *= 2
        except TimeoutError:
            raise self._silent(path, limit) from None
        finally:
            await _given_up(asked)

    async def order(self, path: str, payload: Any, *, limit: float = QUICK_SECONDS) -> None:
        """Have something done at once or never.

        Triton's HTTP threads carry loads out themselves, and what came to one meanwhile after that: it may be an hour
        later, given up long ago, and bring back a version that nobody wants. So it is sent to a thread that has just
        answered, and one request after the other.
        """
        async with AsyncExitStack() as stack:
            async with self._turn:
                session = await stack.enter_async_context(await self._answering())
                request = asyncio.create_task(self._json("POST", path, payload=payload, limit=limit, session=session))
                stack.push_async_callback(_given_up, {request})
                await asyncio.wait({request}, timeout=SENT_SECONDS)
            await request

    async def send(
        self,
        method: str,
        path: str,
        *,
        limit: float,
        payload: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> tuple[bytes, Mapping[str, str]]:
        """Body and headers of the one answer to a request that is sent once. Raises TimeoutError after ``limit``."""
        session = session or self._session
        if session is None:
            raise RuntimeError("it is used outside its context")
        try:
            async with (
                asyncio.timeout(limit),
                session.request(
                    method, self._url + path, json=payload, data=data, headers={**self._headers, **(headers or {})}
                ) as response,
            ):
                body = await response.read()
        except (aiohttp.ClientError, ConnectionError) as error:
            raise TritonUnavailableError(f"Triton at {self._url} does not answer: {error}") from None
        if response.status in (429, 503):
            raise TritonBusyError(f"Triton at {self._url} has no room for the request: {_message(body)}")
        if response.status != 200:
            raise TritonRefusedError(_message(body) or f"HTTP status {response.status} for {path}")
        return body, response.headers

    async def _answering(self) -> aiohttp.ClientSession:
        """A session of one connection, whose thread in Triton has just answered on it."""
        pause, until = ASK_AGAIN_SECONDS, time.monotonic() + QUICK_SECONDS
        while True:
            session = _session(aiohttp.TCPConnector(limit=1))
            try:
                await self.send("GET", LIVE, limit=pause, session=session)
            except BaseException as error:
                await session.close()
                if not isinstance(error, TimeoutError):
                    raise
                if time.monotonic() > until:
                    raise self._silent(LIVE, QUICK_SECONDS) from None
                pause *= 2
            else:
                return session

    async def _json(
        self,
        method: str,
        path: str,
        *,
        payload: Any = None,
        limit: float = QUICK_SECONDS,
        session: aiohttp.ClientSession | None = None,
    ) -> Any:
        try:
            body, _ = await self.send(method, path, payload=payload, limit=limit, session=session)
        except TimeoutError:
            raise self._silent(path, limit) from None
        return json.loads(body) if body else None

    def _silent(self, path: str, limit: float) -> TritonSilentError:
        return TritonSilentError(f"Triton at {self._url} gave no answer to {path} within {limit:g} s")


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))


async def _given_up(requests: Collection[asyncio.Task[Any]]) -> None:
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)


def _message(body: bytes) -> str:
    try:
        words = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        words = body.decode(errors="replace")[:500]
    return _MEMBER.sub(r"\1", without_traceback(words))  # what a member is called here is between us and Triton
