"""``init``, ``add``, ``export``, ``ls``, ``show``, ``verify``, ``rm``: repositories from the command line."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import PurePath
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit, stderr
from gravswell.errors import GravswellError, InvalidInputError, VerificationError

Repository = Annotated[str, typer.Argument(metavar="REPO", help="The repository: a path or file:// URL.")]
Name = Annotated[str, typer.Argument(metavar="ENTRY", help="The entry's name.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


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
    yes: Yes = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Add an entry, still without a version."""
    from gravswell import quiver as qv  # noqa: PLC0415

    repository = qv.ModelRepository.open(repo)
    if force and not yes and name in repository.models:
        typer.confirm(f"Replace {_with_versions(repository.models[name])} in {repo}?", abort=True, err=True)
    entry = repository.add(name, platform, force=force)
    emit(output, {"name": entry.name, "platform": str(entry.platform)}, lambda: Text(f"added {name}"))


def export(
    repo: Repository,
    name: Name,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="model.onnx; file.py:object or module:object, a model or a function that returns one; "
            "or a pickled scikit-learn estimator (.joblib, .pkl) with --allow-pickle.",
        ),
    ],
    input_shape: Annotated[
        list[str] | None, typer.Option(metavar="NAME=DIMS", help="Shape of an input, -1 for any size: x=-1,64.")
    ] = None,
    input_type: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TYPE", help="Type of an input: ids=int64.")
    ] = None,
    output_name: Annotated[list[str] | None, typer.Option(help="Name of each output, in order.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="The version's number. Default: the next.")] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(min=0, help="Let the server form batches of up to so many rows.")
    ] = None,
    opset: Annotated[int | None, typer.Option(min=1, help="The ONNX opset to export to.")] = None,
    rtol: Annotated[float | None, typer.Option(min=0, help="Relative tolerance of the proof.")] = None,
    atol: Annotated[float | None, typer.Option(min=0, help="Absolute tolerance of the proof.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load a pickle. This runs the code in it: only files that you trust.")
    ] = False,
    create: Annotated[bool, typer.Option("--add", help="Add the entry first if there is none.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Export a model as the next version: proved in ONNX Runtime first, then published all at once."""
    from gravswell import quiver as qv  # noqa: PLC0415
    from gravswell.cli.loading import load_model  # noqa: PLC0415

    repository = qv.ModelRepository.open(repo)
    shapes = {key: _dims(key, dims) for key, dims in _pairs("--input-shape", input_shape)} or None
    with _progress(TimeElapsedColumn()) as progress:
        task = progress.add_task(f"loading {model}", total=None)
        loaded = load_model(model, allow_pickle=allow_pickle)
        types = dict(_pairs("--input-type", input_type)) or None
        with _present(repository, name, create) as entry:
            path = entry.export_version(
                loaded,
                shapes,
                output_name,
                version=version,
                input_types=types,
                max_batch_size=max_batch_size,
                opset=opset,
                rtol=rtol,
                atol=atol,
                on_stage=lambda stage: progress.update(task, description=stage),
            )
    made = entry.version(int(PurePath(path).parent.name))  # not the newest: another writer may be exporting too
    manifest = made.manifest
    proof = manifest.verification
    sizes = f" of {', '.join(map(str, proof.batch_sizes))} rows" if proof.batch_sizes else ""
    apart = max((error.max_abs for error in proof.errors.values()), default=0.0)
    emit(
        output,
        {"path": path, "version": int(made), "digest": made.digest, "manifest": manifest.model_dump(mode="json")},
        lambda: Group(
            Text(path, style="bold"),
            f"  equals {proof.reference} on {proof.samples} batches{sizes}",
            f"  differences up to {apart:.2g}",
            f"  digest {made.digest}",
        ),
    )


def ls(
    repo: Repository,
    name: Annotated[str | None, typer.Argument(metavar="[ENTRY]", help="Show this entry's versions.")] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List the entries of a repository, or the versions of an entry."""
    from gravswell import quiver as qv  # noqa: PLC0415
    from gravswell.quiver.reader import RepositoryReader  # noqa: PLC0415

    repository = qv.ModelRepository.open(repo)
    reader = RepositoryReader(repo)
    names = list(repository.models) if name is None else [_entry(repository, name).name]
    found = {entry: reader.versions(entry) for entry in names}
    data = {
        entry: [
            {"version": v.number, "digest": v.digest, "size": v.size, "created": v.created and v.created.isoformat()}
            for v in versions
        ]
        for entry, versions in found.items()
    }

    def text() -> RenderableType:
        if not found:
            return Text(f"{repo} has no entries yet: gravswell add {repo} NAME")
        columns = ("entry", "latest", "versions") if name is None else ("entry", "version")
        table = Table(*columns, "digest", "size", "created", box=None)
        for entry, versions in found.items():
            for v in versions[:1] if name is None else versions:
                numbers = (str(v.number), str(len(versions))) if name is None else (str(v.number),)
                created = f"{v.created:%Y-%m-%d %H:%M:%S}" if v.created else ""
                digest = v.digest[:12] if v.digest else "unverified"
                table.add_row(Text(entry), *numbers, digest, decimal(v.size), created)
            if not versions:
                table.add_row(Text(entry), "none yet")
        return table

    emit(output, data, text)


def show(
    repo: Repository,
    target: Annotated[str, typer.Argument(metavar="ENTRY[/VERSION]", help="An entry, or one version of it.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Show an entry's configuration and versions, or all that is known of one version."""
    from gravswell import quiver as qv  # noqa: PLC0415

    name, number = _target(target)
    entry = _entry(qv.ModelRepository.open(repo), name)
    if number is None:
        versions = entry.versions
        data: Any = {
            "name": entry.name,
            "platform": str(entry.config.platform),
            "versions": [int(v) for v in versions],
            "inputs": [record.model_dump() for record in entry.inputs.values()],
            "outputs": [record.model_dump() for record in entry.outputs.values()],
            "config": str(entry.config),
        }
        emit(
            output,
            data,
            lambda: Group(
                Text(str(entry.config).rstrip()), "", f"versions: {', '.join(map(str, versions)) or 'none yet'}"
            ),
        )
        return
    version = entry.version(number)
    if version.digest is None:
        data = {"version": number, "digest": None, "size": version.size}
        emit(output, data, lambda: Text(f"{target} is unverified: something else wrote it, and recorded nothing of it"))
        return
    manifest = version.manifest
    data = {
        "version": number,
        "digest": version.digest,
        "size": version.size,
        "manifest": manifest.model_dump(mode="json"),
    }

    def text() -> RenderableType:
        table = Table(Column(no_wrap=True), Column(overflow="fold"), box=None, show_header=False)
        for key, value in (
            ("digest", version.digest),
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
    output: OutputOption = Output.TEXT,
) -> None:
    """Verify versions: every file's hash, and the golden tensors in ONNX Runtime. Exits with 5 if any fails."""
    from gravswell import quiver as qv  # noqa: PLC0415
    from gravswell.quiver.reader import RepositoryReader  # noqa: PLC0415
    from gravswell.quiver.verification import verify_version  # noqa: PLC0415

    repository = qv.ModelRepository.open(repo)
    reader = RepositoryReader(repo)
    name, number = _target(target) if target else (None, None)
    names = list(repository.models) if name is None else [_entry(repository, name).name]
    wanted = [(e, v.number) for e in names for v in reader.versions(e) if number in (None, v.number)]
    if number is not None and not wanted:
        reader.version(names[0], number)  # says which there are
    rows: list[dict[str, Any]] = []
    with _progress(BarColumn(), DownloadColumn()) as progress:
        for entry, version in wanted:
            task = progress.add_task(f"{entry}/{version}", total=None)
            row: dict[str, Any] = {"entry": entry, "version": version}
            try:
                found = verify_version(
                    reader,
                    entry,
                    version,
                    progress=lambda done, total, task=task: progress.update(task, completed=done, total=total),  # type: ignore[misc]
                )
                row |= {"result": "verified" if found.files else "unverified", "samples": found.samples, "message": ""}
            except GravswellError as error:
                row |= {"result": "failed", "samples": 0, "message": str(error)}
            rows.append(row)
            progress.remove_task(task)

    def text() -> RenderableType:
        table = Table("version", "result", "golden samples", "", box=None)
        style = {"verified": "green", "unverified": "yellow", "failed": "red"}
        for row in rows:
            result = Text(row["result"], style=style[row["result"]])
            version = Text(f"{row['entry']}/{row['version']}")
            table.add_row(version, result, str(row["samples"]), Text(row["message"]))
        return table if rows else "nothing to verify: there are no versions yet"

    emit(output, rows, text)
    failed = [f"{row['entry']}/{row['version']}" for row in rows if row["result"] == "failed"]
    if failed:
        raise VerificationError(f"{len(failed)} of {len(rows)} versions failed: {', '.join(failed)}")


def rm(
    repo: Repository,
    target: Annotated[str, typer.Argument(metavar="ENTRY[/VERSION]", help="An entry, or one version of it.")],
    yes: Yes = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Remove an entry with all its versions, or one version. Numbers are never used again."""
    from gravswell import quiver as qv  # noqa: PLC0415

    repository = qv.ModelRepository.open(repo)
    name, number = _target(target)
    entry = _entry(repository, name)
    what = _with_versions(entry) if number is None else f"{name}/{entry.version(number)}"
    if not yes:
        typer.confirm(f"Remove {what} from {repo}?", abort=True, err=True)
    if number is None:
        repository.remove(name)
    else:
        entry.remove_version(number)
    emit(output, {"removed": target}, lambda: Text(f"removed {what}"))


@contextmanager
def _present(repository: Any, name: str, create: bool) -> Iterator[Any]:
    """The entry; one that had to be made for this goes again if this fails, unless somebody else exported to it."""
    if not create or name in repository.models:
        yield _entry(repository, name)
        return
    entry = repository.add(name)
    try:
        yield entry
    except BaseException:
        with suppress(GravswellError):  # the error in hand says more
            if not entry.versions:
                repository.remove(name)
        raise


def _with_versions(entry: Any) -> str:
    count = len(entry.versions)
    return f"{entry.name} with its {count} version{'s' if count != 1 else ''}"


def _entry(repository: Any, name: str) -> Any:
    from gravswell.errors import NotFoundError  # noqa: PLC0415
    from gravswell.quiver.layout import check_name  # noqa: PLC0415

    if name not in repository.models:
        check_name(name)
        known = ", ".join(repository.models) or "none"
        raise NotFoundError(
            f"there is no entry {name!r} in {repository.url}; entries: {known}; `gravswell add` makes one"
        )
    return repository.models[name]


def _target(target: str) -> tuple[str, int | None]:
    from gravswell.quiver.layout import parse_version  # noqa: PLC0415

    name, slash, version = target.partition("/")
    if not slash:
        return name, None
    number = parse_version(version)
    if number is None:
        raise InvalidInputError(f"{target!r}: {version!r} is no version; write ENTRY/NUMBER, with a number from 1 on")
    return name, number


def _pairs(option: str, values: list[str] | None) -> list[tuple[str, str]]:
    pairs = []
    for value in values or []:
        key, equals, rest = value.partition("=")
        if not equals or not key or not rest:
            raise InvalidInputError(f"{option} {value!r}: write NAME=VALUE")
        pairs.append((key, rest))
    return pairs


def _dims(name: str, dims: str) -> tuple[int | None, ...]:
    try:
        numbers = [int(dim) for dim in dims.split(",")]
    except ValueError:
        raise InvalidInputError(f"--input-shape {name}={dims}: write sizes with commas, -1 for any: x=-1,64") from None
    return tuple(None if n == -1 else n for n in numbers)


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else ""


def _progress(*columns: ProgressColumn) -> Progress:
    """A display of what is being done, on stderr, for a person only."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        *columns,
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    )
