"""What kopf is told of a fault: only what it takes well.

kopf ends at a list or a watch that is refused (410 where the API server has forgotten a version, or a minute of errors
500), at an event ERROR that is no 410, and at an event that is cut short. As it ends it cancels watches that are just
asking, which take that for the end of a request and go on: then it neither watches nor ends.

So it sees none of them. A watch that is refused or broken looks like one whose version is forgotten, after which it
lists anew; a list that is refused, like one whose connection broke. The wait before the next try is here, also after a
watch that ended as it should, but at once: kopf would ask again without a pause.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import aiohttp
import orjson

from gravswell.errors import GravswellError
from gravswell.kube.backoff import Backoff
from gravswell.kube.errors import ApiUnavailableError, refusal, told
from gravswell.kube.watch import lines

FORGOTTEN = b'{"type":"ERROR","object":{"kind":"Status","code":410}}\n'

log = logging.getLogger(__name__)


class Shield:
    """A middleware for the session that kopf asks with."""

    def __init__(self) -> None:
        self._backoffs: defaultdict[tuple[str, bool], Backoff] = defaultdict(Backoff)
        """By path, and whether it is watched."""

    async def __call__(self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        """Send the request; 401 is kopf's own to mend."""
        response = await send(request)
        if response.status == HTTPStatus.UNAUTHORIZED:
            return response
        watched = request.url.query.get("watch") == "true"
        backoff = self._backoffs[request.url.path, watched]
        if response.status < HTTPStatus.BAD_REQUEST:
            if watched:
                vars(response)["content"] = _Events(response.content, request.url.path, backoff)
            else:
                backoff.succeeded()
            return response
        what = f"{'watch' if watched else 'list'} of {request.url.path}"
        error = refusal(what, response.status, await response.read(), response.headers.get("Retry-After"))
        await _wait(backoff.failed(error), error)
        if not watched:
            raise aiohttp.ClientPayloadError(str(error))
        vars(response)["status"] = HTTPStatus.OK.value
        vars(response)["content"] = _Forgotten(response.content)
        return response


class _Body:
    """An answer's body with what kopf reads of it replaced."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)  # what the response itself does with it as it ends


class _Forgotten(_Body):
    """Of a watch whose version is forgotten."""

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        yield FORGOTTEN


class _Events(_Body):
    """Of a watch; the faults are told as kopf takes them well."""

    def __init__(self, content: aiohttp.StreamReader, path: str, backoff: Backoff) -> None:
        super().__init__(content)
        self._path, self._what, self._backoff = path, f"watch of {path}", backoff
        self._answered, self._heard = time.monotonic(), False

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        try:
            async for line in lines(self._content, self._path):
                event = orjson.loads(line)
                if event["type"] == "ERROR":
                    code = int(event["object"].get("code") or 500)
                    await self._ended(told(self._what, code, event["object"]))
                    yield FORGOTTEN
                    return
                self._heard = True
                yield line + b"\n"
        except ApiUnavailableError as error:
            await self._ended(error)
            raise aiohttp.ClientPayloadError(str(error)) from error
        except (
            aiohttp.ClientError,
            OSError,
            ValueError,
            LookupError,
            TypeError,
        ) as error:  # it broke, or is none
            words = f"{self._what}: {error or type(error).__name__}"
            await self._ended(ApiUnavailableError(words))
            raise aiohttp.ClientPayloadError(words) from error
        await self._ended()  # kopf opens the next one at once

    async def _ended(self, error: GravswellError | None = None) -> None:
        lived = time.monotonic() - self._answered
        await _wait(
            self._backoff.watch_ended(lived, heard=self._heard, error=error), error or f"{self._what} has ended"
        )


async def _wait(pause: float, why: GravswellError | str) -> None:
    if pause:
        log.info("%s; again in %.1f s", why, pause)
        await asyncio.sleep(pause)
