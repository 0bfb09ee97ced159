"""``gravswell verify``: published versions against what was recorded, here or on a Triton that is running."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gravswell.cli import completion
from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import Repository, target_of, work_display
from gravswell.errors import GravswellError, NotFoundError, UnavailableError, VerificationError

if TYPE_CHECKING:
    from gravswell.quiver.reader import RepositoryReader
    from gravswell.serving.verification import Served

_STYLES = {"verified": "green", "failed": "red"}


@dataclass
class _Row:
    entry: str
    version: int | None
    """None for an entry that cannot be read at all."""
    result: str = "failed"
    samples: int = 0
    message: str = ""


def verify(
    repo: Repository,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[ENTRY[/VERSION]]",
            help="What to verify. A version is its number, latest or an alias. Default: everything.",
            autocompletion=completion.targets,
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Send the golden inputs to the running Triton whose HTTP is there."),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Verify versions: every file's hash, and the golden tensors in ONNX Runtime. Exits with 5 if any fails."""
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast, here and below

    repository = qv.ModelRepository.open(repo)
    reader = repository.reader
    name = number = None
    if target is not None:
        entry, number = target_of(repository, target)
        name = entry.name
        if number is not None:
            reader.version(name, number)  # says which there are
    if server is None:
        _verify_here(reader, name, number, output)
    else:
        names = list(repository.models) if name is None else [name]
        _verify_on_server(reader, server, names, number, target or repo, output)


def _verify_here(reader: "RepositoryReader", name: str | None, number: int | None, output: Output) -> None:
    found = reader.survey() if name is None else {name: reader.look(name)}
    rows = [_Row(entry, None, message=str(info.error)) for entry, info in found.items() if info.error is not None]
    with work_display(BarColumn(), DownloadColumn()) as progress:
        for entry, info in found.items():
            rows += [_verified(reader, entry, v.number, progress) for v in info.versions if number in (None, v.number)]
    emit(output, rows, lambda: _table(rows, "result"))
    failed = [_name(row) for row in rows if row.result == "failed"]
    if failed:
        raise VerificationError(f"{len(failed)} of {len(rows)} versions failed: {', '.join(failed)}")
    unknown = [f"{_name(row)}: {row.message}" for row in rows if row.result == "not verified"]
    if unknown:
        raise UnavailableError(f"{len(unknown)} of {len(rows)} versions could not be verified: {'; '.join(unknown)}")


def _verified(reader: "RepositoryReader", entry: str, number: int, progress: Progress) -> _Row:
    from gravswell.quiver.verification import verify_version  # noqa: PLC0415

    row = _Row(entry, number)
    task = progress.add_task(_name(row), total=None)
    try:
        result = verify_version(
            reader, entry, number, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
        row.result, row.samples = "verified" if result.files else "unverified", result.samples
    except NotFoundError as error:  # by somebody else, since it was listed
        row.result, row.message = "removed", str(error)
    except UnavailableError as error:  # the store, or a package that is not installed here
        row.result, row.message = "not verified", str(error)
    except GravswellError as error:
        row.message = str(error)
    progress.remove_task(task)
    return row


def _verify_on_server(
    reader: "RepositoryReader", server: str, names: Sequence[str], number: int | None, what: str, output: Output
) -> None:
    """VerificationError if a version fails there, or was asked for and is not loaded; NotFoundError if all are not."""
    import asyncio  # noqa: PLC0415 - keeps --help and Tab fast

    rows = asyncio.run(_all(reader, server, names, number))
    emit(output, rows, lambda: _table(rows, "on the server"))
    failed = [row for row in rows if row.result == "failed" or (number is not None and row.result == "not loaded")]
    if failed:
        told = "; ".join(f"{_name(row)}: {row.message}" for row in failed)
        raise VerificationError(f"{server} does not answer as was recorded, in {len(failed)} of {len(rows)}: {told}")
    if rows and all(row.result in ("not loaded", "unknown") for row in rows):
        raise NotFoundError(f"{server} has loaded nothing of {what}: does it serve this repository?")


async def _all(reader: "RepositoryReader", server: str, names: Sequence[str], number: int | None) -> "list[Served]":
    from gravswell.serving.verification import verify_served  # noqa: PLC0415

    rows: list[Served] = []
    with work_display(TimeElapsedColumn()) as progress:
        task = progress.add_task(f"asking {server}", total=None)
        async for row in verify_served(reader, server, names, number):
            rows.append(row)
            progress.update(task, description=f"{_name(row)} {row.result}")
    return rows


def _table(rows: "Sequence[_Row | Served]", where: str) -> RenderableType:
    table = Table("version", where, "golden samples", "", box=None)
    for row in rows:
        word = Text(row.result, style=_STYLES.get(row.result, "yellow"))
        table.add_row(Text(_name(row)), word, str(row.samples), Text(row.message))
    return table if rows else "nothing to verify: there are no versions yet"


def _name(row: "_Row | Served") -> str:
    return row.entry if row.version is None else f"{row.entry}/{row.version}"
