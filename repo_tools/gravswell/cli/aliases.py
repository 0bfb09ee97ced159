"""``promote``, ``rollback``, ``unalias``, ``aliases``, ``history``: names for versions from the command line."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.progress import BarColumn, DownloadColumn
from rich.table import Table
from rich.text import Text

from gravswell.cli import completion
from gravswell.cli.output import Output, OutputOption, emit, when
from gravswell.cli.shared import Name, OneEntry, Repository, existing_entry, version_named, work_display
from gravswell.errors import InvalidInputError

if TYPE_CHECKING:
    from gravswell.quiver import Move
    from gravswell.quiver.aliases import Expected

Alias = Annotated[
    str, typer.Argument(metavar="ALIAS", help="The alias: champion, canary, …", autocompletion=completion.aliases)
]
Expect = Annotated[
    str | None,
    typer.Option(metavar="N|none", help="Do it only if the alias names version N now, or does not exist: none."),
]
Reason = Annotated[str, typer.Option(help="One line for the history.")]
By = Annotated[str | None, typer.Option(help="Who does this, for the history. Default: user@host.")]


def promote(
    repo: Repository,
    name: Name,
    version: Annotated[
        str,
        typer.Argument(
            metavar="VERSION",
            help="The version: its number, latest, or another alias of it.",
            autocompletion=completion.versions,
        ),
    ],
    alias: Alias,
    expect: Expect = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Hash its files first.")] = True,
    reason: Reason = "",
    by: By = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Let an alias name a version. Exits with 4 if somebody moved it meanwhile (--expect)."""
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast, here and below

    entry = existing_entry(qv.ModelRepository.open(repo), name)
    number = version_named(entry, version)
    with work_display(BarColumn(), DownloadColumn()) as progress:
        task = progress.add_task(f"{name}/{number}", total=None)
        move = entry.promote(
            number,
            alias,
            expect=_expected(expect),
            verify=verify,
            reason=reason,
            by=by,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if move is None:
        unmoved = dict.fromkeys(("at", "by", "action", "reason"))
        data = {"entry": name, "alias": alias, "version": number, "previous": number, **unmoved, "changed": False}
        emit(output, data, lambda: Text(f"{alias} of {name} names {number} already"))
        return
    emit(output, _data(name, move, changed=True), lambda: Text(_told(name, move)))


def rollback(
    repo: Repository,
    name: Name,
    alias: Alias,
    steps: Annotated[int, typer.Option(min=1, help="How many moves to go back.")] = 1,
    to: Annotated[int | None, typer.Option(min=1, help="Go back to this version, which it named before.")] = None,
    expect: Expect = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Hash its files first.")] = False,
    reason: Reason = "",
    by: By = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Let an alias name what it named before. A second rollback goes back further; promote goes forth again."""
    from gravswell import quiver as qv  # noqa: PLC0415

    entry = existing_entry(qv.ModelRepository.open(repo), name)
    move = entry.rollback(alias, steps=steps, to=to, expect=_expected(expect), verify=verify, reason=reason, by=by)
    again = f"undo this: gravswell promote {repo} {name} {move.previous} {alias}"
    emit(output, _data(name, move, changed=True), lambda: Text(f"{_told(name, move)}; {again}"))


def unalias(
    repo: Repository,
    name: Name,
    alias: Alias,
    expect: Expect = None,
    reason: Reason = "",
    by: By = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Take an alias away. The version stays, and so does the history."""
    from gravswell import quiver as qv  # noqa: PLC0415

    entry = existing_entry(qv.ModelRepository.open(repo), name)
    move = entry.unalias(alias, expect=_expected(expect), reason=reason, by=by)
    emit(output, _data(name, move, changed=True), lambda: Text(_told(name, move)))


def aliases(repo: Repository, name: OneEntry = None, output: OutputOption = Output.TEXT) -> None:
    """List the aliases: which version they name, since when and by whom, and where a rollback would lead."""
    from gravswell import quiver as qv  # noqa: PLC0415
    from gravswell.quiver.aliases import rollback_goals  # noqa: PLC0415

    repository = qv.ModelRepository.open(repo)
    reader = repository.reader
    rows: list[dict[str, Any]] = []
    entries = [existing_entry(repository, name).name] if name is not None else list(repository.models)
    for entry, (state, _) in zip(entries, reader.store.in_parallel(reader.state, entries), strict=True):
        goals = rollback_goals(state)
        for alias, number in sorted(state.aliases.items()):
            move = state.last_move(alias)
            rows.append(
                {
                    "entry": entry,
                    "alias": alias,
                    "version": number,
                    "rollback": goals.get(alias),
                    "at": move.at if move else None,
                    "by": move.by if move else None,
                    "reason": move.reason if move else "",
                }
            )

    def text() -> RenderableType:
        if not rows:
            return Text(f"no aliases yet: gravswell promote {repo} {name or 'ENTRY'} VERSION champion")
        table = Table("entry", "alias", "version", "rollback to", "since", "by", "reason", box=None)
        for row in rows:
            at, by = when(row["at"]), row["by"] or ""
            cells = (row["entry"], row["alias"], row["version"], row["rollback"] or "", at, by)
            table.add_row(*(Text(str(cell)) for cell in cells), Text(row["reason"]))
        return table

    emit(output, rows, text)


def history(
    repo: Repository,
    name: Name,
    alias: Annotated[
        str | None,
        typer.Argument(metavar="[ALIAS]", help="Only the moves of this alias.", autocompletion=completion.aliases),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show the moves of an entry's aliases, oldest first: what, when, by whom and why."""
    from gravswell import quiver as qv  # noqa: PLC0415

    moves: Iterable[Move] = existing_entry(qv.ModelRepository.open(repo), name).history(alias)

    def text() -> RenderableType:
        table = Table("when", "alias", "what", "from", "to", "by", "reason", box=None)
        for m in moves:
            cells = (when(m.at), m.alias, m.action, m.previous or "", m.version or "", m.by, m.reason)
            table.add_row(*(Text(str(cell)) for cell in cells))
        return table if table.row_count else Text(f"no alias of {name} was ever moved")

    emit(output, [_data(name, move) for move in moves], text)


def _expected(text: str | None) -> "Expected":
    if text is None:
        return "any"
    if text == "none":
        return None
    if not text.isascii() or not text.isdigit():
        raise InvalidInputError(f"--expect {text}: write the number of a version, or none")
    return int(text)


def _data(entry: str, move: "Move", **more: Any) -> dict[str, Any]:
    return {"entry": entry, **move.model_dump(), **more}


def _told(entry: str, move: "Move") -> str:
    if move.version is None:
        return f"{move.alias} of {entry} is gone; it named {move.previous}"
    return f"{move.alias} of {entry} names {move.version}, {f'and named {move.previous}' if move.previous else 'new'}"
