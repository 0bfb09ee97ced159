"""``gravswell rank``: one process for each rank of a partitioned model."""

import enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.progress import TimeElapsedColumn
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import check_file_to_write, work_display
from gravswell.errors import InvalidInputError

RANK_VARIABLES = ["GRAVSWELL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"]
"""Where those who start many processes tell each which one it is."""


class Target(enum.StrEnum):
    """What a rank computes on."""

    CPU = "cpu"
    GPU = "gpu"


def rank(
    context: typer.Context,
    *,
    model: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE.onnx", help="What it computes. Repeat it for several models on one device."),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", help="rank-0.json of a partition, or its folder, where --rank-id says which one."
        ),
    ] = None,
    rank_id: Annotated[
        int | None,
        typer.Option(
            min=0, envvar=RANK_VARIABLES, help="Which rank this is. Default: the manifest's; or the launcher's, or 0."
        ),
    ] = None,
    device_id: Annotated[
        int | None,
        typer.Option(
            min=0, help="Which of the target's devices. Default: the rank table's; else its GPU is the rank's number."
        ),
    ] = None,
    target: Annotated[Target | None, typer.Option(help="What it computes on. Default: the manifest's, or cpu.")] = None,
    provider: Annotated[
        str | None,
        typer.Option(help="Which of the target's: cpu, openvino…; cuda, tensorrt…. Default: the first there is."),
    ] = None,
    rank_table: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Which rank is which device of which machine, as hccl_tools write it."),
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE.npz", help="Its inputs, by name; may be repeated. Default: ones."),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many rows of ones.")] = 1,
    repeat: Annotated[int, typer.Option(min=1, help="How often to compute with what was built once.")] = 1,
    share_weights: Annotated[
        bool,
        typer.Option(
            "--share-weights",
            help="Hold weights that several models have alike once, unpacked: less memory, slower with many rows.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="Where the outputs go, by name; where several models have one name, as FILE/NAME, or 0/NAME, 1/NAME…",
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Compute as one rank of a partitioned model: build once, on one device, and predict as often as is asked.

    Every rank is a process of its own; all are given the same inputs.
    """
    from gravswell.cli.loading import load_samples  # noqa: PLC0415 - keeps --help fast, here and below
    from gravswell.partitions.running import Setting, joined, run_rank  # noqa: PLC0415
    from gravswell.quiver.arrays import write_arrays  # noqa: PLC0415

    if out is not None:
        check_file_to_write(out)
    given: dict[str, Any] = {}
    for path, batch in zip(inputs or [], load_samples(inputs or []), strict=True):
        if twice := sorted(given.keys() & batch.keys()):
            raise InvalidInputError(f"{path} has an array {twice[0]!r}, as one of the files before it: keep one")
        given |= batch
    if manifest is not None and not manifest.is_dir() and _is_launchers(context):
        rank_id = None  # the file says which it is; every step of some launchers has a number, asked for or not
    setting = Setting(
        manifest=manifest,
        models=tuple(model or ()),
        rank=rank_id,
        device=device_id,
        target=target.value if target else None,
        provider=provider,
        rank_table=rank_table,
        share_weights=share_weights,
    )
    with work_display(TimeElapsedColumn()) as progress:
        progress.add_task("building, then computing", total=None)
        report, outputs = run_rank(setting, inputs=given or None, rows=rows, repeat=repeat)
    if out is not None:
        write_arrays(out, joined([one.model for one in report.models], outputs))
    emit(output, report, lambda: _text(report))


def _is_launchers(context: typer.Context) -> bool:
    """Whether the rank's number comes from the environment."""
    source = context.get_parameter_source("rank_id")
    return source is not None and source.name == "ENVIRONMENT"


def _text(report: Any) -> RenderableType:
    of = f" of {report.ranks}" if report.ranks else ""
    at = f" at {report.server}" if report.server else ""
    lines = [
        Text(f"rank {report.rank}{of}{at}: device {report.device} of {report.target}, {report.provider}", style="bold"),
        Text(
            f"  built in {report.build_seconds:.3f} s; {report.runs} {'run' if report.runs == 1 else 'runs'}, the "
            f"first in {report.first_seconds * 1e3:.3g} ms, the best in {report.best_seconds * 1e3:.3g} ms"
        ),
    ]
    if report.shared_bytes:
        lines.append(Text(f"  {decimal(report.shared_bytes)} of weights shared"))
    for model in report.models:
        lines.append(Text(f"  {model.model}"))
        for one in model.outputs:
            values = " ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in one.first)
            more = " …" if one.elements > len(one.first) else ""
            lines.append(
                Text(f"    {one.name} {one.dtype}{list(one.shape)}: {one.bytes} bytes, {one.elements} elements")
            )
            lines.append(Text(f"      {values}{more}"))
    return Group(*lines)
