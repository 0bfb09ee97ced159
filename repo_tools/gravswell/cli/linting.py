"""``gravswell lint``: what Triton would refuse, guess or ignore."""

from collections import Counter
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.progress import BarColumn, DownloadColumn
from rich.text import Text

from gravswell.cli import completion
from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import OneEntry, Repository, work_display
from gravswell.errors import VerificationError

_STYLES = {"refused": "red", "guessed": "yellow", "ignored": "yellow", "note": "cyan"}


def lint(
    repo: Repository,
    name: OneEntry = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TAG",
            help="Check the graphs' age against Triton's image of this tag, such as 24.08: any from 20.11 on.",
            autocompletion=completion.tags,
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 5 for any finding but notes.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Tell what Triton would refuse, guess or silently ignore (docs/lint.md). Exits with 5 if anything is refused."""
    from gravswell.quiver import lint as linting  # noqa: PLC0415 - keeps --help fast, here and below
    from gravswell.quiver.stores import open_store  # noqa: PLC0415

    with work_display(BarColumn(), DownloadColumn()) as progress:
        task = progress.add_task(repo, total=None)
        findings = linting.lint(
            open_store(repo),
            name,
            target=None if target is None else linting.target_of(target),
            on_model=lambda model: progress.update(task, description=model, completed=0, total=None),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    data = [
        {
            "rule": f.rule.id,
            "severity": f.severity,
            "place": f.place,
            "field": f.field,
            "fact": f.fact,
            "wayOut": f.rule.way_out,
        }
        for f in findings
    ]

    def text() -> RenderableType:
        if not findings:
            return Text("nothing to tell: Triton takes it as it stands", style="green")
        return Group(
            *(
                Text.assemble(
                    (f"{f.severity}", _STYLES[f.severity]), f" {f.place}: {f.fact} ", (f"[{f.rule.id}]", "dim"),
                    f"\n  {f.rule.way_out}",
                )
                for f in findings
            )
        )  # fmt: skip

    emit(output, data, text)
    counts = Counter(f.severity for f in findings)
    bad = [severity for severity in counts if severity == "refused" or (strict and severity != "note")]
    if bad:
        told = ", ".join(f"{counts[severity]} {severity}" for severity in bad)
        raise VerificationError(f"{name or repo}: {told}; each finding above says the way out")
