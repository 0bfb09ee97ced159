"""``gravswell plan``: what the operator would create for a manifest, without a cluster."""

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from gravswell.cli.output import stderr, stdout
from gravswell.cli.shared import Panel
from gravswell.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from gravswell_operator.api.common import Resource
    from gravswell_operator.plan import Needs, Plan

_GIB = 1024**3


class PlanOutput(enum.StrEnum):
    """How the plan is printed."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


def plan(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Manifests, or folders of them; - reads standard input.")
    ],
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Namespace of the objects that do not name one.")
    ] = "default",
    image: Annotated[str | None, typer.Option(help="gravswell image of agents and listers.")] = None,
    output: Annotated[
        PlanOutput, typer.Option("--output", "-o", help="text: a summary; json: all of it; yaml: the objects.")
    ] = PlanOutput.TEXT,
) -> None:
    """Show what the operator would create for manifests, and what would stop it.

    Needs no cluster: what the manifests refer to is looked for in the files. Exits with 2 when an object is invalid or
    would never become ready.
    """
    import json  # noqa: PLC0415  `gravswell --help` must not wait for these

    import yaml  # noqa: PLC0415

    from gravswell import __version__  # noqa: PLC0415
    from gravswell_operator.desired.objects import Options  # noqa: PLC0415
    from gravswell_operator.plan import plan as make_plan  # noqa: PLC0415

    options = Options(image=image or f"ghcr.io/gravswell/gravswell:{__version__}")
    made = make_plan(list(_resources(files, namespace)), options)
    if output is PlanOutput.JSON:
        typer.echo(json.dumps(_data(made), indent=2))
    elif output is PlanOutput.YAML:
        typer.echo(yaml.safe_dump_all([m for p in made.objects for m in p.children], sort_keys=False), nl=False)
        _print_notes(made)
    else:
        stdout.print(_tree(made))
        _print_notes(made)
    if made.blocked:
        raise typer.Exit(InvalidInputError.exit_code)


def _resources(files: list[Path], namespace: str) -> Iterator["Resource"]:
    """The gravswell objects of the files, validated as the API server would; other kinds are passed over."""
    from gravswell_operator.api.common import API_VERSION  # noqa: PLC0415
    from gravswell_operator.api.manifest import parse  # noqa: PLC0415

    found = False
    for where, document in _documents(files):
        if not isinstance(document, dict):
            raise InvalidInputError(f"{where}: a manifest is a mapping with apiVersion, kind, metadata and spec")
        if document.get("apiVersion") != API_VERSION:
            stderr.print(
                f"[dim]{escape(where)}: {escape(str(document.get('kind')))} is not gravswell's; passed over[/]"
            )
            continue
        try:
            resource = parse(document)
        except InvalidInputError as error:
            raise InvalidInputError(f"{where}: {error}") from None
        found = True
        if resource.NAMES.scope == "Namespaced" and not resource.metadata.namespace:
            metadata = resource.metadata.model_copy(update={"namespace": namespace})
            resource = resource.model_copy(update={"metadata": metadata})
        yield resource
    if not found:
        raise InvalidInputError(f"no object of {API_VERSION} in {', '.join(map(str, files))}")


def _documents(files: list[Path]) -> Iterator[tuple[str, Any]]:
    """Each document of each file, and where it stands."""
    import yaml  # noqa: PLC0415

    for file in _expand(files):
        try:
            text = typer.get_text_stream("stdin").read() if file == Path("-") else file.read_text()
            documents = [d for d in yaml.safe_load_all(text) if d is not None]
        except yaml.YAMLError as error:
            raise InvalidInputError(f"{file} is not YAML: {error}") from None
        except UnicodeDecodeError:
            raise InvalidInputError(f"{file} is not text") from None
        except OSError as error:
            raise NotFoundError(f"{file} cannot be read: {error.strerror}") from None
        for document in documents:
            yield from _items(str(file), document)


def _items(where: str, document: Any) -> Iterator[tuple[str, Any]]:
    """The document, or the items of a list, as ``kubectl get -o yaml`` writes one."""
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list) or not str(document.get("kind")).endswith("List"):
        yield where, document
        return
    for number, item in enumerate(items):
        yield from _items(f"{where}, items[{number}]", item)


def _expand(files: list[Path]) -> Iterator[Path]:
    for file in files:
        if not file.is_dir():
            yield file
            continue
        inside = sorted(f for f in file.iterdir() if f.suffix in (".yaml", ".yml", ".json"))
        if not inside:
            raise NotFoundError(f"the folder {file} holds no manifest (.yaml, .yml, .json)")
        yield from inside


def _data(made: "Plan") -> dict[str, Any]:
    return {
        "objects": [
            {
                "object": planned.title,
                "needs": _needs_data(planned.needs) if planned.needs is not None else None,
                "creates": planned.children,
            }
            for planned in made.objects
        ],
        "notes": [
            {"object": n.subject, "severity": "error" if n.error else "warning", "message": n.message}
            for n in made.notes
        ],
        "blocked": made.blocked,
    }


def _needs_data(needs: "Needs") -> dict[str, Any]:
    return {
        "replicas": needs.replicas,
        "gpus": needs.gpus,
        "vcpus": float(needs.vcpus),
        "memoryBytes": needs.memory_bytes,
        "surge": needs.surge,
        "ranks": needs.ranks,
    }


def _tree(made: "Plan") -> Table:
    grid = Table.grid()
    for planned in made.objects:
        tree = Tree(f"[bold]{escape(planned.title)}[/]")
        for child in planned.children:
            metadata = child["metadata"]
            where = f"{metadata['namespace']}/" if "namespace" in metadata else ""
            tree.add(f"{child['kind']} {where}{metadata['name']}")
        if planned.needs is not None:
            tree.add(f"[cyan]{_needs_text(planned.needs)}[/]")
        if not planned.children:
            tree.add("[dim]creates nothing of its own[/]")
        grid.add_row(tree)
    return grid


def _needs_text(needs: "Needs") -> str:
    from gravswell_operator.conditions import count  # noqa: PLC0415  `gravswell --help` must not wait for it

    rollout = "a new replica starts before an old one stops" if needs.surge else "one replica at a time, in place"
    pods = f"at most {count(needs.replicas, 'replica')}"
    if needs.ranks:
        pods, rollout = count(needs.replicas, "rank"), "all ranks stop, then all start"
    return (
        f"{pods}: {count(needs.gpus, 'GPU')}, {needs.vcpus.normalize():f} vCPUs, "
        f"{needs.memory_bytes / _GIB:.1f} GiB; roll-out: {rollout}"
    )


def _print_notes(made: "Plan") -> None:
    for note in made.notes:
        word = "[bold red]error:[/]" if note.error else "[yellow]warning:[/]"
        stderr.print(f"{word} {escape(note.subject)}: {escape(note.message)}", highlight=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add ``plan`` to the command line."""
    app.command(rich_help_panel=Panel.KUBERNETES)(plan)
