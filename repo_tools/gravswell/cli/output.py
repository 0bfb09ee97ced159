"""What every command shares: the consoles, ``--output``, and the rendering of one result in either form."""

import enum
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console, RenderableType

stdout = Console()
"""Results. Nothing else is written here, so ``--output json`` can always be piped."""

stderr = Console(stderr=True)
"""Progress, notes and errors."""


class Output(enum.StrEnum):
    """How a command prints its result."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print the result.", show_default=True)]


def emit(output: Output, data: Any, text: Callable[[], RenderableType]) -> None:
    """Print one result: ``data`` as JSON, or what ``text`` renders for a person.

    ``data`` is a pydantic model or anything that :mod:`json` takes; ``text`` is called only when it is needed.
    """
    if output is Output.TEXT:
        stdout.print(text())
        return
    if isinstance(data, BaseModel):
        data = data.model_dump(mode="json", by_alias=True)
    typer.echo(json.dumps(data, indent=2, default=str))
