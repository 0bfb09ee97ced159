"""``gravswell top``: who holds which device of which replica, live."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit, stdout
from gravswell.cli.shared import Context, Kubeconfig, Panel
from gravswell.errors import UnavailableError

if TYPE_CHECKING:
    from gravswell_operator.usage import ModelUse, ReplicaUse, RolloutUse, ServerUse, Usage

    Look = Callable[[], Awaitable[Usage]]


def top(
    server: Annotated[str | None, typer.Argument(metavar="[SERVER]", help="Only this InferenceServer.")] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Default: the one of the kubeconfig's context.")
    ] = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of every namespace.")] = False,
    selector: Annotated[
        str,
        typer.Option(
            "--selector", "-l", metavar="LABELS", help="Only servers with these labels: team=vision,env!=test."
        ),
    ] = "",
    once: Annotated[bool, typer.Option("--once", help="Print it once, and end.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between looks.")] = 2.0,
    metrics: Annotated[
        bool, typer.Option(help="Ask the replicas how much their GPUs are used, where they are in reach.")
    ] = True,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show servers, their replicas, and the models on each GPU, until interrupted.

    Once only with --once, as JSON, or where the output is no terminal.
    """
    import asyncio  # noqa: PLC0415  `gravswell --help` must not wait for these

    from gravswell.kube import credentials  # noqa: PLC0415
    from gravswell.kube.client import Client  # noqa: PLC0415
    from gravswell_operator import usage  # noqa: PLC0415

    async def run() -> None:
        account = await credentials.load(kubeconfig, context)
        where = None if all_namespaces else namespace or own_namespace(kubeconfig, context)
        async with Client(account, name="gravswell") as client:

            async def look() -> "Usage":
                return await usage.look(client, namespace=where, selector=selector, name=server, metrics=metrics)

            if once or output is not Output.TEXT or not stdout.is_terminal:
                seen = await look()
                emit(output, seen, lambda: shown(seen, where))
            else:
                await follow(look, where, interval, stdout)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        return  # how a live view ends


def own_namespace(kubeconfig: Path | None, context: str | None) -> str:
    """The namespace that kubectl would take, of a kubeconfig that could be read already."""
    from kubernetes.aio.config import list_kube_config_contexts  # noqa: PLC0415

    from gravswell.errors import NotFoundError  # noqa: PLC0415
    from gravswell.kube.credentials import pod_namespace  # noqa: PLC0415

    if kubeconfig is None and context is None:
        try:
            return pod_namespace()
        except NotFoundError:
            pass  # not in a pod
    listed: Any = list_kube_config_contexts  # the client's config module has no types
    contexts, current = listed(str(kubeconfig) if kubeconfig is not None else None)
    chosen = current if context is None else next(c for c in contexts if c["name"] == context)
    namespace: str = chosen["context"].get("namespace") or "default"
    return namespace


