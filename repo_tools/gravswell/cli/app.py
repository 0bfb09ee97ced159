"""The ``gravswell`` command: assembles the sub-commands and turns errors into messages and exit codes."""

import sys
from importlib.metadata import entry_points
from typing import Annotated

import typer
from rich.markup import escape

from gravswell import __version__
from gravswell.cli import repository
from gravswell.cli.agent import app as agent
from gravswell.cli.output import stderr
from gravswell.cli.serve import serve
from gravswell.errors import GravswellError

PLUGIN_GROUP = "gravswell.commands"
"""Entry-point group: each entry is a function ``register(app: typer.Typer) -> None`` that adds commands."""

app = typer.Typer(
    name="gravswell",
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


repository.register(app)
app.command()(serve)
app.add_typer(agent)


def _assemble() -> None:
    for plugin in sorted(entry_points(group=PLUGIN_GROUP), key=lambda p: p.name):
        plugin.load()(app)


def main() -> None:
    """Run the command line; a :class:`GravswellError` becomes one message on stderr and its exit code."""
    _assemble()
    try:
        app()  # usage errors, aborts and typer.Exit are typer's own to render
    except GravswellError as error:
        stderr.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
