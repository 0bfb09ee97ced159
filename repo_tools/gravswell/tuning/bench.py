"""An entry on the embedded Triton: loaded under one setting after another, and measured under loads.

Versions are fetched first, from wherever they are; the repository is only read.
"""

import asyncio
import operator
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravswell.errors import GravswellError, InvalidInputError, UnavailableError
from gravswell.quiver.checks.backends import is_ensemble
from gravswell.quiver.config import format_config
from gravswell.quiver.exporters.base import Inputs
from gravswell.quiver.exporters.sampling import rows_of, with_rows
from gravswell.quiver.golden import load_golden
from gravswell.quiver.layout import config_key, version_folder
from gravswell.quiver.manifest import GOLDEN, Signature
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.signature import tensors_of
from gravswell.serving.client import packed
from gravswell.serving.samples import with_rank
from gravswell.serving.triton import EmbeddedTriton
from gravswell.tuning.load import drive
from gravswell.tuning.report import Measurement, ModelFigures
from gravswell.tuning.settings import measured_config
from gravswell.tuning.space import Point, Setting
from gravswell.tuning.subject import Part, Subject

WARM_UP_SHARE = 0.2
"""Part of the measured time for which the load runs before it counts: a stub's first runs are slow."""

LOAD_SECONDS = 300.0
"""For one load of a model."""

SETTLING_SECONDS = 0.02
"""Between two looks at what Triton has counted; where both see the same it has counted all."""

SETTLED_SECONDS = 5.0
"""For that: others may ask this server too, and then it never has."""

STAGES = ("compute_input", "compute_infer", "compute_output")
"""Of a run, as Triton names them."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What Triton has counted of a model since it was loaded; times in nanoseconds."""

    requests: int = 0
    queue: int = 0
    compute: int = 0
    """Of every request; one of a batch counts the whole of its run."""
    inferences: int = 0
    runs: int = 0
    running: int = 0
    """Of every run."""

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Spent":
        """From what Triton tells of one version."""
        stats = found["inference_stats"]
        return cls(
            requests=int(stats["success"]["count"]),
            queue=int(stats["queue"]["ns"]),
            compute=sum(int(stats[stage]["ns"]) for stage in STAGES),
            inferences=int(found["inference_count"]),
            runs=int(found["execution_count"]),
            running=sum(int(size[stage]["ns"]) for size in found.get("batch_stats", ()) for stage in STAGES),
        )

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(*map(operator.add, astuple(self), astuple(other)))

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(*map(operator.sub, astuple(self), astuple(other)))


def _counted(figures: ModelFigures, spent: Spent, seconds: float, max_batch_size: int, rows: int) -> ModelFigures:
    # Triton counts rows only where it forms the batches; elsewhere a request is one inference.
    of_one = 1 if max_batch_size > 0 else rows
    return figures.model_copy(
        update={
            "busy": spent.running / 1e9 / seconds / figures.instances,
            "queue_ms": spent.queue / max(1, spent.requests) / 1e6,
            "compute_ms": spent.compute / max(1, spent.requests) / 1e6,
            "rows_per_run": spent.inferences / max(1, spent.runs) * of_one,
        }
    )


