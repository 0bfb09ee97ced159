"""``gravswell pipeline``: what a pipeline that was written would become, before it is published."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import Repository
from gravswell.errors import InvalidInputError

if TYPE_CHECKING:
    from gravswell.pipelines.authoring import Checked

app = typer.Typer(name="pipeline", help="Many models as one: pipelines written in Python.", no_args_is_help=True)


@app.command()
def check(
    repo: Repository,
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="file.py:function or module:function.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Check a pipeline against the entries that it calls, and tell what it compiles to; `export` publishes it."""
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast, here and below
    from gravswell.cli.loading import load_model  # noqa: PLC0415

    repository = qv.ModelRepository.open(repo)
    loaded = load_model(pipeline, allow_pickle=False)
    if not isinstance(loaded, qv.Pipeline):
        raise InvalidInputError(f"{pipeline} is a {type(loaded).__name__} and no pipeline: put @qv.pipeline before it")
    checked = loaded.check(repository)
    emit(output, checked, lambda: _text(checked))


def _text(checked: "Checked") -> Group:
    kind = "a Triton ensemble" if checked.compiles_to == "ensemble" else "Python in the server"
    table = Table(box=None, show_header=False)
    for member in checked.members:
        table.add_row(f"member {member.alias}", f"{member.model}/{member.version}")
    for side, records in (("input", checked.inputs), ("output", checked.outputs)):
        for record in records:
            table.add_row(Text(f"{side} {record.name}"), Text(f"{record.data_type} {list(record.dims)}"))
    why = [Text(f"  it {checked.why}")] if checked.why else []
    return Group(Text(f"{checked.name} compiles to {kind}", style="bold"), *why, table)
