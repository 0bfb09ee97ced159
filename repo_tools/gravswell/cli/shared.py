"""What the commands on a repository share: their arguments, how a target is read, and how work under way is shown."""

import enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from gravswell.cli import completion
from gravswell.cli.output import stderr
from gravswell.errors import InvalidInputError, NotFoundError


class Panel(enum.StrEnum):
    """The groups of commands in ``gravswell --help``."""

    REPOSITORY = "Repository"
    VERSIONS = "Versions and aliases"
    CHECK = "Check"
    SERVE = "Serve and ask"
    TUNE = "Tune"
    KUBERNETES = "Kubernetes"
    CLUSTER = "Cluster on this machine"


Repository = Annotated[str, typer.Argument(metavar="REPO", help="The repository: a path, gs://, s3:// or az:// URL.")]
Name = Annotated[str, typer.Argument(metavar="ENTRY", help="The entry's name.", autocompletion=completion.entries)]
OneEntry = Annotated[
    str | None,
    typer.Argument(metavar="[ENTRY]", help="Only this entry. Default: all.", autocompletion=completion.entries),
]
OnlyEntries = Annotated[
    list[str] | None,
    typer.Option(
        "--entry", metavar="ENTRY", help="Only this entry; may be repeated.", autocompletion=completion.entries
    ),
]
Target = Annotated[
    str,
    typer.Argument(
        metavar="ENTRY[/VERSION]",
        help="An entry, or one version of it: its number, latest or an alias.",
        autocompletion=completion.targets,
    ),
]
SourceVersion = Annotated[
    str,
    typer.Argument(
        metavar="ENTRY[/VERSION]",
        help="The version to start from: its number, latest or an alias. Default: the newest.",
        autocompletion=completion.targets,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
EvenServed = Annotated[bool, typer.Option("--even-served", help="Also what a cluster said it serves.")]
Context = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="NAME",
        help="A cluster, by its context in the kubeconfig.",
        autocompletion=completion.contexts,
    ),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option("--kubeconfig", metavar="FILE", help="The kubeconfig. Default: KUBECONFIG's, else ~/.kube/config."),
]


def existing_entry(repository: Any, name: str) -> Any:
    """The entry; NotFoundError, naming those that exist, if there is none."""
    from gravswell.quiver.layout import check_name  # noqa: PLC0415 - keeps --help fast, here and below

    if name not in repository.models:
        check_name(name)
        known = ", ".join(repository.models) or "none"
        raise NotFoundError(
            f"there is no entry {name!r} in {repository.location}; entries: {known}; `gravswell add` makes one"
        )
    return repository.models[name]


def target_of(repository: Any, target: str) -> tuple[Any, int | None]:
    """The entry that ``target`` names, and the version's number where it names one: ``m``, ``m/3``, ``m/champion``.

    NotFoundError without the entry, and as :func:`version_named`. That a numbered version is there is not looked up.
    """
    name, slash, version = target.partition("/")
    entry = existing_entry(repository, name)
    return entry, version_named(entry, version) if slash else None


def version_named(entry: Any, version: str) -> int:
    """The number of the version that a number, ``latest`` or an alias names.

    NotFoundError where there is none of that name, InvalidInputError for what can name none.
    """
    from gravswell.quiver.aliases import LATEST, is_alias  # noqa: PLC0415
    from gravswell.quiver.layout import parse_version  # noqa: PLC0415

    number = parse_version(version)
    if number is not None:
        return number
    if version == LATEST:
        return int(entry.version())
    if not is_alias(version):
        raise InvalidInputError(
            f"{version!r} is no version of {entry.name}: write a number from 1 on, latest, or an alias"
        )
    named: dict[str, int] = entry.aliases
    if version not in named:
        known = ", ".join(f"{alias} ({at})" for alias, at in sorted(named.items())) or "none"
        raise NotFoundError(f"{version!r} is no version of {entry.name}, and no alias either; its aliases: {known}")
    return named[version]


def check_file_to_write(path: Path) -> None:
    """Before the work is done whose result goes there: NotFoundError without its folder, InvalidInputError for one."""
    if not path.parent.is_dir():
        raise NotFoundError(f"there is no folder {path.parent} to write {path.name} into")
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder: name a file in it")


class Sized(ProgressColumn):
    """A column that is empty until it is known how much there is to do."""

    max_refresh = 0.5

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__()
        self._column = column

    def render(self, task: Task) -> Any:
        """As the column that is inside."""
        return Text() if task.total is None else self._column(task)


def work_display(*columns: ProgressColumn) -> Progress:
    """A display of what is being done, on stderr, for a person only."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        *columns,
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    )
