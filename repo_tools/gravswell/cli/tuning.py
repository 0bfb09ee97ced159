"""``gravswell tune``: the best instance count and batching of an entry under a latency limit, measured here."""

import enum
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.progress import BarColumn
from rich.table import Table
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit, stderr
from gravswell.cli.shared import DryRun, Repository, SourceVersion, target_of, work_display
from gravswell.errors import InvalidInputError

if TYPE_CHECKING:
    from gravswell.tuning import Measurement, Progress, TuneReport

SHOWN = 12
"""Rows of the table on the screen; the files have all."""


class Batching(enum.StrEnum):
    """Whether the server may put requests together."""

    ON = "on"
    OFF = "off"
    BOTH = "both"


def tune(
    repo: Repository,
    target: SourceVersion,
    latency_limit: Annotated[
        str, typer.Option(metavar="TIME", help="The longest that an answer may take: 20ms, 1.5s, 800us.")
    ],
    percentile: Annotated[
        float, typer.Option(min=0, max=100, help="Per cent of the answers that must come within the limit.")
    ] = 99,
    batch_sizes: Annotated[
        str | None, typer.Option(metavar="N,N…", help="Rows of a request. Default: 1,8,32 as the model takes them.")
    ] = None,
    instances: Annotated[
        str | None, typer.Option(metavar="N,N…", help="Instances to try. Default: 1, 2, 4… up to the CPUs here.")
    ] = None,
    concurrency: Annotated[
        str | None, typer.Option(metavar="N,N…", help="Clients that ask at a time. Default: 1,2,4,8,16,32,64.")
    ] = None,
    dynamic_batching: Annotated[
        Batching, typer.Option(help="Let the server put requests together, or not, or see which is better.")
    ] = Batching.BOTH,
    duration: Annotated[str, typer.Option(metavar="TIME", help="How long each point is measured.")] = "3s",
    budget: Annotated[
        int, typer.Option(min=1, help="Measurements at most; a large space is seen coarsely first.")
    ] = 40,
    sample_inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Ask with this batch. Default: the version's golden one."),
    ] = None,
    dry_run: DryRun = False,
    folder: Annotated[
        Path | None, typer.Option(help="Where the table and the plot go. Default: tune-ENTRY-TIME here.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Measure an entry on the real Triton and set its instances and dynamic batching for the most rows a second.

    Of an ensemble, the whole is asked and the settings of its members are varied and written, each by itself.

    It runs on this machine's CPU, where nothing else should run meanwhile. Ctrl-C keeps the table so far and changes
    nothing. What is served changes with the next version only.
    """
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast, here and below
    from gravswell.cli.loading import load_samples  # noqa: PLC0415
    from gravswell.durations import fraction  # noqa: PLC0415
    from gravswell.tuning import tune  # noqa: PLC0415

    entry, number = target_of(qv.ModelRepository.open(repo), target)
    kept = folder or Path(f"tune-{entry.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    with work_display(BarColumn()) as display:
        task = display.add_task("starting Triton", total=None)

        def show(progress: "Progress") -> None:
            left = f"at most {progress.seconds_left:,.0f} s left"
            display.update(task, description=f"{progress.now}; {left}", completed=progress.done, total=progress.most)

        try:
            report = tune(
                entry,
                latency_limit=fraction(latency_limit),
                percentile=percentile,
                batch_sizes=_numbers("--batch-sizes", batch_sizes),
                instances=_numbers("--instances", instances),
                concurrency=_numbers("--concurrency", concurrency),
                dynamic_batching=dynamic_batching.value,
                duration=fraction(duration),
                budget=budget,
                version=number,
                sample_inputs=load_samples([sample_inputs]) if sample_inputs else None,
                apply=not dry_run,
                folder=kept,
                on_progress=show,
                on_step=lambda step, done, total: display.update(task, description=step, completed=done, total=total),
            )
        except KeyboardInterrupt:
            display.stop()
            where = f"; what was measured is in {kept}" if kept.is_dir() else ""
            stderr.print(f"interrupted: config.pbtxt is unchanged{where}", soft_wrap=True, highlight=False)
            raise typer.Exit(130) from None
    emit(output, report, lambda: _text(report, repo))


def _numbers(option: str, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInputError(f"{option} {text!r}: write whole numbers with commas: 1,2,4") from None


def _text(report: "TuneReport", repo: str) -> RenderableType:
    from gravswell.tuning.search import fits  # noqa: PLC0415

    chosen = report.chosen
    assert chosen is not None  # no choice is an error
    limit = report.latency_limit_ms / 1e3
    table = Table(box=None)
    whole = bool(report.members)
    load = ("rows", "clients", "rows/s", f"p{report.percentile:g} ms")
    settings = [*report.members, "limits"] if whole else ["inst.", "batching"]
    for column in (*settings, *load, *(() if whole else ("queue", "compute", "rows/run"))):
        table.add_column(column, justify="right", no_wrap=True)
    best = sorted(report.measurements, key=lambda m: (m == chosen, fits(m, limit), m.rows_per_second), reverse=True)
    for m in best[:SHOWN]:
        style = "bold green" if m == chosen else "" if fits(m, limit) else "dim"
        table.add_row(*(_cells_of_members(m) if whole else _cells(m)), style=style)
    told: list[RenderableType] = [table, ""]
    if len(best) > SHOWN:
        told.append(f"and {len(best) - SHOWN} more, in the table")
    changes = [(f"{name}/config.pbtxt", change) for name, words in report.changes.items() for change in words]
    if not changes:
        told.append("config.pbtxt needs no change")
    for file, change in changes:
        told.append(Text(f"{file} {'now has' if report.applied else 'would get'} {change}"))
    told += [Text(note) for note in report.notes]
    told.append(Text(f"the table is in {report.folder}"))
    if report.applied:
        told.append(Text(_next_step(report, repo)))
    return Group(*told)


def _next_step(report: "TuneReport", repo: str) -> str:
    stays = "What is served is as before: a setting goes with the next version."
    if not report.members:
        return f"{stays} To publish this model with it: gravswell republish {repo} {report.entry}/{report.version}"
    ways = "; ".join(f"gravswell republish {repo} {name}/{report.members[name][-1]}" for name in report.changes)
    return (
        f"{stays} To publish the members with theirs: {ways}. Where {report.entry} pins versions, publish it then too"
    )


def _cells(m: "Measurement") -> list[str]:
    from gravswell.tuning.settings import batching_told  # noqa: PLC0415

    (model,) = m.models
    setting = [str(model.instances), batching_told(model.queue_delay_us)]
    if m.failure is not None:
        return [*setting, *_load(m), "failed"]
    counted = [f"{model.queue_ms:.3g}", f"{model.compute_ms:.3g}", f"{model.rows_per_run:.3g}"]
    return [*setting, *_load(m), *_figures(m), *counted]


def _cells_of_members(m: "Measurement") -> list[str]:
    from gravswell.tuning.settings import batching_told  # noqa: PLC0415

    settings = []
    for model in m.models:
        batching = "" if model.queue_delay_us is None else f", batching {batching_told(model.queue_delay_us)}"
        settings.append(f"{model.instances}{batching}")
    if m.failure is not None:
        return [*settings, "", *_load(m), "failed"]
    busiest = max(m.models, key=lambda model: model.busy)
    return [*settings, f"{busiest.model} {busiest.busy:.0%}", *_load(m), *_figures(m)]


def _load(m: "Measurement") -> list[str]:
    return [str(m.rows), str(m.concurrency)]


def _figures(m: "Measurement") -> list[str]:
    return [f"{m.rows_per_second:,.0f}", f"{m.latency_ms:.3g}"]
