"""Triton's control and inference APIs, as far as the agent needs them, on asyncio."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import np_to_triton_dtype

from gravswell import addresses
from gravswell.errors import InvalidInputError, VerificationError
from gravswell.serving.agent.asking import (
    QUICK_SECONDS,
    TritonBusyError,
    TritonHttp,
    TritonRefusedError,
    TritonSilentError,
    TritonUnavailableError,
)
from gravswell.serving.agent.health import InferenceCounts
from gravswell.serving.triton.modelnames import control_path, model_path

__all__ = [
    "IndexEntry",
    "TritonBusyError",
    "TritonControl",
    "TritonRefusedError",
    "TritonSilentError",
    "TritonUnavailableError",
]

log = logging.getLogger(__name__)

LOAD_SECONDS = 3600.0
"""Limit of a load: building an engine takes minutes, so this only bounds a wait that would never end."""

UNLOAD_SECONDS = 120.0
"""How long an unloaded model may take to answer what it has accepted."""

METRICS_SECONDS = 5.0
"""Limit of a look at the metrics, without which everything goes on."""


class IndexEntry(NamedTuple):
    """One version in Triton's repository index."""

    name: str
    version: int
    state: str
    reason: str


class TritonControl:
    """One Triton, at ``http_address`` (``host:port``). An async context manager.

    ``grpc_address``, where given, must accept connections too for Triton to count as answering: clients use it.
    ``metrics_address``: where it tells of its GPUs. ``key`` opens the model-control API of a Triton that closes it.
    """

    def __init__(
        self,
        http_address: str,
        *,
        grpc_address: str | None = None,
        metrics_address: str | None = None,
        key: str | None = None,
    ) -> None:
        self._http = TritonHttp(http_address, key=key)
        self._grpc_address = None if grpc_address is None else addresses.split(grpc_address)
        self._metrics = None if metrics_address is None else TritonHttp(metrics_address)
        self._own: defaultdict[tuple[str, int], InferenceCounts] = defaultdict(lambda: InferenceCounts(0, 0))

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        if self._metrics is not None:
            await self._metrics.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)
        if self._metrics is not None:
            await self._metrics.__aexit__(kind, error, trace)

    async def version(self) -> str:
        """Triton's version, ``2.51.0``. Raises :class:`TritonUnavailableError` while it does not answer."""
        metadata = await self._http.ask("GET", "/v2")
        if self._grpc_address is not None:
            await _connectable(*self._grpc_address)
        return str(metadata["version"])

    async def index(self, *, limit: float = QUICK_SECONDS) -> list[IndexEntry]:
        """Every version that Triton knows of, loaded or not, within ``limit`` seconds."""
        rows = await self._http.ask("POST", "/v2/repository/index", limit=limit)
        return [
            IndexEntry(row["name"], int(row["version"]), row["state"], row.get("reason", ""))
            for row in rows
            if row.get("version") and row.get("state")
        ]

    async def config(self, model: str) -> dict[str, Any]:
        """The config that a loaded model runs with."""
        config: dict[str, Any] = await self._http.ask("GET", f"{model_path(model)}/config")
        return config

    async def load(self, model: str, config: str) -> None:
        """Load a model with ``config`` (JSON) in place of its own; what was loaded serves until the new one does.

        Raises :class:`TritonRefusedError`; then what was loaded before still is.
        """
        await self._http.order(f"{control_path(model)}/load", {"parameters": {"config": config}}, limit=LOAD_SECONDS)

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
        await self._http.order(f"{control_path(model)}/unload", {})

    async def is_there(self, model: str) -> bool:
        """Whether anything of a model is left in Triton: ready, being loaded, or not yet gone."""
        return any(row.name == model and row.state != "UNAVAILABLE" for row in await self.index())

    async def is_loading(self, model: str) -> bool:
        """Whether a load of a model is under way. Another one, or an unload, would wait for its end."""
        return any(row.name == model and row.state == "LOADING" for row in await self.index())

    async def counts(self, model: str, version: int) -> InferenceCounts:
        """How many inferences a loaded version has answered and failed."""
        answer = await self._http.ask("GET", f"{model_path(model, str(version))}/stats")
        stats = answer["model_stats"][0]["inference_stats"]
        succeeded, failed = stats["success"], stats["fail"]
        return InferenceCounts(int(succeeded.get("count", 0)), int(failed.get("count", 0)), int(succeeded.get("ns", 0)))

    def own_counts(self, model: str, version: int) -> InferenceCounts:
        """How many of these were the agent's own, over all loads, and how long it waited for them."""
        return self._own[model, version]

    async def metrics(self) -> str | None:
        """The text of its metrics; None where it has none for us: they are off, or somebody else's matter."""
        if self._metrics is None:
            return None
        try:
            page, _ = await self._metrics.send("GET", "/metrics", limit=METRICS_SECONDS)
        except (TritonUnavailableError, TritonBusyError, TritonRefusedError, TimeoutError) as error:
            log.debug("no metrics of Triton's: %s", error)
            return None
        return page.decode(errors="replace")

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
            answer, answer_headers = await self._http.send("POST", path, data=body, headers=headers, limit=limit)
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


async def _connectable(host: str, port: int) -> None:
    try:
        async with asyncio.timeout(QUICK_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        address = addresses.join(host, port)
        raise TritonUnavailableError(f"Triton's gRPC port {address} does not answer: {error}") from None
    writer.close()


def _tensor(name: str, value: NDArray[Any]) -> InferInput:
    if value.dtype.kind in "SU":  # npz without pickle holds strings at a fixed width
        value = value.astype(np.object_)
    data_type = np_to_triton_dtype(value.dtype)
    if data_type is None:
        raise InvalidInputError(f"input '{name}' is of type {value.dtype}, which Triton's client cannot send")
    tensor = InferInput(name, list(value.shape), data_type)
    tensor.set_data_from_numpy(value, binary_data=True)
    return tensor
