"""``gravswell prune``: old versions go, with the reason for each that stays."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn
from rich.table import Table
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit, stderr, when
from gravswell.cli.shared import (
    Context,
    DryRun,
    Kubeconfig,
    OneEntry,
    Repository,
    Yes,
    existing_entry,
    work_display,
)
from gravswell.errors import InvalidInputError

if TYPE_CHECKING:
    from gravswell.quiver import Pruning


def prune(
    repo: Repository,
    name: OneEntry = None,
    keep: Annotated[int | None, typer.Option(min=1, help="Keep the newest so many of each entry.")] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Keep all that are not older: 30d, 12h.")
    ] = None,
    grace: Annotated[str, typer.Option(metavar="DURATION", help="Keep what came into this store since.")] = "24h",
    pins_within: Annotated[str, typer.Option(metavar="DURATION", help="Keep what clusters pinned since.")] = "7d",
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Remove old versions: those beyond --keep and older than --older-than.

    The newest stays, and so does what an alias names or a rollback of one would, what a cluster serves, and what is
    younger than --grace. --context or --kubeconfig has the cluster itself asked what it serves.
    """
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast
    from gravswell.quiver.reader import RepositoryReader  # noqa: PLC0415

    if keep is None and older_than is None:
        raise InvalidInputError("nothing says what may go: give --keep, --older-than, or both to let go what is beyond")
    repository = qv.ModelRepository.open(repo)
    entries = [existing_entry(repository, name)] if name is not None else list(repository.models.values())
    asked = context is not None or kubeconfig is not None
    rules: dict[str, Any] = {"grace": grace, "pins_within": pins_within}
    rules["served"] = _served(kubeconfig, context) if asked else {}
    planned = [entry.prune(keep, older_than, **rules) for entry in entries]
    if leaving := {plan.entry: plan.going for plan in planned if plan.pipeline}:  # first, and then what only they need
        planned = [
            plan if plan.pipeline else entry.prune(keep, older_than, **rules, leaving=leaving)
            for entry, plan in zip(entries, planned, strict=True)
        ]
        pairs = sorted(zip(entries, planned, strict=True), key=lambda pair: not pair[1].pipeline)
        entries, planned = [entry for entry, _ in pairs], [plan for _, plan in pairs]
    going = sum(len(plan.going) for plan in planned)
    if not asked and going:
        reader = RepositoryReader(repo)
        if not any(reader.state(entry.name)[0].pins for entry in entries):
            stderr.print(
                Text("no cluster was asked what it serves, and none has pinned anything here: --context asks one")
            )
    if dry_run or not going:
        emit(output, _data(planned, dry_run=dry_run), lambda: Group(_table(planned), _summary(planned, done=False)))
        return
    if not yes:
        stderr.print(Group(_table(planned), _summary(planned, done=False)))
        typer.confirm(f"Remove {going} version{'s' if going != 1 else ''} from {repo}?", abort=True, err=True)
    done = []
    with work_display(BarColumn(), MofNCompleteColumn()) as progress:
        task = progress.add_task("removing", total=going)
        for entry, plan in zip(entries, planned, strict=True):
            agreed = plan.going
            done.append(
                entry.prune(
                    keep, older_than, **rules, only=agreed, dry_run=False, on_removed=lambda _: progress.advance(task)
                )
                if agreed
                else plan
            )
    emit(output, _data(done, dry_run=False), lambda: Group(_table(done), _summary(done, done=True)))


def _served(kubeconfig: Path | None, context: str | None) -> dict[str, list[str]]:
    import asyncio  # noqa: PLC0415 - keeps --help and Tab fast

    from gravswell.serving.served import look  # noqa: PLC0415 - keeps --help and Tab fast

    with work_display() as progress:
        progress.add_task("asking the cluster what it serves", total=None)
        return asyncio.run(look(kubeconfig, context))


def _data(prunings: "list[Pruning]", *, dry_run: bool) -> dict[str, Any]:
    versions = [
        {
            "entry": pruning.entry,
            "version": verdict.version,
            "digest": verdict.digest,
            "size": verdict.size,
            "created": verdict.created,
            "goes": verdict.goes,
            "reasons": verdict.reasons,
        }
        for pruning in prunings
        for verdict in pruning.verdicts
    ]
    return {"dryRun": dry_run, "freed": sum(pruning.freed for pruning in prunings), "versions": versions}


def _table(prunings: "list[Pruning]") -> RenderableType:
    table = Table("version", "", "why", "size", "created", box=None)
    for pruning in prunings:
        for verdict in pruning.verdicts:
            word = Text("goes", style="red") if verdict.goes else Text("stays", style="green")
            created, why = when(verdict.created), Text("; ".join(verdict.reasons))
            table.add_row(Text(f"{pruning.entry}/{verdict.version}"), word, why, decimal(verdict.size), created)
    return table


def _summary(prunings: "list[Pruning]", *, done: bool) -> Text:
    going, freed = sum(len(pruning.going) for pruning in prunings), sum(pruning.freed for pruning in prunings)
    if not going:
        return Text("nothing goes")
    what = f"{going} version{'s' if going != 1 else ''}"
    return Text(f"{what} removed, {decimal(freed)} freed" if done else f"{what} to go, {decimal(freed)} to be freed")
