"""Triton's control and inference APIs, as far as the agent needs them, on asyncio.

Every request uses a connection that ends with it: Triton's stop waits for open HTTP connections, and an idle keep-alive
connection of the agent would hold it up until its exit time-out.
"""

import asyncio
import json
import re
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import numpy as np
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import np_to_triton_dtype

from gravswell import addresses
from gravswell.errors import GravswellError, InvalidInputError, UnavailableError, VerificationError
from gravswell.names import MEMBER_PREFIX
from gravswell.serving.agent.health import InferenceCounts
from gravswell.serving.triton.flags import key_headers
from gravswell.serving.triton.modelnames import control_path, model_path
from gravswell.serving.triton.reasons import without_traceback

QUICK_SECONDS = 15.0
"""Limit of requests that only ask; a Triton that needs longer counts as not answering."""

ASK_AGAIN_SECONDS = 0.5
"""After which what only asks is asked again on another connection, and each time after twice as long."""

LOAD_SECONDS = 3600.0
"""Limit of a load: building an engine takes minutes, so this only bounds a wait that would never end."""

SENT_SECONDS = 0.2
"""After which a request is on its way, on a connection that is there already."""

UNLOAD_SECONDS = 120.0
"""How long an unloaded model may take to answer what it has accepted."""


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


class IndexEntry(NamedTuple):
    """One version in Triton's repository index."""

    name: str
    version: int
    state: str
    reason: str