async def follow(look: "Look", where: str | None, interval: float, console: Console) -> None:
    """Show what ``look`` sees, and look again every ``interval`` seconds, for ever.

    What fails at the first look is raised. Later, an API server that does not answer is told below what was seen last.
    """
    import asyncio  # noqa: PLC0415

    from rich.live import Live  # noqa: PLC0415

    seen = shown(await look(), where)
    with Live(seen, console=console, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(interval)
            try:
                seen = shown(await look(), where)
                live.update(seen, refresh=True)
            except UnavailableError as error:
                live.update(Group(seen, Text(f"{error}; shown is what was there before", style="red")), refresh=True)


def shown(seen: "Usage", where: str | None) -> RenderableType:
    """What a person sees of ``seen``; ``where``: the namespace that it is all of, None for several."""
    notes = [Text(note, style="yellow") for note in seen.notes]
    if not seen.servers:
        there = f"in namespace {where}; -A looks in all" if where is not None else "in any namespace"
        return Group(Text(f"there is no InferenceServer that was asked for {there}"), *notes)
    table = Table("server", "replica", "GPU", "model", "version", "state", box=None)
    for server in seen.servers:
        for row in _rows(server, with_namespace=where is None):
            table.add_row(*row)
    return Group(table, *notes)


def _rows(server: "ServerUse", *, with_namespace: bool) -> Iterator[list[Text]]:
    """A row for each model on each device of each replica; what is as in the row before is left out."""
    name = f"{server.namespace}/{server.name}" if with_namespace else server.name
    ready = sum(replica.ready for replica in server.replicas)
    yield [
        Text(name, style="bold"),
        Text(f"{ready} of {len(server.replicas)} ready"),
        Text(_gpus(server)),
        *[Text()] * 2,
        Text(server.reason, style="green" if server.ready else "red"),
    ]
    if server.startup is not None and server.startup["stage"] != "Ready":
        since = f"since {server.startup['since'][11:19]} UTC"
        where = Text(f"{server.startup['pod']} starts: {server.startup['stage']} {since}", style="yellow")
        yield [Text(), where, *[Text()] * 3, Text(server.startup.get("blocker", ""), style="yellow")]
    for unserved in server.unserved:
        yield [*[Text()] * 3, Text(unserved.name), Text("-"), _state(unserved)]
    for rollout in server.rollouts:
        yield [*[Text()] * 3, *_rollout(rollout)]
    for replica in server.replicas:
        lead = _replica(replica)
        for label, model in _held(server, replica):
            version = str(model.version) if model is not None and model.version is not None else "-"
            shown = (
                [Text(model.name), Text(version), _state(model)] if model is not None else [Text("free", style="dim")]
            )
            yield [Text(), lead, Text(label), *shown]
            lead = Text()
        if lead or replica.lacks:
            yield [Text(), lead, *[Text()] * 3, Text(replica.lacks, style="yellow")]


def _gpus(server: "ServerUse") -> str:
    if not server.gpus:
        return "CPU"
    return f"{server.gpus} each{', simulated' if server.simulated_gpus else ''}"


def _rollout(rollout: "RolloutUse") -> list[Text]:
    """The model, the versions, and where their change stands."""
    from gravswell_operator.api.rollout import RolloutState  # noqa: PLC0415

    told = f"{rollout.progress}: {rollout.message}" if rollout.message else rollout.progress
    style = "red" if rollout.state is RolloutState.ROLLED_BACK else "yellow"
    before = rollout.from_version if rollout.from_version is not None else "-"
    return [Text(rollout.model), Text(f"{before} → {rollout.to}"), Text(told, style=style)]


def _replica(replica: "ReplicaUse") -> Text:
    use = ""
    if replica.gpu_use is not None:
        use = f", GPUs {', '.join(f'{percent:.0f}' for percent in replica.gpu_use)} % in use"
    rank = f" (rank {replica.rank})" if replica.rank is not None else ""
    return Text(f"{replica.pod}{rank}{use}", style="" if replica.ready else "yellow")


def _held(server: "ServerUse", replica: "ReplicaUse") -> "Iterator[tuple[str, ModelUse | None]]":
    """Each device with each model that was given it, a free one with none; then the models on every device."""
    from gravswell.placement import Held, Layout  # noqa: PLC0415
    from gravswell.placement.groups import groups_of  # noqa: PLC0415

    placed = [model for model in replica.models if model.devices]
    if placed:
        held = [Held(model.name, group) for model in placed for group in groups_of(model.devices)]
        by_name = {model.name: model for model in placed}
        for group, holders in Layout(server.gpus, tuple(held), {}, {}).rows:
            for label, holder in zip([str(group), *[""] * len(holders)], holders or (None,), strict=False):
                yield label, by_name[holder] if holder is not None else None
    label = ("all" if server.gpus > 1 else "0") if server.gpus else "CPU"
    for model in replica.models:
        if not model.devices:
            yield label, model
            label = ""


def _state(model: "ModelUse") -> Text:
    from gravswell.serving.contracts import ModelState  # noqa: PLC0415

    told = f"{model.state}: {model.message}" if model.message else model.state
    styles: dict[str, str] = {ModelState.SERVING: "green", ModelState.FAILED: "red"}
    return Text(told, style=styles.get(model.state, "yellow"))


def register(app: typer.Typer) -> None:
    """Add ``top`` to the command line."""
    app.command(rich_help_panel=Panel.KUBERNETES)(top)
