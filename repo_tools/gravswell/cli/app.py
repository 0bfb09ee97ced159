"""The ``gravswell`` command: assembles the sub-commands and turns errors into messages and exit codes."""

import os
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from gravswell import __version__
from gravswell.cli import completion
from gravswell.cli.agent import app as agent
from gravswell.cli.aliases import aliases, history, promote, rollback, unalias
from gravswell.cli.comparison import diff
from gravswell.cli.configuring import app as config
from gravswell.cli.exporting import export
from gravswell.cli.fusing import fuse
from gravswell.cli.importing import import_repository
from gravswell.cli.inferring import infer
from gravswell.cli.linting import lint
from gravswell.cli.listing import ls, show
from gravswell.cli.output import stderr
from gravswell.cli.partitioning import partition
from gravswell.cli.pipelines import app as pipeline
from gravswell.cli.placing import place
from gravswell.cli.pools import app as pools
from gravswell.cli.pruning import prune
from gravswell.cli.quantizing import quantize
from gravswell.cli.ranking import rank
from gravswell.cli.repository import add, init, rm
from gravswell.cli.republishing import republish
from gravswell.cli.serve import serve
from gravswell.cli.shared import Panel
from gravswell.cli.transfer import copy, sync
from gravswell.cli.tuning import tune
from gravswell.cli.verifying import verify
from gravswell.errors import GravswellError, UnsupportedError
from gravswell.extras import install

PLUGIN_GROUP = "gravswell.commands"
"""Entry-point group: each entry is a function ``register(app: typer.Typer) -> None`` that adds commands."""

EXTRA_MODULES = frozenset({"cryptography", "kopf", "kubernetes", "prometheus_client", "uvloop", "yaml"})
"""What only extras bring. A command imports what it needs of them when it runs."""

EXTRAS = {"demo": "demo", "pools": "kube", "prune": "kube"}
"""The extra that a command needs; ``operator`` for all others that need one."""


class _Commands(TyperGroup):
    """The sub-commands; a missing extra is told by the name of the one that the command needs."""

    def invoke(self, ctx: Any) -> Any:  # of click, which typer ships or requires, by its release
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] not in EXTRA_MODULES:
                raise  # a fault of ours, not of the installation
            command = ctx.invoked_subcommand or ""
            extra = EXTRAS.get(command, "operator")
            raise UnsupportedError(
                f"`gravswell {command}` needs {error.name}, which is not installed: {install(extra)}"
            ) from None


app = typer.Typer(
    name="gravswell",
    cls=_Commands,
    help="From a trained model to a scaled, verified Triton Inference Server on Kubernetes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gravswell {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


_COMMANDS: dict[Panel, tuple[Callable[..., None], ...]] = {
    Panel.REPOSITORY: (init, add, export, fuse, import_repository, ls, show, copy, sync, rm),
    Panel.VERSIONS: (promote, rollback, unalias, aliases, history, diff, prune),
    Panel.CHECK: (verify, lint),
    Panel.SERVE: (serve, infer, rank),
    Panel.TUNE: (tune, quantize, republish, partition, place),
}
for _panel, _commands in _COMMANDS.items():
    for _command in _commands:
        _name = "import" if _command is import_repository else None  # a word of Python's
        app.command(_name, rich_help_panel=_panel)(_command)
app.add_typer(pipeline, rich_help_panel=Panel.CHECK)
app.add_typer(config, rich_help_panel=Panel.TUNE)
app.add_typer(pools, rich_help_panel=Panel.KUBERNETES)
app.add_typer(agent, rich_help_panel=Panel.KUBERNETES)


@cache  # main() twice in one process must not add every plug-in's commands twice
def _assemble() -> None:
    for plugin in sorted(entry_points(group=PLUGIN_GROUP), key=lambda p: p.name):
        plugin.load()(app)


def main() -> None:
    """Run the command line; a :class:`GravswellError` becomes one message on stderr and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character of ours shows "?" for it
    _assemble()
    if os.environ.get("_GRAVSWELL_COMPLETE") == "complete_bash":
        completion.mend_words(os.environ)
    try:
        app()  # usage errors, aborts and typer.Exit are typer's own to render
    except GravswellError as error:
        stderr.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