class TritonControl:
    """One Triton, at ``http_address`` (``host:port``). An async context manager.

    ``grpc_address``, where given, must accept connections too for Triton to count as answering: clients use it.
    ``key`` opens the model-control API of a Triton that closes it.
    """

    def __init__(self, http_address: str, *, grpc_address: str | None = None, key: str | None = None) -> None:
        self._url = f"http://{addresses.join(*addresses.split(http_address))}"
        self._grpc_address = None if grpc_address is None else addresses.split(grpc_address)
        self._headers = key_headers(key)[0] if key else {}
        self._session: aiohttp.ClientSession | None = None
        self._turn = asyncio.Lock()
        self._own: defaultdict[tuple[str, int], InferenceCounts] = defaultdict(lambda: InferenceCounts(0, 0))

    async def __aenter__(self) -> Self:
        self._session = _session(aiohttp.TCPConnector(force_close=True, limit=0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def version(self) -> str:
        """Triton's version, ``2.51.0``. Raises :class:`TritonUnavailableError` while it does not answer."""
        metadata = await self._ask("GET", "/v2")
        if self._grpc_address is not None:
            await self._connectable(*self._grpc_address)
        return str(metadata["version"])

    async def index(self, *, limit: float = QUICK_SECONDS) -> list[IndexEntry]:
        """Every version that Triton knows of, loaded or not, within ``limit`` seconds."""
        rows = await self._ask("POST", "/v2/repository/index", limit=limit)
        return [
            IndexEntry(row["name"], int(row["version"]), row["state"], row.get("reason", ""))
            for row in rows
            if row.get("version") and row.get("state")
        ]

    async def config(self, model: str) -> dict[str, Any]:
        """The config that a loaded model runs with."""
        config: dict[str, Any] = await self._ask("GET", f"{model_path(model)}/config")
        return config

    async def load(self, model: str, config: str) -> None:
        """Load a model with ``config`` (JSON) in place of its own; what was loaded serves until the new one does.

        Raises :class:`TritonRefusedError`; then what was loaded before still is.
        """
        await self._order(f"{control_path(model)}/load", {"parameters": {"config": config}}, limit=LOAD_SECONDS)

    async def unload(self, model: str, *, limit: float = UNLOAD_SECONDS) -> None:
        """Unload a model and return when it has answered all that it had accepted and is gone.

        Raises :class:`TritonBusyError` when that takes longer than ``limit`` seconds; the unload goes on.
        """
        await self.ask_unload(model)
        try:
            async with asyncio.timeout(limit):
                while await self.is_there(model):  # noqa: ASYNC110  Triton tells nobody when it is done
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise TritonBusyError(f"'{model}' is still answering {limit:g} s after its unload") from None

    async def ask_unload(self, model: str) -> None:
        """Have a model unloaded; it goes when it has answered all that it had accepted."""
        await self._order(f"{control_path(model)}/unload", {})

    async def is_there(self, model: str) -> bool:
        """Whether anything of a model is left in Triton: ready, being loaded, or not yet gone."""
        return any(row.name == model and row.state != "UNAVAILABLE" for row in await self.index())

    async def is_loading(self, model: str) -> bool:
        """Whether a load of a model is under way. Another one, or an unload, would wait for its end."""
        return any(row.name == model and row.state == "LOADING" for row in await self.index())

    async def counts(self, model: str, version: int) -> InferenceCounts:
        """How many inferences a loaded version has answered and failed."""
        answer = await self._ask("GET", f"{model_path(model, str(version))}/stats")
        stats = answer["model_stats"][0]["inference_stats"]
        succeeded, failed = stats["success"], stats["fail"]
        return InferenceCounts(int(succeeded.get("count", 0)), int(failed.get("count", 0)), int(succeeded.get("ns", 0)))

    def own_counts(self, model: str, version: int) -> InferenceCounts:
        """How many of these were the agent's own, over all loads, and how long it waited for them."""
        return self._own[model, version]

    async def infer(
        self,
        model: str,
        version: int,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str],
        *,
        limit: float,
        sequence: int | str = 0,
    ) -> dict[str, NDArray[Any]]:
        """Run one inference, with ``limit`` seconds for the answer; ``sequence``: the id of a sequence of it alone.

        Raises :class:`TritonRefusedError` with Triton's message, :class:`TritonBusyError` when no answer came in time.
        """
        body, header_length = InferenceServerClient.generate_request_body(
            [_tensor(name, value) for name, value in inputs.items()],
            [InferRequestedOutput(name, binary_data=True) for name in outputs],
            sequence_id=sequence,
            sequence_start=bool(sequence),
            sequence_end=bool(sequence),
        )
        headers = {} if header_length is None else {"Inference-Header-Content-Length": str(header_length)}
        path = f"{model_path(model, str(version))}/infer"
        started = time.monotonic_ns()
        try:
            answer, answer_headers = await self._send("POST", path, data=body, headers=headers, limit=limit)
        except TimeoutError:
            raise TritonBusyError(f"version {version} of '{model}' gave no answer within {limit:g} s") from None
        except TritonRefusedError:
            own = self._own[model, version]
            self._own[model, version] = own._replace(failed=own.failed + 1)
            raise
        own = self._own[model, version]
        took = time.monotonic_ns() - started
        self._own[model, version] = InferenceCounts(own.succeeded + 1, own.failed, own.nanoseconds + took)
        length = answer_headers.get("Inference-Header-Content-Length")
        result = InferenceServerClient.parse_response_body(
            answer, header_length=None if length is None else int(length)
        )
        tensors = {name: result.as_numpy(name) for name in outputs}
        missing = [name for name, value in tensors.items() if value is None]
        if missing:
            raise VerificationError(f"version {version} of '{model}' answered without output {', '.join(missing)}")
        return tensors

    async def _order(self, path: str, payload: Any, *, limit: float = QUICK_SECONDS) -> None:
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

    async def _answering(self) -> aiohttp.ClientSession:
        """A session of one connection, whose thread in Triton has just answered on it."""
        pause, until = ASK_AGAIN_SECONDS, time.monotonic() + QUICK_SECONDS
        while True:
            session = _session(aiohttp.TCPConnector(limit=1))
            try:
                await self._send("GET", LIVE, limit=pause, session=session)
            except BaseException as error:
                await session.close()
                if not isinstance(error, TimeoutError):
                    raise
                if time.monotonic() > until:
                    raise self._silent(LIVE, QUICK_SECONDS) from None
                pause *= 2
            else:
                return session

    async def _ask(self, method: str, path: str, *, limit: float = QUICK_SECONDS) -> Any:
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
            body, _ = await self._send(method, path, payload=payload, limit=limit, session=session)
        except TimeoutError:
            raise self._silent(path, limit) from None
        return json.loads(body) if body else None

    def _silent(self, path: str, limit: float) -> TritonSilentError:
        return TritonSilentError(f"Triton at {self._url} gave no answer to {path} within {limit:g} s")

    async def _send(
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
        session = session or self._session
        if session is None:
            raise RuntimeError("TritonControl is used outside its context")
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

    async def _connectable(self, host: str, port: int) -> None:
        try:
            async with asyncio.timeout(QUICK_SECONDS):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            address = addresses.join(host, port)
            raise TritonUnavailableError(f"Triton's gRPC port {address} does not answer: {error}") from None
        writer.close()


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))


async def _given_up(requests: Collection[asyncio.Task[Any]]) -> None:
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)


def _tensor(name: str, value: NDArray[Any]) -> InferInput:
    if value.dtype.kind in "SU":  # npz without pickle holds strings at a fixed width
        value = value.astype(np.object_)
    data_type = np_to_triton_dtype(value.dtype)
    if data_type is None:
        raise InvalidInputError(f"input '{name}' is of type {value.dtype}, which Triton's client cannot send")
    tensor = InferInput(name, list(value.shape), data_type)
    tensor.set_data_from_numpy(value, binary_data=True)
    return tensor


def _message(body: bytes) -> str:
    try:
        words = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        words = body.decode(errors="replace")[:500]
    return _MEMBER.sub(r"\1", without_traceback(words))  # what a member is called here is between us and Triton
