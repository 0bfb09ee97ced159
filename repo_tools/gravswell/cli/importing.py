"""``gravswell import``: a repository that others wrote, made into a verified one."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.progress import BarColumn, DownloadColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gravswell.cli import completion
from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import OnlyEntries, Sized, work_display
from gravswell.errors import InvalidInputError

_STYLES = {"imported": "green", "failed": "red"}


def import_repository(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A Triton repository: a path, gs://, s3:// or az://.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="The repository to import into.")],
    entry: OnlyEntries = None,
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENTRY/NAME=DIMS",
            help="Shape at which to prove an entry's input, -1 for any size: m/x=-1,3,48,320; () for a number.",
        ),
    ] = None,
    sample_inputs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENTRY=FILE.npz",
            help="Prove the entry with this batch in place of random ones: an array for each input, under its name. "
            "Repeat it for several.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TAG",
            help="The oldest Triton that is to run them, 20.11 or newer. Default: 24.08.",
            autocompletion=completion.tags,
        ),
    ] = None,
    rtol: Annotated[float | None, typer.Option(min=0, help="Relative tolerance of the proofs.")] = None,
    atol: Annotated[float | None, typer.Option(min=0, help="Absolute tolerance of the proofs.")] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Import the ONNX models and ensembles of a repository that others wrote, each version proved, numbers kept.

    What cannot be imported is told, and keeps nothing else from being.
    """
    from gravswell.quiver import importing  # noqa: PLC0415 - keeps --help fast

    shapes, samples = _shapes(input_shape), _samples(sample_inputs)
    with work_display(TimeElapsedColumn(), Sized(BarColumn()), Sized(DownloadColumn())) as progress:
        task = progress.add_task(f"reading {source}", total=None)
        rows = importing.import_repository(
            source,
            destination,
            entry or None,
            input_shapes=shapes,
            sample_inputs=samples,
            target=target,
            rtol=rtol,
            atol=atol,
            on_version=lambda _: progress.update(task, completed=0, total=None),
            on_stage=lambda stage: progress.update(task, description=stage),
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )

    def text() -> RenderableType:
        table = Table("version", "result", "digest", "", box=None)
        for row in rows:
            what = f"{row.entry}/{row.version}" if row.version else row.entry
            word = Text(row.result, style=_STYLES.get(row.result, "yellow"))
            table.add_row(Text(what), word, (row.digest or "")[:12], Text(row.message))
        return table if rows else Text(f"nothing to import: {source} has no version of a model")

    data = [
        {"entry": r.entry, "version": r.version or None, "result": r.result, "digest": r.digest, "message": r.message}
        for r in rows
    ]
    emit(output, data, text)
    failed = [row for row in rows if row.error is not None]
    if failed:
        told = "; ".join(f"{row.entry}{f'/{row.version}' if row.version else ''}: {row.message}" for row in failed)
        raise type(failed[0].error)(f"{len(failed)} of {len(rows)} could not be imported: {told}")  # type: ignore[misc]


def _shapes(given: list[str] | None) -> dict[str, dict[str, tuple[int | None, ...]]]:
    from gravswell.cli.loading import named, shape  # noqa: PLC0415

    found: dict[str, dict[str, tuple[int | None, ...]]] = {}
    for key, dims in named("--input-shape", given):
        entry, slash, name = key.partition("/")
        if not slash or not entry or not name:
            raise InvalidInputError(f"--input-shape {key}={dims}: write ENTRY/NAME=DIMS")
        found.setdefault(entry, {})[name] = shape(name, dims)
    return found


def _samples(given: list[str] | None) -> dict[str, list[dict[str, Any]]]:
    from gravswell.cli.loading import load_samples, named  # noqa: PLC0415

    found: dict[str, list[dict[str, Any]]] = {}
    for entry, file in named("--sample-inputs", given):
        found.setdefault(entry, []).extend(load_samples([Path(file)]))
    return found
