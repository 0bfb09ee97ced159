"""``gravswell place``: which model gets which devices of a machine."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import DryRun
from gravswell.errors import InvalidInputError

if TYPE_CHECKING:
    from gravswell.placement import Layout

MOST_DEVICES = 4096
"""More than any machine has: a slip of the finger is no hour of work."""


def place(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL=DEVICES…",
            help="A=2: two devices in a row; A=4x1, or just A: four copies of one device each; A=2@6: from device 6 "
            "on; A=2,shared: others that say so too may have the same ones. In the order in which they choose.",
        ),
    ],
    devices: Annotated[
        int, typer.Option("--devices", "-d", min=0, max=MOST_DEVICES, help="How many there are, numbered from 0.")
    ],
    held: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FIRST-LAST", help="What others hold already, as other=0-1; may be repeated."),
    ] = None,
    write: Annotated[
        str | None,
        typer.Option(
            metavar="REPO",
            help="Write each model's devices into the instance_group of the entry of its name in this repository.",
        ),
    ] = None,
    dry_run: DryRun = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Give models consecutive groups of a machine's devices, and show who holds what.

    Exits with 2 where somebody finds no room; the message then has the table, too. On Kubernetes the operator does the
    same for Models with placement.devices.
    """
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast
    from gravswell.placement import place  # noqa: PLC0415

    if dry_run and write is None:
        raise InvalidInputError("--dry-run is about --write, and nothing is written without it: leave it out")
    layout = place(models, devices, held=held or ())
    written = qv.write_layout(qv.ModelRepository.open(write), layout, dry_run=dry_run) if write is not None else {}
    emit(output, _data(layout, written, dry_run=dry_run), lambda: _text(layout, write, dry_run=dry_run))


def _data(layout: "Layout", written: dict[str, str], *, dry_run: bool) -> dict[str, Any]:
    return {
        "devices": layout.devices,
        "models": [
            {"name": name, "groups": [list(group.devices) for group in groups], "gpus": list(layout.gpus(name))}
            for name, groups in layout.placed.items()
        ],
        "groups": [{"devices": list(group.devices), "models": list(holders)} for group, holders in layout.rows],
        "configs": [{"entry": entry, "config": text, "written": not dry_run} for entry, text in written.items()],
    }


def _text(layout: "Layout", repo: str | None, *, dry_run: bool) -> RenderableType:
    table = Table("devices", "held by", box=None)
    for group, holders in layout.rows:
        table.add_row(str(group), Text(", ".join(holders) or "free", style="" if holders else "dim"))
    told: list[RenderableType] = [table]
    if repo is not None:
        told.append("")
        for name in layout.placed:
            gpus = ", ".join(map(str, layout.gpus(name)))
            told.append(Text(f"{name}: config.pbtxt {'would have' if dry_run else 'has'} instance_group gpus {gpus}"))
        told.append(Text(f"What is served changes with the next version: gravswell republish {repo} ENTRY"))
    return Group(*told)
