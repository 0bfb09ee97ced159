"""The ``gravswell`` command: assembles the sub-commands and turns errors into messages and exit codes."""

import sys
from importlib.metadata import entry_points
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from gravswell import __version__
from gravswell.cli import repository
from gravswell.cli.agent import app as agent
from gravswell.cli.output import stderr
from gravswell.cli.serve import serve
from gravswell.errors import GravswellError, UnsupportedError

PLUGIN_GROUP = "gravswell.commands"
"""Entry-point group: each entry is a function ``register(app: typer.Typer) -> None`` that adds commands."""

OPERATOR_MODULES = frozenset({"aiohttp", "cryptography", "kopf", "kubernetes", "yaml"})
"""What the ``operator`` extra brings."""

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
    """Run the command line; a :class:`GravswellError` becomes one message on stderr and its exit code.

    So does a command whose extra is not installed: commands import what only an extra brings when they run.
    """
    _assemble()
    try:
        app()  # usage errors, aborts and typer.Exit are typer's own to render
    except GravswellError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in OPERATOR_MODULES:
            raise  # a fault of ours, not of the installation
        _fail(UnsupportedError(f"this command needs {error.name}, of an extra: pip install 'gravswell[operator]'"))


def _fail(error: GravswellError) -> NoReturn:
    stderr.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    sys.exit(error.exit_code)
