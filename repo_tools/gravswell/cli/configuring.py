"""``gravswell config``: an entry's configuration read, set field by field, and edited."""

import json
import os
import shlex
import subprocess
import tempfile
from difflib import unified_diff
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit, stderr
from gravswell.cli.shared import DryRun, Name, Repository, existing_entry
from gravswell.errors import GravswellError, InvalidInputError, UnsupportedError

app = typer.Typer(name="config", help="Show or change the configuration of an entry.", no_args_is_help=True)


def _complete(incomplete: str) -> list[str]:
    """Paths of fields, as Triton's own definition has them."""
    from gravswell.quiver.fieldpaths import completions  # noqa: PLC0415 - keeps --help fast, here and below

    try:
        return completions(incomplete)
    except InvalidInputError:
        return []


Settings = Annotated[
    list[str],
    typer.Argument(
        metavar="FIELD=VALUE…",
        help="dynamic_batching.max_queue_delay_microseconds=100, instance_group[0].count=2, "
        "parameters\\[intra_op_thread_count].string_value=2; without a value the field is cleared.",
        autocompletion=_complete,
    ),
]


@app.command()
def show(repo: Repository, name: Name, output: OutputOption = Output.TEXT) -> None:
    """Show the configuration as Triton reads it."""
    from gravswell.quiver.config import config_to_json  # noqa: PLC0415

    config = _config(repo, name)
    emit(output, json.loads(config_to_json(config.message)), lambda: Text(str(config).rstrip()))


@app.command("set")
def set_fields(
    repo: Repository, name: Name, settings: Settings, dry_run: DryRun = False, output: OutputOption = Output.TEXT
) -> None:
    """Set fields, all at once: checked first, and written only if nobody else changed the file meanwhile."""
    given: dict[str, str] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise InvalidInputError(f"{setting!r}: write FIELD=VALUE, or FIELD= to clear it")
        if path in given:
            raise InvalidInputError(f"{path} is set twice")
        given[path] = text.strip()
    config = _config(repo, name)
    before = str(config)
    _report(name, before, config.set(given, dry_run=dry_run), written=not dry_run, output=output)


@app.command()
def edit(repo: Repository, name: Name, dry_run: DryRun = False, output: OutputOption = Output.TEXT) -> None:
    """Open the configuration in $VISUAL or $EDITOR; what is saved is checked, and written as `set` does it."""
    config = _config(repo, name)
    before = str(config)
    text = _edited(before)
    try:
        after = config.replace(text, dry_run=dry_run)
    except GravswellError as error:
        with tempfile.NamedTemporaryFile("w", prefix=f"{name}-", suffix=".config.pbtxt", delete=False) as kept:
            kept.write(text)
        raise type(error)(f"{error}. Nothing was written; what you have edited is in {kept.name}") from error
    _report(name, before, after, written=not dry_run, output=output)


def _edited(text: str) -> str:
    """What the user's editor makes of ``text``."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise UnsupportedError("no editor is named: set EDITOR, or use gravswell config set")
    with tempfile.TemporaryDirectory(prefix="gravswell-config-") as folder:
        file = Path(folder, "config.pbtxt")
        file.write_text(text)
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
            return file.read_text()
        except (OSError, ValueError, subprocess.CalledProcessError) as error:  # quotes that do not close; not UTF-8
            raise UnsupportedError(f"the editor {editor!r} failed, and nothing was changed: {error}") from None


def _config(repo: str, name: str) -> Any:
    from gravswell import quiver as qv  # noqa: PLC0415

    return existing_entry(qv.ModelRepository.open(repo), name).config


def _report(name: str, before: str, after: str, *, written: bool, output: Output) -> None:
    from rich.syntax import Syntax  # noqa: PLC0415 - brings every language that there is

    from gravswell.quiver.checks import Severity, findings  # noqa: PLC0415
    from gravswell.quiver.config import parse_config  # noqa: PLC0415

    diff = "".join(
        unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), "config.pbtxt", "config.pbtxt")
    )
    advice = [f for f in findings(parse_config(after)) if f.severity is not Severity.NOTE]
    data = {
        "entry": name,
        "changed": before != after,
        "written": written and before != after,
        "diff": diff,
        "config": after,
        "advice": [{"rule": f.rule.id, "severity": f.severity, "field": f.field, "fact": f.fact} for f in advice],
    }
    emit(output, data, lambda: Syntax(diff.rstrip(), "diff", theme="ansi_dark") if diff else Text("nothing to change"))
    for finding in advice if output is Output.TEXT else ():
        stderr.print(f"{finding.severity}: {finding}", style="yellow", highlight=False, markup=False, soft_wrap=True)