@dataclass(slots=True)
class Bench:
    """A running server. Made by :func:`bench`."""

    server: EmbeddedTriton
    folder: Path
    """The repository that it serves, which is the bench's own."""
    subject: Subject
    inputs: Inputs
    """The batch that requests are made of."""
    _loaded: tuple[Setting, ...] | None = field(default=None, init=False)

    def measure(self, point: Point, *, seconds: float, percentile: float) -> Measurement:
        """Load the models as ``point`` says, unless they are, and measure. What goes wrong there is in the measurement.

        UnavailableError where the server itself is gone.
        """
        made = Measurement(
            rows=point.rows,
            concurrency=point.concurrency,
            models=[
                ModelFigures(model=part.name, instances=setting.instances, queue_delay_us=setting.delay)
                for part, setting in zip(self.subject.tuned, point.settings, strict=True)
            ],
        )
        try:
            self._set(point.settings)
            return self._measured(made, seconds, percentile)
        except GravswellError as error:
            if self.server.process.returncode is not None:
                raise UnavailableError(
                    f"Triton ended with status {self.server.process.returncode} at {made.told}: {error}"
                ) from error
            return made.model_copy(update={"failure": str(error)})

    def _set(self, settings: tuple[Setting, ...]) -> None:
        before, self._loaded = self._loaded, None
        for i, (part, setting) in enumerate(zip(self.subject.tuned, settings, strict=True)):
            if before is None or setting != before[i]:
                self._load(part, setting)
        if before != settings:
            for part in self.subject.ensembles:
                self._load(part, None)
        self._loaded = settings

    def _load(self, part: Part, setting: Setting | None) -> None:
        # In the folder, and not with the call: Triton looks there again when it loads an ensemble of it.
        config = measured_config(part.config, part.versions, setting)
        (self.folder / config_key(part.name)).write_text(format_config(config))
        self.server.control.load(part.name, None, LOAD_SECONDS)

    def _measured(self, made: Measurement, seconds: float, percentile: float) -> Measurement:
        asked = self.subject.asked
        address = self.server.http_address
        request = packed(address, asked.name, asked.versions[0], with_rows(self.inputs, made.rows))
        before, began = self._settled(), time.monotonic()
        load = asyncio.run(
            drive(
                address,
                request,
                concurrency=made.concurrency,
                seconds=seconds,
                warm_up=max(0.1, seconds * WARM_UP_SHARE),
            )
        )
        took = time.monotonic() - began
        after = self._settled()
        return made.model_copy(
            update={
                "requests": load.answered,
                "rows_per_second": load.answered * made.rows / load.seconds,
                "p50_ms": load.percentile(50) * 1e3,
                "p95_ms": load.percentile(95) * 1e3,
                "p99_ms": load.percentile(99) * 1e3,
                "latency_ms": load.percentile(percentile) * 1e3,
                "models": [
                    _counted(figures, spent - earlier, took, part.config.max_batch_size, made.rows)
                    for figures, part, spent, earlier in zip(
                        made.models, self.subject.tuned, after, before, strict=True
                    )
                ],
            }
        )

    def _settled(self) -> list[Spent]:
        """What Triton has counted once it counts nothing more: the last request, and its run, just after its answer."""
        found, until = self._statistics(), time.monotonic() + SETTLED_SECONDS
        while time.monotonic() < until:
            time.sleep(SETTLING_SECONDS)
            before, found = found, self._statistics()
            if found == before:
                break
        return found

    def _statistics(self) -> list[Spent]:
        control = self.server.control
        return [
            sum((Spent.of(control.statistics(part.name, n)) for n in part.versions), Spent())
            for part in self.subject.tuned
        ]


@contextmanager
def bench(
    subject: Subject,
    *,
    samples: Sequence[Mapping[str, Any]] = (),
    on_step: Callable[[str, int, int], None] | None = None,
) -> Iterator[Bench]:
    """Fetch what is to be served and start a server for it.

    Its requests are made of ``samples``, or of the golden batches of what is asked.
    """
    with tempfile.TemporaryDirectory(prefix="gravswell-tune-") as name:
        folder = Path(name)
        for part in {part.name: part for part in (*subject.tuned, *subject.ensembles)}.values():
            _fetch(part, folder, on_step)
        asked = subject.asked
        version = folder / version_folder(asked.name, asked.versions[0])
        inputs = _inputs(version, asked.config, samples, f"{asked.name}/{asked.versions[0]}")
        with EmbeddedTriton(folder, model_control="explicit", progress=on_step) as server:
            yield Bench(server, folder, subject, inputs)


def _fetch(part: Part, folder: Path, on_step: Callable[[str, int, int], None] | None) -> None:
    reader = RepositoryReader(part.entry.repository_url)
    (folder / part.name).mkdir()
    for number in part.versions:
        to = folder / version_folder(part.name, number)
        if is_ensemble(part.config) and reader.newest(part.name) is None:
            to.mkdir()  # written by hand: Triton wants a version, and nothing is in it
        else:
            reader.fetch(part.name, number, to, progress=on_step and partial(on_step, f"fetching {part.name}/{number}"))


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
    return rows_of(inputs)
