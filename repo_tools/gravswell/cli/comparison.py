"""``gravswell diff``: what changed from one version to another."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn
from rich.table import Table
from rich.text import Text

from gravswell.cli import completion
from gravswell.cli.output import Output, OutputOption, emit, record
from gravswell.cli.shared import Name, Repository, existing_entry, version_named, work_display
from gravswell.errors import VerificationError

if TYPE_CHECKING:
    from gravswell.quiver.comparison import Comparison

_MOST = 20
"""Rows of one kind that a person is shown; ``--output json`` has all."""


def diff(
    repo: Repository,
    name: Name,
    old: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="The old version: its number, latest or an alias.",
            autocompletion=completion.versions,
        ),
    ],
    new: Annotated[
        str, typer.Argument(metavar="B", help="The new one, named likewise.", autocompletion=completion.versions)
    ],
    other: Annotated[
        str | None, typer.Option("--in", metavar="REPO", help="B is a version in this repository instead.")
    ] = None,
    other_name: Annotated[
        str | None,
        typer.Option("--of", metavar="ENTRY", help="B is a version of this entry instead."),
    ] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 5 if clients of A would break.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Tell what changed from version A to B: for clients, in the config, the graph, the weights and the answers."""
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast, here and below
    from gravswell.quiver.comparison import Side, compare_versions  # noqa: PLC0415
    from gravswell.quiver.reader import RepositoryReader  # noqa: PLC0415

    def side(url: str, entry: str, version: str) -> Side:
        number = version_named(existing_entry(qv.ModelRepository.open(url), entry), version)
        return Side(RepositoryReader(url), entry, number)

    sides = side(repo, name, old), side(other or repo, other_name or name, new)
    with work_display(BarColumn(), DownloadColumn()) as progress:
        task = progress.add_task(f"{sides[0]} and {sides[1]}", total=None)
        found = compare_versions(
            *sides, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
    data = {**record(found), "breaking": found.breaking, "identical": found.identical}
    emit(output, data, lambda: _text(found))
    if exit_code and found.breaking:
        facts = "; ".join(change.what for change in found.clients if change.breaking)
        raise VerificationError(f"clients of {found.old} break with {found.new}: {facts}")


def _text(found: "Comparison") -> Group:
    if found.identical:
        return Group(
            Text(f"{found.old} and {found.new} are one version, byte for byte ({(found.digests[0] or '')[:12]})")
        )
    verdict = ("clients break", "bold red") if found.breaking else ("clients go on as before", "green")
    parts: list[Any] = [Text.assemble(f"{found.old} → {found.new}: ", verdict)]
    parts += _table(
        "clients",
        (
            (Text("breaks" if c.breaking else "fits", style="red" if c.breaking else "green"), c.what, c.reason)
            for c in found.clients
        ),
    )
    parts += _table("members", ((m.alias, m.old or "none", m.new or "none") for m in found.members))
    parts += _table("config", ((f.path, f.old or "unset", f.new or "unset") for f in found.config))
    parts += _table("graph", _graph(found))
    changed = [w for w in found.weights if w.state != "equal"]
    parts += _table("weights", ((w.name, w.state, _weight(w)) for w in changed))
    if found.weights:
        parts.append(
            Text(f"{len(found.weights) - len(changed)} of {len(found.weights)} weights are equal", style="dim")
        )
    parts += _table(
        "recorded answers to equal inputs", ((o.name, f"{o.samples} samples", _apart(o.max_abs)) for o in found.outputs)
    )
    parts += _table("files", ((path, _size(a), _size(b)) for path, (a, b) in found.files.items()))
    return Group(*parts)


def _graph(found: "Comparison") -> Iterator[tuple[Any, ...]]:
    graph = found.graph
    for domain, (a, b) in graph.opsets.items():
        yield f"opset of {domain}", a or "none", b or "none"
    if graph.ir_version is not None:
        yield "IR version", *graph.ir_version
    for op, (before, after) in graph.operators.items():
        yield f"{op} nodes", before, after
    for what, nodes in (
        ("added", graph.nodes_added),
        ("removed", graph.nodes_removed),
        ("changed", graph.nodes_changed),
    ):
        for node in nodes:
            yield "node", what, node
    for key, (was, now) in graph.metadata.items():
        yield key, was or "none", now or "none"


def _weight(weight: Any) -> str:
    if weight.state != "changed":
        return ""
    if weight.max_abs is None:
        types, shapes = weight.data_type, weight.shape
        if types[0] == types[1] and shapes[0] == shapes[1]:
            return "in text, or in values that are not finite"
        return f"{types[0]} {list(shapes[0] or ())} → {types[1]} {list(shapes[1] or ())}"
    relative = "" if weight.relative is None else f", {weight.relative:.3g} of its norm"
    return f"by up to {weight.max_abs:.3g}{relative}"


def _apart(largest: float | None) -> str:
    return "of another shape or kind" if largest is None else f"up to {largest:.3g} apart"


def _size(size: int | None) -> str:
    return "none" if size is None else decimal(size)


def _table(title: str, rows: Any) -> list[Any]:
    """The rows under their title; nothing where there are none."""
    given = list(rows)
    if not given:
        return []
    table = Table(box=None, show_header=False, padding=(0, 2))
    for row in given[:_MOST]:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    more = [Text(f"  and {len(given) - _MOST} more: --output json has all", style="dim")] if len(given) > _MOST else []
    return [Text(title, style="bold"), table, *more]
