"""The whole of it: measure, choose, keep the table, and write what was tuned into the configurations."""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gravswell.errors import GravswellError, InvalidInputError, UnsupportedError
from gravswell.quiver import Entry
from gravswell.quiver.disk import check_folder
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.request import Samples, batches_of
from gravswell.quiver.signature import tensors_of
from gravswell.tuning import space as spaces
from gravswell.tuning.bench import bench, fixed_rows
from gravswell.tuning.plot import plot
from gravswell.tuning.report import PLOT_FILE, Measurement, TuneReport
from gravswell.tuning.search import choose, leader, next_point
from gravswell.tuning.settings import promises, settings_told, tuned
from gravswell.tuning.subject import Part, Subject, subject

BUDGET = 40
"""Measurements at most."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    done: int
    most: int
    """Measurements at most; it may end with fewer."""
    seconds_left: float
    """At most, at the pace so far."""
    now: str
    """What is measured now, in words; what was best so far, at the end."""
    best: Measurement | None = None


def tune(
    entry: Entry,
    *,
    latency_limit: float,
    percentile: float = 99.0,
    batch_sizes: Sequence[int] | None = None,
    instances: Sequence[int] | None = None,
    concurrency: Sequence[int] | None = None,
    dynamic_batching: spaces.Batching = "both",
    duration: float = 3.0,
    budget: int = BUDGET,
    version: int | None = None,
    sample_inputs: Samples | None = None,
    apply: bool = True,
    folder: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_step: Callable[[str, int, int], None] | None = None,
) -> TuneReport:
    """Find the setting of most rows a second whose latency stays within a limit, and write it into ``entry.config``.

    The embedded Triton serves ``version`` (the newest by default) on this machine's CPU; nothing else should run there.
    Only the count of the instance group and dynamic batching are written; everything else in the file stays, and the
    version that is served stays as it is: the change goes with the next one.

    Of an ensemble, clients ask the whole, and what is varied and written are the settings of its members, each by
    itself: those that limit get more instances than those that do not. A member that other entries use too is the same
    for them.

    :param latency_limit: seconds within which the ``percentile`` of all answers must come, as the clients see it.
    :param batch_sizes: rows of a request; 1, 8 and 32 by default.
    :param instances: counts to try; powers of two up to the number of CPUs by default.
    :param concurrency: numbers of clients, each of which waits for its answer; 1 to 64 by default.
    :param dynamic_batching: ``on``, ``off``, or which of both is better; but it stays on where it has priorities and
        the like, which would go with it.
    :param duration: seconds for which each point is measured.
    :param budget: measurements at most; a large space is seen coarsely first.
    :param sample_inputs: what to ask with; the version's golden batches by default.
    :param apply: write the configuration. Without, the report has the changes all the same.
    :param folder: where to keep ``table.json``, ``table.csv`` and ``plot.png``; what was measured is there even if the
        run is interrupted. None: nothing is kept.
    :param on_progress: called before each measurement.
    :param on_step: called with a step, and the bytes done and in all, while versions are fetched and the server is
        installed.
    :raises InvalidInputError: no setting is within the limit, and the message has the nearest; or the entry, or a
        member, cannot be tuned, such as one that batches sequences.
    :raises ConflictError: somebody changed a configuration while it was being written.
    """
    _check(latency_limit, percentile, duration, budget)
    if folder is not None:
        check_folder(folder)
    what = subject(entry, version)
    cpus = len(os.sched_getaffinity(0))
    report = TuneReport(
        entry=entry.name,
        version=what.asked.versions[0],
        repository=RepositoryReader(entry.repository_url).store.location(""),
        members={part.name: list(part.versions) for part in what.tuned} if what.ensembles else {},
        latency_limit_ms=latency_limit * 1e3,
        percentile=percentile,
        cpus=cpus,
        seconds_each=duration,
        budget=budget,
        folder=None if folder is None else str(folder),
    )
    batchers, notes = _batchers(what, dynamic_batching)
    report = report.model_copy(update={"notes": notes})
    measured: list[Measurement] = []
    with bench(what, samples=batches_of(sample_inputs), on_step=on_step) as table:
        space = spaces.space(
            latency_limit=latency_limit,
            models=batchers,
            max_batch_size=what.asked.config.max_batch_size,
            golden_rows=fixed_rows(tensors_of(what.asked.config), table.inputs),
            cpus=cpus,
            batch_sizes=batch_sizes,
            instances=instances,
            concurrency=concurrency,
        )
        most = min(budget, len(space))
        began = time.monotonic()
        while (point := next_point(space, measured, limit=latency_limit, budget=budget)) is not None:
            each = (time.monotonic() - began) / len(measured) if measured else duration * 1.3
            words = settings_told(zip((part.name for part in what.tuned), point.settings, strict=True))
            load = f"{point.concurrency} clients with {point.rows} rows"
            left = (most - len(measured)) * each
            best = leader(measured, latency_limit)
            on_progress(Progress(len(measured), most, left, f"{words}, {load}", best))
            measured.append(table.measure(point, seconds=duration, percentile=percentile))
            report = report.model_copy(update={"measurements": list(measured)})
            if folder is not None:
                report.save(folder)
    return _finished(what, report, latency_limit, apply=apply, folder=folder)


def _finished(what: Subject, report: TuneReport, limit: float, *, apply: bool, folder: Path | None) -> TuneReport:
    chosen = choose(report.measurements, limit)
    report = report.model_copy(update={"complete": True, "chosen": chosen})
    if folder is not None:  # before anything is written that may be refused
        try:
            plot(report, folder / PLOT_FILE)
        except UnsupportedError as error:
            report = report.model_copy(update={"notes": [*report.notes, str(error)]})
        report.save(folder)
    if chosen is None:
        raise InvalidInputError(_nothing_fits(report, limit))
    made: list[tuple[Part, Any]] = []
    changes: dict[str, list[str]] = {}
    notes = list(report.notes)
    for part, setting in zip(what.tuned, chosen.point.settings, strict=True):
        message, words, more = tuned(part.current(), setting)
        notes += [_of(part, what, note) for note in more]
        if words:
            made.append((part, message))
            changes[part.name] = words
    if what.ensembles:
        limits = next(model for model in chosen.models if model.model == chosen.limiting)
        notes.append(f"{limits.model} limits the whole: its instances compute {limits.busy:.0%} of the time")
    if apply:
        _write(made)
    report = report.model_copy(update={"changes": changes, "applied": bool(apply and made), "notes": notes})
    if folder is not None:
        report.save(folder)
    return report


def _write(made: Sequence[tuple[Part, Any]]) -> None:
    """Each file is replaced whole, one after the other: the error of one names those that were before it."""
    written: list[str] = []
    for part, message in made:
        try:
            part.entry.config.CopyFrom(message)
        except GravswellError as error:
            if not written:
                raise
            raise type(error)(f"{error} (written before: the settings of {', '.join(written)})") from error
        written.append(part.name)


def _nothing_fits(report: TuneReport, limit: float) -> str:
    kept = f"; the table is in {report.folder}" if report.folder else ""
    nearest = leader(report.measurements, limit)
    if nearest is None:
        failures = {m.failure for m in report.measurements}
        return (
            f"{report.entry}/{report.version} answered under no setting: {'; '.join(sorted(map(str, failures)))}{kept}"
        )
    return (
        f"no setting of {report.entry}/{report.version} keeps p{report.percentile:g} within {limit * 1e3:g} ms on this "
        f"machine's {report.cpus} CPUs. The nearest: {nearest.latency_ms:.3g} ms and {nearest.rows_per_second:,.0f} "
        f"rows/s with {nearest.told}, {nearest.concurrency} clients, {nearest.rows} rows. Allow more "
        f"(--latency-limit), or ask with fewer rows or clients (--batch-sizes, --concurrency){kept}"
    )


def _batchers(what: Subject, wanted: spaces.Batching) -> tuple[list[spaces.Batcher], list[str]]:
    """What is to be tried of dynamic batching for each model, and what to tell of that."""
    batchers, notes = [], []
    for part in what.tuned:
        size = part.config.max_batch_size
        promised = promises(part.config) if wanted == "both" and size > 1 else []
        batchers.append(spaces.Batcher(size, "on" if promised else wanted))
        if promised:
            told = (
                f"dynamic_batching has {', '.join(promised)}, which would go with it: no batching was not tried "
                f"(--dynamic-batching off tries that alone)"
            )
            notes.append(_of(part, what, told))
        elif size < 2 and wanted != "off":
            told = (
                "dynamic batching was not tried: the entry has no max_batch_size, so the server forms no batches; one "
                "that was exported with --max-batch-size N can have it"
            )
            notes.append(_of(part, what, told))
    return batchers, notes


def _of(part: Part, what: Subject, note: str) -> str:
    return f"{part.name}: {note}" if what.ensembles else note


def _check(latency_limit: float, percentile: float, duration: float, budget: int) -> None:
    for name, value, least in (("latency_limit", latency_limit, 0.0), ("duration", duration, 0.05)):
        if not least < value < math.inf:
            raise InvalidInputError(f"{name}={value}: give seconds, more than {least:g}")
    if not 0 < percentile <= 100:
        raise InvalidInputError(f"percentile={percentile}: give one above 0 and up to 100")
    if budget < 1:
        raise InvalidInputError(f"budget={budget}: at least one measurement is needed")
