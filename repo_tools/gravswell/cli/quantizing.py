"""``gravswell quantize``: a published version in lower precision, as the next one."""

import enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.filesize import decimal
from rich.progress import DownloadColumn, TimeElapsedColumn, TransferSpeedColumn
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import Repository, Sized, SourceVersion, target_of, work_display


class Kind(enum.StrEnum):
    """What precision."""

    FP16 = "fp16"
    INT8 = "int8"


def quantize(
    repo: Repository,
    target: SourceVersion,
    kind: Annotated[Kind, typer.Option(help="fp16 for GPUs, int8 for CPUs.")],
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.npz",
            help="Real inputs, an array for each under its name, to measure int8's ranges on. Without them only "
            "products with weights are computed in 8 bits. Repeat it for several batches.",
        ),
    ] = None,
    max_error: Annotated[
        float | None,
        typer.Option(
            help="How much an output may differ, as a share of its largest value, here and on every server. "
            "Default: 0.01 for fp16, 0.1 for int8."
        ),
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="On which share of the rows the largest score must be the same one."),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Publish a version in lower precision as the next version, with its measured error.

    Clients see no difference: inputs and outputs keep their types. A variant that differs by more than --max-error is
    not published.
    """
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast, here and below
    from gravswell.cli.loading import load_samples  # noqa: PLC0415

    entry, number = target_of(qv.ModelRepository.open(repo), target)
    batches = load_samples(calibration or [])
    with work_display(TimeElapsedColumn(), Sized(DownloadColumn()), Sized(TransferSpeedColumn())) as progress:
        task = progress.add_task(f"reading {target}", total=None)
        made = entry.quantize(
            kind.value,
            version=number,
            calibration=batches or None,
            max_error=max_error,
            min_agreement=min_agreement,
            on_stage=lambda stage: progress.reset(task, description=stage, total=None),
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    emit(
        output,
        made,
        lambda: Group(
            Text(made.location, style="bold"),
            f"  {made.kind} ({made.method}) of {made.entry}/{made.parent}",
            *(Text(f"  {output} {error.told()}, over {made.rows} rows") for output, error in made.errors.items()),
            f"  {decimal(made.bytes)}, and was {decimal(made.parent_bytes)}",
            f"  {made.seconds * 1e3:.3g} ms for {made.batch_rows} rows on this CPU, and was "
            f"{made.parent_seconds * 1e3:.3g} ms",
        ),
    )
