"""``init``, ``add``, ``rm``: entries come and go from the command line."""

from typing import Annotated, Any

import typer
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import EvenServed, Name, Repository, Target, Yes, target_of
from gravswell.errors import ConflictError


def init(repo: Repository, output: OutputOption = Output.TEXT) -> None:
    """Make an empty repository, or accept the one that is there."""
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast, here and below

    repository = qv.ModelRepository(repo)
    emit(output, {"url": repository.url, "entries": list(repository.models)}, lambda: Text(f"repository {repo}"))


def add(
    repo: Repository,
    name: Name,
    platform: Annotated[str, typer.Option(help="The kind of model: onnx or pipeline.")] = "onnx",
    force: Annotated[bool, typer.Option("--force", help="Replace an entry, with all its versions.")] = False,
    even_served: EvenServed = False,
    yes: Yes = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Add an entry, still without a version."""
    from gravswell import quiver as qv  # noqa: PLC0415

    repository = qv.ModelRepository.open(repo)
    if force and not yes and name in repository.models:
        question = f"Replace {_with_versions(repository.models[name])} in {repo}?"
        typer.confirm(_told(repository, name, even_served=even_served) + question, abort=True, err=True)
    try:
        entry = repository.add(name, platform, force=force, even_served=even_served)
    except ConflictError as error:
        if force:
            raise
        raise ConflictError(
            f"{repo} has an entry {name!r} already: `gravswell show {repo} {name}` shows it, --force replaces it"
        ) from error
    emit(output, {"name": entry.name, "platform": str(entry.platform)}, lambda: Text(f"added {name}"))


def rm(
    repo: Repository,
    target: Target,
    even_served: EvenServed = False,
    yes: Yes = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Remove an entry with all its versions and aliases, or one version that no alias names.

    Not what a cluster said it serves, without --even-served. Numbers are never used again.
    """
    from gravswell import quiver as qv  # noqa: PLC0415
    from gravswell.quiver.aliases import is_alias  # noqa: PLC0415

    repository = qv.ModelRepository.open(repo)
    entry, number = target_of(repository, target)
    if number is not None and is_alias(alias := target.partition("/")[2]):
        raise ConflictError(
            f"{target} is a name for {entry.name}/{number}, and would be left without a version: "
            f"`gravswell unalias {repo} {entry.name} {alias}` takes the name away, `gravswell promote` moves it; "
            f"then remove {entry.name}/{number}"
        )
    what = _with_versions(entry) if number is None else f"{entry.name}/{entry.version(number)}"
    if not yes:
        told = _told(repository, entry.name, even_served=even_served) if number is None else ""
        typer.confirm(f"{told}Remove {what} from {repo}?", abort=True, err=True)
    if number is None:
        repository.remove(entry.name, even_served=even_served)
    else:
        entry.remove_version(number, even_served=even_served)
    removed = entry.name if number is None else f"{entry.name}/{number}"
    emit(output, {"removed": removed}, lambda: Text(f"removed {what}"))


def _with_versions(entry: Any) -> str:
    count = len(entry.versions)
    return f"{entry.name} with its {count} version{'s' if count != 1 else ''}"


def _told(repository: Any, name: str, *, even_served: bool) -> str:
    """What stands before the question whether an entry may go: who needs its versions.

    ConflictError for one that may not go, before anybody is asked.
    """
    from gravswell.quiver.removal import refuse_served  # noqa: PLC0415

    held = repository.holders(name)
    if not even_served:
        refuse_served(name, held)
    needs = [f"{', '.join(h.aliases)} names {name}/{number}" for number, h in held.items() if h.aliases]
    needs += [f"{', '.join(h.clusters)} serves {name}/{number}" for number, h in held.items() if h.clusters]
    return f"{'; '.join(needs)}. " if needs else ""
