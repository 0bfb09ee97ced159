"""``gravswell demo``: the whole way, once."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from gravswell.cli.output import stdout
from gravswell.cli.shared import Context, Kubeconfig, Panel
from gravswell.errors import InvalidInputError


class Framework(enum.StrEnum):
    """What trains the demo's network."""

    SKLEARN = "sklearn"
    TORCH = "torch"


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command(rich_help_panel=Panel.CLUSTER)(demo)


def demo(
    framework: Annotated[Framework, typer.Option(help="What trains the network.")] = Framework.SKLEARN,
    no_cluster: Annotated[
        bool, typer.Option("--no-cluster", help="Stop before Kubernetes: train, publish and serve only.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything up at the end, until Ctrl-C, to look at.")
    ] = False,
    directory: Annotated[
        Path | None, typer.Option(help="A new folder for the repository, which stays. By default a temporary one.")
    ] = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    repository_url: Annotated[
        str | None,
        typer.Option(
            help="The repository as the nodes of --context see it, such as pvc://models/demo, where --directory is "
            "the same folder on this machine."
        ),
    ] = None,
) -> None:
    """Train a small network, publish it, serve it with a real Triton, then on Kubernetes; shows each step.

    Kubernetes is a development cluster on this machine, or the one of --context.
    """
    from gravswell_operator.demo.story import Options, tell  # noqa: PLC0415  heavy
    from gravswell_operator.demo.view import Story  # noqa: PLC0415

    if no_cluster and context:
        raise InvalidInputError("--no-cluster and --context exclude each other: leave one out")
    if context is None and (kubeconfig or repository_url):
        raise InvalidInputError("--kubeconfig and --repository-url go with --context, the cluster that they are for")
    tell(
        Story(stdout),
        Options(
            framework=framework.value,
            cluster=not no_cluster,
            keep=keep,
            directory=directory,
            context=context,
            kubeconfig=kubeconfig,
            repository_url=repository_url,
        ),
    )
