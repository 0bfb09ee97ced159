"""``init``, ``add``, ``ls``, ``show``, ``verify``, ``rm``: repositories from the command line."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn
from rich.table import Column, Table
from rich.text import Text

from gravswell.cli.exporting import export
from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import Name, Repository, Yes, existing_entry, parse_target, work_display
from gravswell.cli.verifying import verify_on_server
from gravswell.errors import ConflictError, GravswellError, NotFoundError, VerificationError

EvenServed = Annotated[bool, typer.Option("--even-served", help="Also what a cluster said it serves.")]

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gravswell.quiver.reader import EntryInfo, RepositoryReader


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (init, add, export, ls, show, verify, rm):
        app.command()(command)


def init(repo: Repository, output: OutputOption = Output.TEXT) -> None:
    """Make an empty repository, or accept the one that is there."""
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast, here and below

    repository = qv.ModelRepository(repo)
    emit(output, {"url": repository.url, "entries": list(repository.models)}, lambda: Text(f"repository {repo}"))


def add(
    repo: Repository,
    name: Name,
    platform: Annotated[str, typer.Option(help="The kind of model.")] = "onnx",
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


def ls(
    repo: Repository,
    name: Annotated[str | None, typer.Argument(metavar="[ENTRY]", help="Show this entry's versions.")] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List the entries of a repository, or the versions of an entry."""
    from gravswell import quiver as qv  # noqa: PLC0415
    from gravswell.quiver.reader import RepositoryReader  # noqa: PLC0415

    found = _found(RepositoryReader(repo), qv.ModelRepository.open(repo), name)
    data = {
        entry: [
            {
                "version": v.number,
                "aliases": _names(info.aliases, v.number),
                "digest": v.digest,
                "size": v.size,
                "created": v.created and v.created.isoformat(),
            }
            for v in info.versions
        ]
        for entry, info in found.items()
    }
    unreadable = {entry: info.error for entry, info in found.items() if info.error is not None}

    def text() -> RenderableType:
        if not found:
            return Text(f"{repo} has no entries yet: gravswell add {repo} NAME")
        columns = ("entry", "latest", "versions") if name is None else ("entry", "version")
        table = Table(*columns, "aliases", "digest", "size", "created", box=None)
        for entry, info in found.items():
            for v in info.versions[:1] if name is None else info.versions:
                if name is None:
                    aliases = ", ".join(f"{alias} {number}" for alias, number in sorted(info.aliases.items()))
                    cells = [str(v.number), str(len(info.versions)), aliases]
                else:
                    cells = [str(v.number), ", ".join(_names(info.aliases, v.number))]
                created = f"{v.created:%Y-%m-%d %H:%M:%S}" if v.created else ""
                digest = v.digest[:12] if v.digest else "unverified"
                table.add_row(Text(entry), *map(Text, cells), digest, decimal(v.size), created)
            if not info.versions and info.error is None:
                table.add_row(Text(entry), "none yet")
            if info.error is not None:
                table.add_row(Text(entry), Text("unreadable", style="red"))
        return table

    emit(output, data, text)
    if unreadable:
        kind = type(next(iter(unreadable.values())))
        raise kind("; ".join(f"{entry} cannot be read: {error}" for entry, error in unreadable.items()))


