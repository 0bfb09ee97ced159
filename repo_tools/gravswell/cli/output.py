"""What every command shares: the consoles, ``--output``, and the rendering of one result in either form."""

import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
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

    ``data`` is anything that :mod:`json` takes, and pydantic models and dataclasses anywhere in it: their fields become
    keys in camelCase. ``text`` is called only when it is needed.
    """
    if output is Output.TEXT:
        stdout.print(text())
        return
    typer.echo(json.dumps(data, indent=2, default=_plain))


def when(moment: datetime | None) -> str:
    """A moment as a table shows it; empty where it is not known."""
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""


def record(value: Any) -> dict[str, Any]:
    """A dataclass as JSON has it: its fields in camelCase, whatever is in them left to :func:`emit`."""
    return {to_camel(field.name): getattr(value, field.name) for field in fields(value)}


def _plain(value: Any) -> Any:
    """What JSON has in place of ``value``. The keys of a mapping are data (names of tensors, files) and stay as is."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if is_dataclass(value) and not isinstance(value, type):
        return record(value)
    if isinstance(value, Mapping):
        return dict(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)
