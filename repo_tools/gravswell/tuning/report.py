"""What was measured and chosen, as objects and as files: ``table.json`` and ``table.csv``."""

import csv
import io
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from gravswell.quiver.disk import refusals_told
from gravswell.tuning.space import Point

JSON_FILE, CSV_FILE, PLOT_FILE = "table.json", "table.csv", "plot.png"


class _Record(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class Measurement(_Record):
    """One setting under one load. Times are in milliseconds; those of the server are means over its requests."""

    instances: int
    queue_delay_us: int | None
    """Microseconds that the dynamic batcher waits for more; None: no dynamic batching."""
    rows: int
    """Of one request."""
    concurrency: int
    requests: int = 0
    """Answered within the measured time."""
    rows_per_second: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    latency_ms: float = 0.0
    """The percentile that was asked for, as the client sees it."""
    queue_ms: float = 0.0
    compute_ms: float = 0.0
    """Input, inference and output together."""
    rows_per_run: float = 0.0
    """Rows of one run of the model: what the batcher made of the requests."""
    failure: str | None = None
    """Why there are no figures."""

    @property
    def point(self) -> Point:
        """Where it was measured."""
        return Point(self.instances, self.queue_delay_us, self.rows, self.concurrency)


class TuneReport(_Record):
    """Everything that a run of ``tune`` found."""

    entry: str
    version: int
    repository: str
    latency_limit_ms: float
    percentile: float
    device: str = "cpu"
    cpus: int
    seconds_each: float
    """How long each point was measured."""
    budget: int
    """Measurements at most."""
    measurements: list[Measurement] = []
    chosen: Measurement | None = None
    complete: bool = False
    """Whether the search came to its end."""
    applied: bool = False
    """Whether ``config.pbtxt`` was changed."""
    changes: list[str] = []
    """What the chosen setting changes there, in words."""
    notes: list[str] = []
    """What to know beside it."""
    folder: str | None = None
    """Where the table and the plot are."""

    def save(self, folder: Path) -> None:
        """Write both tables into ``folder``, each whole or not at all. UnavailableError for a disk that is full."""
        with refusals_told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _replace(folder / JSON_FILE, self.model_dump_json(by_alias=True, indent=2) + "\n")
            _replace(folder / CSV_FILE, self._csv())

    def _csv(self) -> str:
        text = io.StringIO()
        names = [field.alias or name for name, field in Measurement.model_fields.items()]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(m.model_dump(by_alias=True) for m in self.measurements)
        return text.getvalue()


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
