"""``gravswell republish``: a published model with the configuration that its entry has by now."""

from rich.console import Group
from rich.progress import DownloadColumn, TransferSpeedColumn
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import Repository, Sized, SourceVersion, target_of, work_display


def republish(
    repo: Repository,
    target: SourceVersion,
    output: OutputOption = Output.TEXT,
) -> None:
    """Publish a version again, as the next one, with the entry's config.pbtxt as it is by now.

    The way to production for a setting that was edited or tuned: a version is served with the configuration that it was
    published with.
    """
    from gravswell import quiver as qv  # noqa: PLC0415 - keeps --help fast

    entry, number = target_of(qv.ModelRepository.open(repo), target)
    with work_display(Sized(DownloadColumn()), Sized(TransferSpeedColumn())) as progress:
        task = progress.add_task(f"reading {target}", total=None)
        made = entry.republish(
            number,
            on_stage=lambda stage: progress.reset(task, description=stage, total=None),
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    emit(
        output,
        {"path": made.location, "version": int(made), "digest": made.digest, "parent": made.manifest.parent},
        lambda: Group(Text(made.location, style="bold"), f"  digest {made.digest}"),
    )
