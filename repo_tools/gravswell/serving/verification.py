"""Published versions against a Triton that is running: are they loaded there, and do they answer as was recorded?

Its law: the server is only asked, for what every client may ask: metadata, config, inference.
"""

import hashlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from google.protobuf.json_format import ParseDict

from gravswell.errors import GravswellError, NotFoundError, UnavailableError, VerificationError
from gravswell.quiver.config import ModelConfig, parse_config
from gravswell.quiver.golden import Array, Sample, load_golden
from gravswell.quiver.layout import version_folder
from gravswell.quiver.manifest import GOLDEN, Manifest
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving.client import AsyncClient
from gravswell.serving.golden import Golden
from gravswell.serving.members import member_keys
from gravswell.serving.samples import joined, pieces, with_rank

Result = Literal["verified", "failed", "not loaded", "unverified", "unknown"]

REQUEST_SECONDS = 60.0
"""Limit of one request to the server."""


SEQUENCES = (
    "it takes sequences, for which the server fills in what golden batches hold: an agent proves it before it serves "
    "it, and verify without --server does so here"
)


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
    (``host:port`` of HTTP, or a URL), and compare the answers under the recorded tolerances.

    UnavailableError if no Triton answers there, or it stops answering. What is wrong with a version is in its result.
    """
    async with AsyncClient(address, request_timeout=request_seconds, retry_for=0) as client:
        for entry in entries:
            loaded = await _loaded(client, entry)
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
                elif _takes_sequences(reader, entry, n):
                    yield Served(entry, n, "unverified", message=SEQUENCES)
                else:
                    yield await _verify(reader, client, entry, n)


async def _loaded(client: AsyncClient, entry: str) -> set[int]:
    try:
        model = await client.model(entry)
    except NotFoundError:
        return set()  # it knows no such model, or none of its versions is ready
    return {int(version) for version in model.versions}


def _takes_sequences(reader: RepositoryReader, entry: str, number: int) -> bool:
    config = parse_config(reader.version_config(entry, number) or "", where=reader.store.location(entry))
    return bool(config.HasField("sequence_batching"))


async def _verify(reader: RepositoryReader, client: AsyncClient, entry: str, number: int) -> Served:
    done = 0
    try:
        manifest, samples = _golden(reader, entry, number)
        golden = Golden.of(samples, manifest.verification)
        if await _uses_gpus(client, entry, number):
            golden = golden.on(parse_config(reader.version_config(entry, number) or "", where=entry))
        for k, sample in enumerate(golden.samples):
            golden.check(k, await _infer(client, entry, number, sample))
            done += 1
    except UnavailableError:
        raise
    except NotFoundError as error:
        return Served(entry, number, "unknown", done, str(error))  # removed by somebody, since it was listed
    except GravswellError as error:
        return Served(entry, number, "failed", done, str(error))
    return Served(entry, number, "verified", done)


async def _uses_gpus(client: AsyncClient, model: str, version: int) -> bool:
    """Whether the server may run a model, or a member of that pipeline, on a GPU: also where it does not tell, or the
    model itself chooses (``KIND_MODEL``)."""
    told = await client.config(model, version if version > 0 else "")
    if told is None or any(group.get("kind") != "KIND_CPU" for group in told.get("instance_group", ())):
        return True
    config = ParseDict(told, ModelConfig(), ignore_unknown_fields=True)
    return any([await _uses_gpus(client, *member) for member in member_keys(config)])


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


async def _infer(client: AsyncClient, entry: str, number: int, sample: Sample) -> dict[str, Array]:
    model = await client.model(entry, number)
    model.check_outputs(list(sample.outputs))
    ranks = {tensor.name: len(tensor.shape) for tensor in model.inputs}
    parts = []
    for piece in pieces(sample.inputs, model.max_batch_size or 0):
        inputs = {name: with_rank(value, ranks.get(name, value.ndim)) for name, value in piece.items()}
        answer = await client.request(entry, inputs, version=number, outputs=list(sample.outputs))
        parts.append(answer.outputs)
    return joined(parts, sample.outputs)