def show(
    repo: Repository,
    target: Annotated[str, typer.Argument(metavar="ENTRY[/VERSION]", help="An entry, or one version of it.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Show an entry's configuration and versions, or all that is known of one version."""
    from gravswell import quiver as qv  # noqa: PLC0415

    name, number = parse_target(target)
    entry = existing_entry(qv.ModelRepository.open(repo), name)
    if number is None:
        versions = entry.versions
        data: Any = {
            "name": entry.name,
            "platform": str(entry.config.platform),
            "versions": [int(v) for v in versions],
            "aliases": entry.aliases,
            "inputs": [record.model_dump() for record in entry.inputs.values()],
            "outputs": [record.model_dump() for record in entry.outputs.values()],
            "config": str(entry.config),
        }
        emit(
            output,
            data,
            lambda: Group(
                Text(str(entry.config).rstrip()),
                "",
                f"versions: {', '.join(map(str, versions)) or 'none yet'}",
                *(f"{alias}: {number}" for alias, number in sorted(entry.aliases.items())),
            ),
        )
        return
    version = entry.version(number)
    names = _names(entry.aliases, number)
    if version.digest is None:
        data = {"version": number, "aliases": names, "digest": None, "size": version.size}
        emit(output, data, lambda: Text(f"{target} is unverified: something else wrote it, and recorded nothing of it"))
        return
    manifest = version.manifest
    data = {
        "version": number,
        "aliases": names,
        "digest": version.digest,
        "size": version.size,
        "manifest": manifest.model_dump(mode="json"),
    }

    def text() -> RenderableType:
        table = Table(Column(no_wrap=True), Column(overflow="fold"), box=None, show_header=False)
        for key, value in (
            ("digest", version.digest),
            ("aliases", ", ".join(names) or "none"),
            ("created", _when(manifest.created)),
            ("size", decimal(version.size)),
            ("parent", manifest.parent or "none"),
            ("framework", manifest.framework),
            ("exporter", manifest.exporter),
            ("opset, IR", f"{manifest.opset}, {manifest.ir_version}"),
            *((f"input {r.name}", f"{r.data_type} {list(r.dims)}") for r in manifest.signature.inputs),
            *((f"output {r.name}", f"{r.data_type} {list(r.dims)}") for r in manifest.signature.outputs),
            *((f"error of {k}", f"{e.max_abs:.3g} absolute, {e.max_rel:.3g} relative")
              for k, e in manifest.verification.errors.items()),
            *((f"file {path}", f"{decimal(record.size)}, sha256 {record.sha256[:12]}…")
              for path, record in manifest.files.items()),
        ):  # fmt: skip
            table.add_row(Text(key), Text(str(value)))
        return table

    emit(output, data, text)


def verify(
    repo: Repository,
    target: Annotated[
        str | None, typer.Argument(metavar="[ENTRY[/VERSION]]", help="What to verify. Default: everything.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Send the golden inputs to the running Triton whose HTTP is there."),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Verify versions: every file's hash, and the golden tensors in ONNX Runtime. Exits with 5 if any fails."""
    if server is not None:
        verify_on_server(repo, target, server, output)
        return
    from gravswell import quiver as qv  # noqa: PLC0415
    from gravswell.quiver.reader import RepositoryReader  # noqa: PLC0415
    from gravswell.quiver.verification import verify_version  # noqa: PLC0415

    repository = qv.ModelRepository.open(repo)
    reader = RepositoryReader(repo)
    name, number = parse_target(target) if target else (None, None)
    found = _found(reader, repository, name)
    wanted = [(entry, v.number) for entry, info in found.items() for v in info.versions if number in (None, v.number)]
    if name is not None and number is not None and not wanted:
        reader.version(name, number)  # says which there are
    rows: list[dict[str, Any]] = [
        {"entry": entry, "version": None, "result": "failed", "samples": 0, "message": str(info.error)}
        for entry, info in found.items()
        if info.error is not None
    ]
    with work_display(BarColumn(), DownloadColumn()) as progress:
        for entry, version in wanted:
            task = progress.add_task(f"{entry}/{version}", total=None)
            row: dict[str, Any] = {"entry": entry, "version": version}
            try:
                result = verify_version(
                    reader,
                    entry,
                    version,
                    progress=lambda done, total, task=task: progress.update(task, completed=done, total=total),  # type: ignore[misc]
                )
                word = "verified" if result.files else "unverified"
                row |= {"result": word, "samples": result.samples, "message": ""}
            except NotFoundError as error:  # by somebody else, since it was listed
                row |= {"result": "removed", "samples": 0, "message": str(error)}
            except GravswellError as error:
                row |= {"result": "failed", "samples": 0, "message": str(error)}
            rows.append(row)
            progress.remove_task(task)

    def text() -> RenderableType:
        table = Table("version", "result", "golden samples", "", box=None)
        style = {"verified": "green", "unverified": "yellow", "removed": "yellow", "failed": "red"}
        for row in rows:
            word = Text(row["result"], style=style[row["result"]])
            table.add_row(Text(_version_of(row)), word, str(row["samples"]), Text(row["message"]))
        return table if rows else "nothing to verify: there are no versions yet"

    emit(output, rows, text)
    failed = [_version_of(row) for row in rows if row["result"] == "failed"]
    if failed:
        raise VerificationError(f"{len(failed)} of {len(rows)} versions failed: {', '.join(failed)}")


def rm(
    repo: Repository,
    target: Annotated[str, typer.Argument(metavar="ENTRY[/VERSION]", help="An entry, or one version of it.")],
    even_served: EvenServed = False,
    yes: Yes = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Remove an entry with all its versions and aliases, or one version that no alias names.

    Not what a cluster said it serves, without --even-served. Numbers are never used again.
    """
    from gravswell import quiver as qv  # noqa: PLC0415

    repository = qv.ModelRepository.open(repo)
    name, number = parse_target(target)
    entry = existing_entry(repository, name)
    what = _with_versions(entry) if number is None else f"{name}/{entry.version(number)}"
    if not yes:
        told = _told(repository, name, even_served=even_served) if number is None else ""
        typer.confirm(f"{told}Remove {what} from {repo}?", abort=True, err=True)
    if number is None:
        repository.remove(name, even_served=even_served)
    else:
        entry.remove_version(number, even_served=even_served)
    emit(output, {"removed": target}, lambda: Text(f"removed {what}"))


def _found(reader: "RepositoryReader", repository: Any, name: str | None) -> "dict[str, EntryInfo]":
    """Every entry, or the one named."""
    return reader.survey() if name is None else {name: reader.look(existing_entry(repository, name).name)}


def _names(aliases: "Mapping[str, int]", number: int) -> list[str]:
    return sorted(alias for alias, target in aliases.items() if target == number)


def _version_of(row: "dict[str, Any]") -> str:
    return row["entry"] if row["version"] is None else f"{row['entry']}/{row['version']}"


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


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else ""
