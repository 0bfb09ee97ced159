"""``gravswell pools``: node pools in a cloud, and whether anybody still wants them."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit, record, stderr
from gravswell.cli.shared import Context, Kubeconfig, Yes, work_display
from gravswell.errors import GravswellError

if TYPE_CHECKING:
    from gravswell.cloudbreak.google.audit import Found, PoolFound, Verdict

app = typer.Typer(
    name="pools", help="Node pools in a cloud, and whether anybody still wants them.", no_args_is_help=True
)


@app.command()
def audit(
    project: Annotated[str, typer.Option(metavar="PROJECT", help="The project to look in.")],
    location: Annotated[str, typer.Option(metavar="LOCATION", help="A zone or a region. Default: all of them.")] = "-",
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Another server than Google's: http://HOST:PORT is an emulator.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the orphans, after a question.")] = False,
    yes: Yes = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """List the node pools and clusters of a project that gravswell made, and find those that nobody wants any more.

    A node pool that the operator made is an orphan when its GPUNodePool is not in the cluster of --context, and
    retained when that one said that it should stay. Without --delete nothing is changed. What was retained, and what
    people made with the library, is listed and never deleted here.
    """
    import asyncio  # noqa: PLC0415 - keeps --help fast, here and below

    from gravswell.cloudbreak.google import Api  # noqa: PLC0415
    from gravswell.cloudbreak.google import audit as audits  # noqa: PLC0415

    with work_display() as progress:
        progress.add_task("asking the cluster and the cloud", total=None)
        # The cloud first: what is in its answer was made for a pool that the cluster knows by then.
        found = audits.find(Api(project, location, endpoint=endpoint))
        asked = asyncio.run(audits.ask(kubeconfig, context))
    verdicts = [(pool, audits.judge(pool, asked)) for pool in found.pools]
    orphans = [pool for pool, verdict in verdicts if verdict is audits.Verdict.ORPHAN]
    removed, failures = set[str](), list[GravswellError]()
    if found.missing_zones:
        stderr.print(Text(f"these zones did not answer: {', '.join(found.missing_zones)}", style="yellow"))
    if delete and orphans:
        if not yes:
            stderr.print(_table(found, verdicts))
            many = f"{len(orphans)} node pool{'s' if len(orphans) != 1 else ''}"
            typer.confirm(f"Delete {many} with all nodes in {project}?", abort=True, err=True)
        for pool in orphans:
            try:
                audits.remove(Api(project, pool.location, endpoint=endpoint), pool)
            except GravswellError as error:
                failures.append(error)  # the others cost money too
            else:
                removed.add(pool.path)
    data = {
        "project": project,
        "pools": [{**record(pool), "verdict": verdict, "removed": pool.path in removed} for pool, verdict in verdicts],
        "clusters": found.clusters,
        "missingZones": found.missing_zones,
    }
    emit(output, data, lambda: Group(_table(found, verdicts, removed), _summary(len(orphans), len(removed))))
    if failures:
        raise type(failures[0])("; ".join(str(error) for error in failures)) from failures[0]


def _table(
    found: "Found", verdicts: "list[tuple[PoolFound, Verdict]]", removed: Collection[str] = ()
) -> RenderableType:
    table = Table("what", "where", "name", "whose", "machines", "status", box=None)
    for cluster in found.clusters:
        table.add_row(
            "cluster", cluster.location, cluster.name, f"by hand: {cluster.owner}", "", cluster.status.lower()
        )
    for pool, verdict in verdicts:
        style = {"owned": "green", "orphan": "red", "retained": "yellow"}.get(verdict, "")
        whose = Text(f"{verdict}: {pool.owner or pool.pool_id}", style=style)
        machines = f"{pool.machine_type}, {pool.gpus} GPU{'s' if pool.gpus != 1 else ''}"
        status = "deleted" if pool.path in removed else pool.status.lower().replace("_", " ")
        table.add_row("node pool", f"{pool.location}/{pool.cluster}", pool.name, whose, machines, status)
    return table


def _summary(orphans: int, deleted: int) -> Text:
    if not orphans:
        return Text("no orphans")
    if deleted:
        return Text(f"{deleted} orphan{'s' if deleted != 1 else ''} deleted")
    return Text(f"{orphans} orphan{'s' if orphans != 1 else ''}; --delete deletes them with their nodes")
