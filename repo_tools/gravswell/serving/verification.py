"""Published versions against a Triton that is running: are they loaded there, and do they answer as was recorded?

Its law: the server is only asked. It is reached by gRPC and by what every client may do: metadata, config, inference.
"""

import hashlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from gravswell.errors import GravswellError, NotFoundError, UnavailableError, VerificationError
from gravswell.quiver.golden import Sample, column_scales, compare, load_golden
from gravswell.quiver.layout import version_folder
from gravswell.quiver.manifest import GOLDEN, Manifest
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving.client import connect
from gravswell.serving.samples import joined, pieces, with_rank

Result = Literal["verified", "failed", "not loaded", "unverified", "unknown"]

REQUEST_SECONDS = 60.0
"""Limit of one request to the server."""

_AWAY = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED")


@dataclass(frozen=True, slots=True)
class Served:
    """One version, on that server."""

    entry: str
    version: int
    result: Result
    """``verified`` answered every golden sample as recorded, ``failed`` did not; ``not loaded`` by the server;
    ``unverified`` is loaded, and nothing was recorded of it; ``unknown`` is loaded, and not in the repository."""
    samples: int = 0
    """Golden samples that were reproduced."""
    message: str = ""


async def verify_served(
    reader: RepositoryReader,
    address: str,
    entries: Sequence[str],
    number: int | None = None,
    *,
    request_seconds: float = REQUEST_SECONDS,
) -> AsyncIterator[Served]:
    """Send the golden inputs of every version of ``entries``, or of ``number`` alone, to the Triton at ``address``
    (``host:port`` of gRPC), and compare the answers under the recorded tolerances.

    UnavailableError if no Triton answers there, or it stops answering. What is wrong with a version is in its result.
    """
    client = connect(address)
    try:
        try:
            await client.get_server_metadata(client_timeout=request_seconds)
        except InferenceServerException as error:
            raise UnavailableError(
                f"no Triton answers at {address} ({error.message()}): give host:port of its gRPC, 8001 by default"
            ) from None
        for entry in entries:
            loaded = await _loaded(client, address, entry, request_seconds)
            known = {version.number: version for version in reversed(reader.versions(entry))}
            for n in sorted(known.keys() | loaded):
                if number not in (None, n):
                    continue
                if n not in loaded:
                    there = ", ".join(map(str, sorted(loaded))) or "none"
                    yield Served(entry, n, "not loaded", message=f"the server has loaded: {there}")
                elif n not in known:
                    yield Served(entry, n, "unknown", message=f"{reader.store.location(entry)} has no such version")
                elif known[n].digest is None:
                    yield Served(entry, n, "unverified", message="nothing was recorded of it")
                else:
                    yield await _verify(reader, client, entry, n, request_seconds)
    finally:
        await client.close()


async def _loaded(client: InferenceServerClient, address: str, entry: str, limit: float) -> set[int]:
    try:
        metadata = await client.get_model_metadata(entry, client_timeout=limit)
    except InferenceServerException as error:
        if error.status() in _AWAY:
            raise UnavailableError(f"Triton at {address} does not answer any more: {error.message()}") from None
        return set()  # it knows no such model, or none of its versions is ready
    return {int(version) for version in metadata.versions}


async def _verify(
    reader: RepositoryReader, client: InferenceServerClient, entry: str, number: int, limit: float
) -> Served:
    done = 0
    try:
        manifest, samples = _golden(reader, entry, number)
        answer = await client.get_model_config(entry, str(number), client_timeout=limit)
        proof, scales = manifest.verification, column_scales([sample.outputs for sample in samples])
        for k, sample in enumerate(samples):
            got = await _infer(client, entry, number, sample, config=answer.config, limit=limit)
            try:
                compare(sample.outputs, got, proof.rtol, proof.atol, scales)
            except VerificationError as error:
                raise VerificationError(f"golden sample {k}: {error}") from None
            done += 1
    except InferenceServerException as error:
        if error.status() in _AWAY:
            raise UnavailableError(f"Triton stopped answering at {entry}/{number}: {error.message()}") from None
        return Served(entry, number, "failed", done, f"the server refused golden sample {done}: {error.message()}")
    except UnavailableError:
        raise
    except NotFoundError as error:
        return Served(entry, number, "unknown", done, str(error))  # removed by somebody, since it was listed
    except GravswellError as error:
        return Served(entry, number, "failed", done, str(error))
    return Served(entry, number, "verified", done)


def _golden(reader: RepositoryReader, entry: str, number: int) -> tuple[Manifest, list[Sample]]:
    """The manifest and the golden tensors; nothing else of the version is fetched."""
    manifest, _ = reader.manifest(entry, number)
    record = manifest.files.get(GOLDEN)
    where = reader.store.location(f"{version_folder(entry, number)}/{GOLDEN}")
    if record is None:
        raise VerificationError(f"the manifest names no {GOLDEN}: the version was made by something else")
    data = reader.store.read(f"{version_folder(entry, number)}/{GOLDEN}").data
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise VerificationError(f"{where} is not what the manifest says: it was changed after publication")
    with tempfile.TemporaryDirectory(prefix="gravswell-golden-") as folder:
        path = Path(folder) / GOLDEN
        path.write_bytes(data)
        return manifest, load_golden(path)


async def _infer(
    client: InferenceServerClient, entry: str, number: int, sample: Sample, *, config: Any, limit: float
) -> dict[str, NDArray[Any]]:
    ranks = {tensor.name: len(tensor.dims) + (config.max_batch_size > 0) for tensor in config.input}
    outputs = [InferRequestedOutput(name) for name in sample.outputs]
    parts = []
    for piece in pieces(sample.inputs, config.max_batch_size):
        inputs = [_tensor(name, with_rank(value, ranks.get(name, value.ndim))) for name, value in piece.items()]
        answer = await client.infer(entry, inputs, str(number), outputs, client_timeout=limit)
        got = {name: answer.as_numpy(name) for name in sample.outputs}
        parts.append({name: value for name, value in got.items() if value is not None})
    missing = [name for name in sample.outputs if name not in parts[0]]
    if missing:
        raise VerificationError(f"the server answered without output {', '.join(missing)}")
    return joined(parts, sample.outputs)


def _tensor(name: str, value: NDArray[Any]) -> InferInput:
    if value.dtype.kind == "U":
        value = value.astype(np.object_)  # Triton's client knows no text of fixed width
    tensor = InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
    tensor.set_data_from_numpy(value)
    return tensor
