"""Many rows through one or several Tritons: batches in flight, answers in the order of the rows."""

import asyncio
import itertools
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_address
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype

from gravswell.errors import GravswellError, InvalidInputError, NotFoundError, UnavailableError

Arrays = Mapping[str, NDArray[Any]]

_ERRORS: Mapping[str, type[GravswellError]] = {
    "StatusCode.INVALID_ARGUMENT": InvalidInputError,
    "StatusCode.NOT_FOUND": NotFoundError,
}
_UNAVAILABLE = "StatusCode.UNAVAILABLE"
_OTHER_TYPE = re.compile(r"data-type is '\w+', but .* expects '(\w+)'")


async def infer_batches(
    addresses: str | Sequence[str],
    model: str,
    inputs: Arrays,
    *,
    batch_size: int,
    in_flight: int = 32,
    on_rows: Callable[[int], None] | None = None,
    version: str = "",
    request_timeout: float = 60.0,
) -> dict[str, NDArray[Any]]:
    """Send ``inputs`` to ``model`` in requests of ``batch_size`` rows and return its outputs, row for row.

    Every array of ``inputs`` (by tensor name), or what NumPy makes one of, has the rows along its first axis, the same
    number of them; the outputs have too. ``addresses`` are gRPC's (``host:port``); a name stands for every address that
    it has when the call begins, as a headless Service's name does for its replicas. With several, requests go round
    them, and one that a server is not available for (``UNAVAILABLE``) is sent once to each of the others before it
    fails. At most ``in_flight`` requests wait for an answer at a time, each for at most ``request_timeout`` seconds.
    ``on_rows(n)`` is called as the answers for ``n`` more rows arrive, in any order; what it raises ends the whole.
    ``version`` empty: the one that the server chooses.

    The first request that fails ends the whole: :class:`NotFoundError` for an unknown model, :class:`InvalidInputError`
    for inputs that the model does not take, :class:`UnavailableError` otherwise; the message names the rows.
    """
    replicas = [addresses] if isinstance(addresses, str) else list(addresses)
    arrays, rows = _checked(inputs)
    if not replicas or any(not isinstance(number, Integral) or number < 1 for number in (batch_size, in_flight)):
        raise InvalidInputError(
            f"infer_batches needs an address, and whole numbers of at least 1 as batch_size and in_flight, "
            f"not {batch_size!r} and {in_flight!r}"
        )
    starts = iter(range(0, rows, batch_size))
    turns = itertools.count()
    outputs: dict[str, NDArray[Any]] = {}

    async def work(clients: Sequence[InferenceServerClient]) -> None:
        for start in starts:  # shared by all workers: whoever is free takes the next batch
            stop = min(start + batch_size, rows)
            batch = _tensors({name: array[start:stop] for name, array in arrays.items()})
            answer = await _infer(
                _rotated(clients, next(turns)),
                model,
                batch,
                options={"model_version": version, "client_timeout": request_timeout},
                rows=f"rows {start} to {stop - 1}",
            )
            for name, values in answer.items():
                if values.shape[:1] != (stop - start,):
                    raise InvalidInputError(
                        f"output '{name}' of model '{model}' has shape {values.shape} for {stop - start} rows: "
                        f"its first axis is not the rows, so it cannot be put together"
                    )
                if name not in outputs:
                    outputs[name] = np.empty((rows, *values.shape[1:]), values.dtype)
                outputs[name][start:stop] = values
            if on_rows:
                on_rows(stop - start)

    async with AsyncExitStack() as stack:
        found = await asyncio.gather(*map(_resolved, replicas))
        targets = dict.fromkeys(itertools.chain.from_iterable(found))  # each once, in their order
        clients = [await stack.enter_async_context(connect(target)) for target in targets]
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(in_flight, -(-rows // batch_size))):
                    workers.create_task(work(clients))
        except BaseExceptionGroup as failures:
            raise next(_leaves(failures)) from None
    return outputs


def connect(target: str) -> InferenceServerClient:
    """A client of the server at ``target`` (``host:port``), directly where it is on this machine.

    gRPC sends everything through the proxy that the environment names (``https_proxy``), loopback too; no proxy on
    another machine can reach that.
    """
    host = target.rpartition(":")[0].strip("[]")
    try:
        direct = ip_address(host).is_loopback
    except ValueError:
        direct = host == "localhost"
    if not direct:
        return InferenceServerClient(target)
    unlimited = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
    return InferenceServerClient(target, channel_args=[("grpc.enable_http_proxy", 0), *unlimited])


async def _resolved(address: str) -> list[str]:
    """``host:port`` for each address of the host: gRPC itself would send all requests for a name to one of them.

    What is no ``host:port`` or has no address now is left to gRPC, which says what is wrong with it.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host or host.startswith("["):
        return [address]
    try:
        rows = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return [address]
    # Where a name has both families, the pods are the same: its IPv6 addresses would count them twice.
    found = [row[4][0] for row in rows if row[0] == socket.AF_INET]
    return [f"{ip}:{port}" for ip in found] or [f"[{row[4][0]}]:{port}" for row in rows]


def _checked(inputs: Arrays) -> tuple[dict[str, NDArray[Any]], int]:
    arrays = {name: _array(name, value) for name, value in inputs.items()}
    if not arrays or any(array.ndim == 0 for array in arrays.values()):
        raise InvalidInputError("infer_batches needs at least one input, each with the rows along its first axis")
    sizes = {name: len(array) for name, array in arrays.items()}
    rows = next(iter(sizes.values()))
    if rows == 0 or len(set(sizes.values())) > 1:
        raise InvalidInputError(f"the inputs must have the same number of rows, at least one; they have {sizes}")
    # Triton's client knows bytes and objects, not NumPy's own fixed-width text.
    return {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in arrays.items()}, rows


def _array(name: str, value: Any) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:  # rows of different lengths, a tensor of a GPU
        raise InvalidInputError(f"input '{name}' is a {type(value).__name__} that is no array: {error}") from None


def _tensors(batch: Arrays) -> list[InferInput]:
    tensors = []
    for name, array in batch.items():
        datatype = np_to_triton_dtype(array.dtype)
        if datatype is None:
            raise InvalidInputError(f"input '{name}' is an array of {array.dtype}, which Triton does not know")
        tensors.append(InferInput(name, list(array.shape), datatype).set_data_from_numpy(array))
    return tensors


def _rotated(clients: Sequence[InferenceServerClient], turn: int) -> list[InferenceServerClient]:
    first = turn % len(clients)
    return [*clients[first:], *clients[:first]]


async def _infer(
    clients: Sequence[InferenceServerClient],
    model: str,
    batch: list[InferInput],
    *,
    options: dict[str, Any],
    rows: str,
) -> dict[str, NDArray[Any]]:
    """Ask the first client, and the others in turn while they are not available."""
    *others, last = clients
    for client in others:
        try:
            return await _ask(client, model, batch, options)
        except InferenceServerException as error:
            if error.status() != _UNAVAILABLE:
                raise _translated(error, model, rows) from error
    try:
        return await _ask(last, model, batch, options)
    except InferenceServerException as error:
        raise _translated(error, model, rows) from error


async def _ask(
    client: InferenceServerClient, model: str, batch: list[InferInput], options: dict[str, Any]
) -> dict[str, NDArray[Any]]:
    answer = await client.infer(model, batch, **options)
    return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}


def _translated(error: InferenceServerException, model: str, rows: str) -> GravswellError:
    message = f"model '{model}' did not answer {rows}: {error.message()}"
    types = _OTHER_TYPE.search(message)
    wanted = triton_to_np_dtype(types[1]) if types else None
    if isinstance(wanted, type):  # NumPy's own default is float64, which few models take
        message += f"; send its array as array.astype(np.{wanted.__name__})"
    return _ERRORS.get(error.status(), UnavailableError)(message)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
