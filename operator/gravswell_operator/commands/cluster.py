"""``gravswell cluster``: the development cluster, kept up between commands."""

import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gravswell.cli.output import Output, OutputOption, emit, stderr
from gravswell.cli.shared import Panel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gravswell_operator.devcluster.binaries import Progress, ProgressCallback
    from gravswell_operator.devcluster.state import ClusterState

SIMULATED = "Simulated: every GPU, and the local node's CPU and memory figures; kwok nodes and their pods entirely."

topic = typer.Typer(
    name="cluster",
    help="A real Kubernetes control plane on this machine, with a local node whose pods are processes.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add ``gravswell cluster`` to ``app``."""
    app.add_typer(topic, rich_help_panel=Panel.CLUSTER)


@topic.command()
def up(
    kwok_nodes: Annotated[int, typer.Option(min=0, help="How many simulated nodes to add, for scale.")] = 0,
    gpus: Annotated[int, typer.Option(min=0, help="Simulated GPUs of each node.")] = 8,
    local_node: Annotated[bool, typer.Option(help="Whether to have the node whose pods really run.")] = True,
    output: OutputOption = Output.TEXT,
) -> None:
    """Start it, or say that it is up; the first start builds Kubernetes from its Go modules (about five minutes)."""
    from gravswell_operator.devcluster import cluster  # noqa: PLC0415  heavy, and only an extra installs its parts
    from gravswell_operator.devcluster.state import Shape  # noqa: PLC0415

    with _shown() as progress:
        state, started = cluster.up(Shape(local_node=local_node, kwok_nodes=kwok_nodes, gpus=gpus), progress=progress)
    stderr.print("The development cluster is up." if started else "The development cluster was up already.")
    stderr.print(f"It has {cluster.describe(state.shape)}. {SIMULATED}", highlight=False)
    if output is Output.TEXT:
        typer.echo(f"export KUBECONFIG={shlex.quote(state.kubeconfig)}")  # unwrapped: `eval "$(gravswell cluster up)"`
    else:
        emit(output, _facts(state), lambda: state.kubeconfig)


@topic.command()
def status(output: OutputOption = Output.TEXT) -> None:
    """Say whether it runs and where its parts are; exit code 3 if it does not, 7 while it starts."""
    from gravswell_operator.devcluster import cluster  # noqa: PLC0415  heavy

    state = cluster.require()
    emit(output, _facts(state), lambda: _table(state))


@topic.command()
def down() -> None:
    """Stop it and remove everything of it, its objects included."""
    from gravswell_operator.devcluster import cluster  # noqa: PLC0415  heavy

    stopped = cluster.down()
    stderr.print("The development cluster is down." if stopped else "No development cluster was up.")


@topic.command()
def kubeconfig(output: OutputOption = Output.TEXT) -> None:
    """Print the path of its kubeconfig: `export KUBECONFIG=$(gravswell cluster kubeconfig)`."""
    from gravswell_operator.devcluster import cluster  # noqa: PLC0415  heavy

    path = cluster.require().kubeconfig
    if output is Output.TEXT:
        typer.echo(path)  # unwrapped: a shell reads it
    else:
        emit(output, {"kubeconfig": path}, lambda: path)


@topic.command()
def logs(
    pod: Annotated[str, typer.Argument(metavar="POD", help="Name of a pod on the local node.")],
    container: Annotated[str | None, typer.Option("--container", "-c", help="Which one, if it has several.")] = None,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The pod's.")] = "default",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print what is added, until interrupted.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last lines.")] = None,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="Those of the run before the restart.")] = False,
) -> None:
    """Print a container's log from its file; `kubectl logs` works too."""
    from gravswell_operator.devcluster import cluster, logs  # noqa: PLC0415  heavy

    state = cluster.require()
    path = logs.find(state, namespace, pod, container, previous=previous)
    logs.write(path, typer.get_binary_stream("stdout"), follow=follow, lines=tail)


def _facts(state: "ClusterState") -> dict[str, Any]:
    return {
        "server": state.server,
        "kubeconfig": state.kubeconfig,
        "context": "gravswell-dev",
        "kubectl": state.kubectl,
        "localNode": state.shape.local_node,
        "kwokNodes": state.shape.kwok_nodes,
        "gpusPerNode": state.shape.gpus,
        "simulated": SIMULATED,
        "serverLogs": state.logs,
        "podLogs": state.pods,
        "pid": state.pid,
    }


def _table(state: "ClusterState") -> Table:
    table = Table(show_header=False, box=None)
    for name, value in _facts(state).items():
        table.add_row(name, str(value))
    return table


@contextmanager
def _shown() -> "Iterator[ProgressCallback]":
    """Show what is built, while something is."""
    with stderr.status("starting the development cluster") as live:

        def show(progress: "Progress") -> None:
            if progress.action == "ready":
                live.update("starting the development cluster")
            else:
                live.update(
                    f"{progress.action} {progress.program} ({progress.index} of {progress.total}), "
                    f"{progress.elapsed:.0f} s; this happens once"
                )

        yield show
