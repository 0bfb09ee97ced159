"""One version on the embedded Triton: loaded under one setting after another, and measured under loads.

A version from a bucket is fetched first; the repository is only read.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravswell.errors import GravswellError, InvalidInputError, UnavailableError
from gravswell.quiver.config import config_to_json
from gravswell.quiver.golden import load_golden
from gravswell.quiver.layout import version_folder
from gravswell.quiver.manifest import GOLDEN, Signature
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.signature import tensors_of
from gravswell.serving.samples import with_rank
from gravswell.serving.triton import EmbeddedTriton
from gravswell.tuning.load import drive, packed
from gravswell.tuning.report import Measurement
from gravswell.tuning.settings import measured_config
from gravswell.tuning.space import Point

Inputs = Mapping[str, NDArray[Any]]

WARM_UP_SHARE = 0.2
"""Part of the measured time for which the load runs before it counts: a stub's first runs are slow."""

LOAD_SECONDS = 300.0
"""For one load of a model."""


@dataclass(slots=True)
class Bench:
    """A running server. Made by :func:`bench`."""

    server: EmbeddedTriton
    model: str
    version: int
    config: Any
    inputs: Inputs
    """The batch that requests are made of."""
    _loaded: tuple[int, int | None] | None = field(default=None, init=False)

    def measure(self, point: Point, *, seconds: float, percentile: float) -> Measurement:
        """Load the model as ``point`` says, unless it is, and measure. What goes wrong there is in the measurement.

        UnavailableError where the server itself is gone.
        """
        made = Measurement(
            instances=point.instances, queue_delay_us=point.delay, rows=point.rows, concurrency=point.concurrency
        )
        try:
            if self._loaded != point.setting:
                self._loaded = None
                config = config_to_json(measured_config(self.config, point, self.version))
                self.server.control.load(self.model, config, LOAD_SECONDS)
                self._loaded = point.setting
            return made.model_copy(update=self._measured(point, seconds, percentile))
        except GravswellError as error:
            if self.server.process.returncode is not None:
                raise UnavailableError(
                    f"Triton ended with status {self.server.process.returncode} at {point.instances} instances: {error}"
                ) from error
            return made.model_copy(update={"failure": str(error)})

    def _measured(self, point: Point, seconds: float, percentile: float) -> dict[str, Any]:
        address = self.server.http_address
        request = packed(address, self.model, self.version, with_rows(self.inputs, point.rows))
        before = self._statistics()
        load = asyncio.run(
            drive(
                address,
                request,
                concurrency=point.concurrency,
                seconds=seconds,
                warm_up=max(0.1, seconds * WARM_UP_SHARE),
            )
        )
        after = self._statistics()
        spent = {key: after[key] - before[key] for key in after}
        return {
            "requests": load.answered,
            "rows_per_second": load.answered * point.rows / load.seconds,
            "p50_ms": load.percentile(50) * 1e3,
            "p95_ms": load.percentile(95) * 1e3,
            "p99_ms": load.percentile(99) * 1e3,
            "latency_ms": load.percentile(percentile) * 1e3,
            "queue_ms": spent["queue"] / max(1, spent["requests"]) / 1e6,
            "compute_ms": spent["compute"] / max(1, spent["requests"]) / 1e6,
            # Triton counts rows only where it forms the batches; elsewhere a request is one inference.
            "rows_per_run": spent["inferences"] / max(1, spent["executions"]) * (1 if self._batches else point.rows),
        }

    @property
    def _batches(self) -> bool:
        return bool(self.config.max_batch_size > 0)

    def _statistics(self) -> dict[str, int]:
        found = self.server.control.statistics(self.model, self.version)
        stats = found["inference_stats"]
        return {
            "requests": int(stats["success"]["count"]),
            "queue": int(stats["queue"]["ns"]),
            "compute": sum(int(stats[f"compute_{part}"]["ns"]) for part in ("input", "infer", "output")),
            "inferences": int(found["inference_count"]),
            "executions": int(found["execution_count"]),
        }


@contextmanager
def bench(
    reader: RepositoryReader,
    entry: str,
    version: int,
    config: Any,
    *,
    samples: Sequence[Mapping[str, Any]] = (),
    on_step: Callable[[str, int, int], None] | None = None,
) -> Iterator[Bench]:
    """Fetch the version and start a server for it. Its requests are made of ``samples``, or of the golden batches."""
    with tempfile.TemporaryDirectory(prefix="gravswell-tune-") as name:
        folder = Path(name) / version_folder(entry, version)
        folder.parent.mkdir()
        reader.fetch(entry, version, folder, progress=on_step and partial(on_step, f"fetching {entry}/{version}"))
        inputs = _inputs(folder, config, samples, f"{entry}/{version}")
        with EmbeddedTriton(Path(name), model_control="explicit", progress=on_step) as server:
            yield Bench(server, entry, version, config, inputs)


def _inputs(folder: Path, config: Any, samples: Sequence[Mapping[str, Any]], what: str) -> Inputs:
    """The largest batch, in the ranks in which Triton takes it."""
    batches: list[dict[str, NDArray[Any]]] = [
        {name: np.asarray(array) for name, array in sample.items()} for sample in samples
    ]
    if not batches and (folder / GOLDEN).is_file():
        batches = [sample.inputs for sample in load_golden(folder / GOLDEN)]
    if not batches:
        raise InvalidInputError(f"{what} has no golden batches to ask it with: give one (--sample-inputs FILE.npz)")
    signature = tensors_of(config)
    wanted = {record.name for record in signature.inputs} if signature else set(batches[0])
    largest = max(batches, key=lambda batch: sum(array.nbytes for array in batch.values()))
    if set(largest) != wanted:
        raise InvalidInputError(
            f"the sample has inputs {', '.join(sorted(largest))}; {what} takes {', '.join(sorted(wanted))}"
        )
    ranks = {tensor.name: len(tensor.dims) + (config.max_batch_size > 0) for tensor in config.input}
    return {name: with_rank(array, ranks.get(name, array.ndim)) for name, array in largest.items()}


def fixed_rows(signature: Signature | None, inputs: Inputs) -> int | None:
    """The rows of every request where the model takes no other number; None where it takes any."""
    if signature is not None and all(record.dims[:1] == (-1,) for record in signature.inputs):
        return None
    return _rows(inputs)


def with_rows(inputs: Inputs, rows: int) -> dict[str, NDArray[Any]]:
    """``rows`` rows of the batch, over and over from its first one; the batch itself where it has as many."""
    if rows == _rows(inputs):  # of a model that takes no other number, some inputs may have no rows at all
        return dict(inputs)
    return {name: np.take(array, np.arange(rows) % len(array), axis=0) for name, array in inputs.items()}


def _rows(inputs: Inputs) -> int:
    return max((len(array) for array in inputs.values() if array.ndim), default=1)
