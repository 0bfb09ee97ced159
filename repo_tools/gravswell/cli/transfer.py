"""``gravswell copy`` and ``sync``: versions from one repository to another."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from gravswell.cli import completion
from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import DryRun, OnlyEntries, target_of, work_display
from gravswell.errors import InvalidInputError

if TYPE_CHECKING:
    from gravswell.quiver.transfer import Plan, Transfer

Source = Annotated[
    str, typer.Argument(metavar="SRC", help="The repository to copy from: a path, gs://, s3:// or az://.")
]
State = Annotated[
    bool,
    typer.Option(
        "--state",
        help="Take along the aliases of these versions with their history, and for whole entries the next number.",
    ),
]


def copy(
    source: Source,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="ENTRY[/VERSION]… DST",
            help="What to copy, a version by its number, latest or an alias; and last the repository to copy it to.",
            autocompletion=completion.targets,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Give the entry another name there; its versions get new digests."),
    ] = None,
    state: State = False,
    dry_run: DryRun = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Copy entries or versions to another repository: only what is not there yet, numbers and digests kept."""
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast, here and below
    from gravswell.quiver.transfer import Transfer  # noqa: PLC0415

    *named, destination = targets
    if not named:
        raise InvalidInputError("copy needs what to copy and where to: gravswell copy SRC ENTRY[/VERSION]… DST")
    repository = qv.ModelRepository.open(source)
    wanted: dict[str, list[int] | None] = {}
    for target in named:
        entry, number = target_of(repository, target)
        if number is None:
            wanted[entry.name] = None
        elif (numbers := wanted.setdefault(entry.name, [])) is not None:
            numbers.append(number)
    _transfer(Transfer(source, destination, wanted, rename=name, state=state), dry_run, output)


def sync(
    source: Source,
    destination: Annotated[str, typer.Argument(metavar="DST", help="The repository that becomes the same.")],
    entry: OnlyEntries = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove there what is not in SRC: versions, and whole entries.")
    ] = False,
    state: State = False,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --delete.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Bring a repository up to another one: only what differs moves."""
    from gravswell.quiver.transfer import Transfer  # noqa: PLC0415

    work = Transfer(source, destination, dict.fromkeys(entry) if entry else None, delete=delete, state=state)
    agreed = None  # what is asked about is what is done
    if delete and not yes and not dry_run:
        agreed = work.plan()
        if going := agreed.of("delete"):
            typer.confirm(f"Remove {', '.join(map(str, going))} from {destination}?", abort=True, err=True)
    _transfer(work, dry_run, output, agreed)


def _transfer(work: "Transfer", dry_run: bool, output: Output, agreed: "Plan | None" = None) -> None:
    if dry_run:
        plan = work.plan()
    else:
        with work_display(BarColumn(), DownloadColumn(), TransferSpeedColumn()) as progress:
            task = progress.add_task("comparing", total=None)
            plan = work.run(
                agreed,
                on_step=lambda step, what: progress.reset(task, description=f"{what} {step}", total=None),
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
    emit(output, _data(plan, dry_run), lambda: _text(plan, dry_run))


def _data(plan: "Plan", dry_run: bool) -> dict[str, Any]:
    steps = [
        {
            "action": step.action,
            "entry": step.entry,
            "name": step.name,
            "version": step.number or None,
            "digest": step.digest,
            "size": step.size,
            "reason": step.reason,
        }
        for step in plan.steps
    ]
    moves = [{"entry": m.name, "alias": m.alias, "version": m.version, "previous": m.previous} for m in plan.moves]
    return {"dryRun": dry_run, "bytes": plan.size, "steps": steps, "aliases": moves}


def _text(plan: "Plan", dry_run: bool) -> Group:
    told = {"copy": ("would copy", "copied"), "delete": ("would delete", "deleted")}
    table = Table(box=None, show_header=False)
    for step in plan.steps:
        if step.action in told and (step.number or step.action == "delete"):
            size = decimal(step.size) if step.size else ""
            table.add_row(told[step.action][not dry_run], Text(str(step)), size, (step.digest or "")[:12])
        elif step.action == "skip":
            size = decimal(step.size) if step.size else ""
            table.add_row("skipped", Text(str(step)), size, Text(step.reason))
    for move in plan.moves:
        table.add_row("would move" if dry_run else "moved", Text(str(move)), "", "alias")
    same = sum(1 for step in plan.of("same") if step.number)
    moved = decimal(plan.size)
    summary = f"{moved} {'to move' if dry_run else 'moved'}, {same} version{'s' if same != 1 else ''} there already"
    return Group(*([table] if table.row_count else []), Text(summary, style="dim"))
