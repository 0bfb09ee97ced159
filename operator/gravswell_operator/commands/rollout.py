"""``gravswell rollout``: the roll-out of a Model, and what a person decides of it."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import Context, Kubeconfig, Panel
from gravswell_operator.commands.top import own_namespace

if TYPE_CHECKING:
    from gravswell.kube.client import Client
    from gravswell_operator.promotion import ModelRollout

    Act = Callable[[Client, str], Awaitable[ModelRollout]]

topic = typer.Typer(
    name="rollout", help="How a new version takes the place of the one that serves.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="MODEL", help="The Model, by its name.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Default: the one of the kubeconfig's context.")
]
Version = Annotated[
    int | None, typer.Option("--version", min=1, help="Its number. Default: the one that is being rolled out.")
]


def register(app: typer.Typer) -> None:
    """Add ``gravswell rollout`` to ``app``."""
    app.add_typer(topic, rich_help_panel=Panel.KUBERNETES)


@topic.command()
def status(
    model: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show where the roll-out of a Model stands, and what it waits for or why it ended."""
    from gravswell_operator import promotion  # noqa: PLC0415  `gravswell --help` must not wait for these

    _run(lambda client, where: promotion.look(client, where, model), namespace, context, kubeconfig, output)


@topic.command()
def promote(
    model: Name,
    version: Version = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Serve the new version on every replica now, whatever step it is at and whatever is judged."""
    from gravswell_operator import promotion  # noqa: PLC0415

    _run(lambda client, where: promotion.promote(client, where, model, version), namespace, context, kubeconfig, output)


@topic.command()
def abort(
    model: Name,
    version: Version = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """End a canary: the version before serves on every replica, and the new one is not tried again."""
    from gravswell_operator import promotion  # noqa: PLC0415

    _run(lambda client, where: promotion.abort(client, where, model, version), namespace, context, kubeconfig, output)


@topic.command()
def retry(
    model: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Try the version again that was rolled back, from the first step on."""
    from gravswell_operator import promotion  # noqa: PLC0415

    _run(lambda client, where: promotion.retry(client, where, model), namespace, context, kubeconfig, output)


def _run(act: "Act", namespace: str | None, context: str | None, kubeconfig: Path | None, output: Output) -> None:
    import asyncio  # noqa: PLC0415

    from gravswell.kube import credentials  # noqa: PLC0415
    from gravswell.kube.client import Client  # noqa: PLC0415

    async def run() -> "ModelRollout":
        account = await credentials.load(kubeconfig, context)
        async with Client(account, name="gravswell") as client:
            return await act(client, namespace or own_namespace(kubeconfig, context))

    seen = asyncio.run(run())
    emit(output, seen, lambda: shown(seen))


def shown(seen: "ModelRollout") -> Table:
    """What a person sees of a roll-out."""
    table = Table(box=None, show_header=False)
    rows = {"Model": f"{seen.namespace}/{seen.model} (entry {seen.entry})", "Strategy": str(seen.strategy)}
    rows["Serves"] = f"version {seen.version}" if seen.version is not None else "nothing yet"
    rollout = seen.rollout
    if rollout is not None:
        before = f"version {rollout.from_version}" if rollout.from_version is not None else "nothing"
        rows["Change"] = f"{before} → version {rollout.to}, {rollout.strategy}, begun {rollout.started}"
        rows["State"] = f"{rollout.state} since {rollout.since}"
        if rollout.steps:
            rows["Step"] = f"{rollout.step} of {rollout.steps}"
        rows["Replicas"] = f"{rollout.replicas_updated} serve version {rollout.to}, {rollout.replicas} shall"
        if rollout.weight is not None:
            rows["Weight"] = f"{rollout.weight}% of the requests through the Gateway go to version {rollout.to}"
        rows["Message"] = rollout.message
    if seen.new is not None and seen.old is not None and rollout is not None:
        rows[f"Version {rollout.to}"] = f"{seen.new}, in this step"
        rows[f"Version {seen.version}"] = f"{seen.old}, in the same time"
    for label, value in rows.items():
        table.add_row(Text(label, style="bold"), Text(value))
    table.add_row(
        Text("Ready", style="bold"), Text(f"{seen.reason}: {seen.message}", style="" if seen.ready else "red")
    )
    return table
