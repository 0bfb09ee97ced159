"""What was measured and chosen, as objects and as files: ``table.json`` and ``table.csv``."""

import csv
import io
from pathlib import Path

from pydantic import BaseModel, ConfigDict, computed_field
from pydantic.alias_generators import to_camel

from gravswell.errors import UnavailableError
from gravswell.quiver.disk import replace_file, told
from gravswell.tuning.settings import settings_told
from gravswell.tuning.space import Point, Setting

JSON_FILE, CSV_FILE, PLOT_FILE = "table.json", "table.csv", "plot.png"


class _Record(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class ModelFigures(_Record):
    """One model in a measurement: how it was set, and what the server counted. Times are means over its requests."""

    model: str
    instances: int
    queue_delay_us: int | None
    """Microseconds that the dynamic batcher waits for more; None: no dynamic batching."""
    busy: float = 0.0
    """Share of the time for which its instances computed: at 1, all of them all the time."""
    queue_ms: float = 0.0
    compute_ms: float = 0.0
    """Input, inference and output together."""
    rows_per_run: float = 0.0
    """Rows of one run of the model: what the batcher made of the requests."""

    @property
    def setting(self) -> Setting:
        """What the server was told of it."""
        return Setting(self.instances, self.queue_delay_us)


class Measurement(_Record):
    """One setting under one load. Times are in milliseconds, as the clients see them."""

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
    """The percentile that was asked for."""
    failure: str | None = None
    """Why there are no figures."""
    models: list[ModelFigures]
    """The entry itself, or of an ensemble the members."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def limiting(self) -> str | None:
        """The model whose instances are busiest: more of them, or larger batches there, are what could help."""
        return None if self.failure else max(self.models, key=lambda model: model.busy).model

    @property
    def point(self) -> Point:
        """Where it was measured."""
        return Point(tuple(model.setting for model in self.models), self.rows, self.concurrency)

    @property
    def told(self) -> str:
        """The setting in words."""
        return settings_told((model.model, model.setting) for model in self.models)


class TuneReport(_Record):
    """Everything that a run of ``tune`` found."""

    entry: str
    version: int
    repository: str
    members: dict[str, list[int]] = {}
    """Of an ensemble: the models that it is made of, and their versions that were measured."""
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
    """Whether a ``config.pbtxt`` was changed."""
    changes: dict[str, list[str]] = {}
    """What the chosen setting changes in the ``config.pbtxt`` of each entry, in words."""
    notes: list[str] = []
    """What to know beside it."""
    folder: str | None = None
    """Where the table and the plot are."""

    def save(self, folder: Path) -> None:
        """Write both tables into ``folder``, each whole or not at all. UnavailableError where that cannot be."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / JSON_FILE, f"{self.model_dump_json(by_alias=True, indent=2)}\n".encode())
            replace_file(folder / CSV_FILE, self._csv().encode())
        except OSError as error:
            raise UnavailableError(f"{folder}: {told(error)}") from error

    def _csv(self) -> str:
        """A line for each model of each measurement."""
        text = io.StringIO()
        fields = {**ModelFigures.model_fields, **Measurement.model_fields}
        names = [field.alias or name for name, field in fields.items() if name != "models"]
        writer = csv.DictWriter(text, names, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for m in self.measurements:
            load = m.model_dump(by_alias=True)
            writer.writerows(load | model for model in load.pop("models"))
        return text.getvalue()
