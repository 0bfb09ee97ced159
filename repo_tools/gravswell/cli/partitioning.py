"""``gravswell partition``: a model in parts, one for each rank."""

import enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.progress import TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import target_of, work_display
from gravswell.errors import InvalidInputError


class By(enum.StrEnum):
    """What each rank holds."""

    LAYER = "layer"
    COLUMN = "column"
    ROW = "row"


class Balance(enum.StrEnum):
    """What slices have the same of."""

    WEIGHTS = "weights"
    TIME = "time"


def partition(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="As for export: model.onnx, file.py:object…; or ENTRY or ENTRY/VERSION of --from.",
        ),
    ],
    *,
    ranks: Annotated[int, typer.Option(min=1, help="How many processes are to hold a part of it.")],
    by: Annotated[
        By,
        typer.Option(help="layer: consecutive slices. column, row: of each layer some output columns, or input rows."),
    ] = By.LAYER,
    folder: Annotated[
        Path | None, typer.Option("--folder", "-d", metavar="DIR", help="Write the parts and their manifests there.")
    ] = None,
    repository: Annotated[
        str | None, typer.Option(metavar="REPO", help="Publish it there, as one entry over an entry for each part.")
    ] = None,
    device: Annotated[
        list[int] | None,
        typer.Option(min=0, help="With --repository: the GPU of each rank, in their order; repeat it for each."),
    ] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(min=0, help="With --repository: let the server form batches of up to so many rows.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What it is called. Default: as the entry that it comes from, or its file.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="REPO", help="The repository that MODEL is an entry of.")
    ] = None,
    whole: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER", help="By column or row: a layer that is not split; a pattern, may be repeated."),
    ] = None,
    balance: Annotated[Balance, typer.Option(help="By layer: what the slices have the same of.")] = Balance.WEIGHTS,
    input_shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIMS", help="Shape of an input, -1 for any size: x=-1,64; () for a number."),
    ] = None,
    sample_inputs: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE.npz", help="Prove it with this batch in place of random ones; may be repeated."),
    ] = None,
    rtol: Annotated[float | None, typer.Option(min=0, help="Relative tolerance of the proof.")] = None,
    atol: Annotated[float | None, typer.Option(min=0, help="Absolute tolerance of the proof.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load a pickle, which runs the code in it: only ones that you trust.")
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Cut a model into parts for several ranks, proved to answer together as it does.

    Without --folder and --repository it only says what would be cut.
    """
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast, here and below
    from gravswell.cli.loading import load_model, load_samples, named, shape  # noqa: PLC0415
    from gravswell.quiver.disk import check_folder  # noqa: PLC0415

    if folder is not None:
        check_folder(folder)
    into = qv.ModelRepository.open(repository) if repository is not None else None
    if into is None and (device or max_batch_size is not None):
        raise InvalidInputError("--device and --max-batch-size are of what is published: name a --repository")
    given: Any
    if source is not None:
        entry, number = target_of(qv.ModelRepository.open(source), model)
        given = entry.version(number)
    else:
        given = load_model(model, allow_pickle=allow_pickle)
    shapes = {key: shape(key, dims) for key, dims in named("--input-shape", input_shape)} or None
    with work_display(TimeElapsedColumn()) as progress:
        task = progress.add_task("loading", total=None)

        def tell(stage: str) -> None:
            progress.update(task, description=stage)

        with qv.partition(
            given,
            ranks,
            by.value,
            name=name,
            whole=whole or (),
            balance=balance.value,
            input_shapes=shapes,
            sample_inputs=load_samples(sample_inputs or []) or None,
            rtol=rtol,
            atol=atol,
            on_stage=tell,
        ) as made:
            written = made.save(folder) if folder is not None else None
            published = (
                None
                if into is None
                else made.publish(into, devices=device or None, max_batch_size=max_batch_size, on_stage=tell)
            )
    plan = made.plan
    data = {
        "plan": plan,
        "errors": {one: {"maxAbs": error.max_abs, "maxRel": error.max_rel} for one, error in made.errors.items()},
        "batches": [{key: list(array.shape) for key, array in sample.inputs.items()} for sample in made.samples],
        "folder": None if written is None else str(written),
        "published": published,
    }
    emit(output, data, lambda: _text(data))


def _text(data: dict[str, Any]) -> RenderableType:
    plan = data["plan"]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("part", "weights", "takes", "gives", "layers"):
        table.add_column(column, justify="right" if column == "weights" else "left")
    for part in plan.parts:
        tensors = ([Text(f"{one.name} {list(one.dims)}") for one in side] for side in (part.inputs, part.outputs))
        taken, made = (Text("\n").join(side) for side in tensors)
        table.add_row(part.name, decimal(part.weight_bytes), taken, made, Text(_short(part.layers)))
    stages = f" in {plan.stages} stages" if plan.by != "layer" and plan.stages > 1 else ""
    lines: list[RenderableType] = [
        Text(f"{plan.model} for {plan.ranks} ranks by {plan.by}{stages}, {decimal(plan.weight_bytes)} of weights"),
        table,
        Text(
            "proved at "
            + "; ".join(", ".join(f"{name} {shape}" for name, shape in batch.items()) for batch in data["batches"])
        ),
        *(Text(f"  {name} differs by up to {error['maxAbs']:.3g}") for name, error in data["errors"].items()),
    ]
    if plan.replicated:
        size = decimal(sum(plan.replicated.values()))
        lines.append(Text(f"held in full by more than one part: {size} ({_short(tuple(plan.replicated))})"))
    if data["folder"]:
        lines.append(Text(f"written to {data['folder']}", style="bold"))
    if published := data["published"]:
        lines.append(Text(f"{published.entry}/{published.version} in {published.repository}", style="bold"))
    return Group(*lines)


def _short(names: tuple[str, ...], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f", … ({len(names)})" if len(names) > most else "")
