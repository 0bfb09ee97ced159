"""``gravswell verify --server``: published versions against a Triton that is running."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.progress import TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gravswell.cli.output import Output, emit
from gravswell.cli.shared import existing_entry, parse_target, work_display
from gravswell.errors import NotFoundError, VerificationError

if TYPE_CHECKING:
    from gravswell.quiver.reader import RepositoryReader
    from gravswell.serving.verification import Served

_STYLES = {"verified": "green", "failed": "red"}


def verify_on_server(repo: str, target: str | None, server: str, output: Output) -> None:
    """Print how each version does on the server at ``server``; VerificationError if one fails, or was asked for by
    number and is not loaded; NotFoundError if none of what was asked for is loaded there."""
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast, here and below
    from gravswell.quiver.reader import RepositoryReader  # noqa: PLC0415

    repository = qv.ModelRepository.open(repo)
    reader = RepositoryReader(repo)
    name, number = parse_target(target) if target else (None, None)
    if name is not None:
        existing_entry(repository, name)
    if name is not None and number is not None:
        reader.version(name, number)  # says which there are
    rows = asyncio.run(_all(reader, server, list(repository.models) if name is None else [name], number))

    def text() -> RenderableType:
        table = Table("version", "on the server", "golden samples", "", box=None)
        for row in rows:
            word = Text(row.result, style=_STYLES.get(row.result, "yellow"))
            table.add_row(Text(f"{row.entry}/{row.version}"), word, str(row.samples), Text(row.message))
        return table if rows else "nothing to verify: there are no versions yet"

    emit(output, [asdict(row) for row in rows], text)
    failed = [row for row in rows if row.result == "failed" or (number is not None and row.result == "not loaded")]
    if failed:
        told = "; ".join(f"{row.entry}/{row.version}: {row.message}" for row in failed)
        raise VerificationError(f"{server} does not answer as was recorded, in {len(failed)} of {len(rows)}: {told}")
    if rows and all(row.result == "not loaded" for row in rows):
        raise NotFoundError(f"{server} has loaded nothing of {target or repo}: does it serve this repository?")


async def _all(reader: "RepositoryReader", server: str, names: Sequence[str], number: int | None) -> "list[Served]":
    from gravswell.serving.verification import verify_served  # noqa: PLC0415

    rows: list[Served] = []
    with work_display(TimeElapsedColumn()) as progress:
        task = progress.add_task(f"asking {server}", total=None)
        async for row in verify_served(reader, server, names, number):
            rows.append(row)
            progress.update(task, description=f"{row.entry}/{row.version} {row.result}")
    return rows
