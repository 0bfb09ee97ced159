"""What the commands on a repository share: their arguments, how a target is read, and how work under way is shown."""

from typing import Annotated, Any

import typer
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from gravswell.cli.output import stderr
from gravswell.errors import InvalidInputError, NotFoundError

Repository = Annotated[str, typer.Argument(metavar="REPO", help="The repository: a path, gs://, s3:// or az:// URL.")]
Name = Annotated[str, typer.Argument(metavar="ENTRY", help="The entry's name.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


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


def parse_target(target: str) -> tuple[str, int | None]:
    """The entry's name, and the version's number where ``target`` names one."""
    from gravswell.quiver.layout import parse_version  # noqa: PLC0415

    name, slash, version = target.partition("/")
    if not slash:
        return name, None
    number = parse_version(version)
    if number is None:
        raise InvalidInputError(f"{target!r}: {version!r} is no version; write ENTRY/NUMBER, with a number from 1 on")
    return name, number


def version_named(entry: Any, version: str) -> int:
    """The number of the version that a number, ``latest`` or an alias names. NotFoundError where there is none."""
    from gravswell.quiver.layout import parse_version  # noqa: PLC0415

    number = parse_version(version)
    if number is not None:
        return number
    if version == "latest":
        versions: list[int] = entry.versions
        if not versions:
            raise NotFoundError(f"{entry.name} has no version yet: gravswell export makes one")
        return int(versions[-1])
    named: dict[str, int] = entry.aliases
    if version not in named:
        known = ", ".join(f"{alias} ({at})" for alias, at in sorted(named.items())) or "none"
        raise NotFoundError(f"{version!r} is no version of {entry.name}, and no alias either; its aliases: {known}")
    return named[version]


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
