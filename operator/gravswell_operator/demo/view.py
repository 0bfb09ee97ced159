"""How the demo talks: chapters, steps with a spinner and the time they took, and the ledger of all steps."""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from gravswell_operator.devcluster.kubectl import Kubectl

_PIPED_PROGRESS_SECONDS = 15.0


@dataclass
class Step:
    """One thing that was done. ``note`` is what came of it, set while it runs."""

    chapter: str
    title: str
    seconds: float = 0.0
    note: str = ""


@dataclass
class Story:
    """Prints steps as they happen and remembers where the time went."""

    console: Console
    steps: list[Step] = field(default_factory=list)
    _chapter: str = ""

    def chapter(self, title: str) -> None:
        """Begin a part."""
        self._chapter = title
        self.console.print()
        self.console.rule(f"[bold]{escape(title)}", align="left")

    @contextmanager
    def step(self, title: str, *, spinner: bool = True) -> Iterator[Step]:
        """Show ``title`` while the block runs, then a line with its note and time.

        ``spinner=False`` leaves the terminal to the block, for one that shows progress of its own.
        """
        step = Step(self._chapter, title)
        started = time.monotonic()
        try:
            if spinner:
                with self.console.status(f"{escape(title)} …"):
                    yield step
            else:
                yield step
        except BaseException:
            self.console.print(f"[red]✗[/] {escape(title)}", highlight=False)
            raise
        step.seconds = time.monotonic() - started
        self.steps.append(step)
        note = f" [dim]·[/] {escape(step.note)}" if step.note else ""
        self.console.print(f"[green]✓[/] {escape(title)}{note} [dim]{step.seconds:.1f} s[/]", highlight=False)

    def command(self, kubectl: Kubectl, *arguments: str, shown: str | None = None, stdin: str | None = None) -> str:
        """Print the command, so that a reader can repeat it, and run it; return what it printed.

        ``shown`` stands for its arguments where those would not mean much to a reader.
        """
        self.tell_command(shown or shlex.join(arguments))
        return kubectl(*arguments, stdin=stdin)

    def tell_command(self, arguments: str) -> None:
        """Print a command of kubectl's."""
        self.say(f"[cyan]$ kubectl {escape(arguments)}[/]")

    def say(self, text: str) -> None:
        """A remark, in rich markup."""
        self.console.print(text, highlight=False)

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, int, int], None]]:
        """A bar that goes at the end of the block; yields what moves it: (what is done, how much of it, of how much).

        Where nobody watches, long work says a line now and then.
        """
        if self.console.is_terminal:
            columns = (TextColumn("  {task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
            with Progress(*columns, console=self.console, transient=True) as progress:
                task = progress.add_task("", total=None)
                yield lambda doing, done, total: progress.update(task, description=doing, completed=done, total=total)
            return
        said = time.monotonic()

        def say(doing: str, _done: int, _total: int) -> None:
            nonlocal said
            if time.monotonic() - said >= _PIPED_PROGRESS_SECONDS:
                said = time.monotonic()
                self.say(f"  {escape(doing)} …")

        yield say

    @contextmanager
    def live(self, render: Callable[[], RenderableType]) -> Iterator[Callable[[], None]]:
        """Show what ``render`` returns, anew whenever the yielded function is called.

        Where nobody watches, once at the end.
        """
        if self.console.is_terminal:
            with Live(render(), console=self.console, auto_refresh=False) as live:
                yield lambda: live.update(render(), refresh=True)
            return
        try:
            yield lambda: None
        finally:
            self.console.print(render())

    def ledger(self, total: float) -> Table:
        """Where the time went, the longest steps first; ``total`` seconds in all."""
        table = Table(title=f"Where {total:.0f} s went", title_justify="left", show_edge=False, pad_edge=False)
        table.add_column("step")
        table.add_column("seconds", justify="right")
        table.add_column("share", justify="right")
        for step in sorted(self.steps, key=lambda s: -s.seconds)[:8]:
            table.add_row(escape(step.title), f"{step.seconds:.1f}", f"{step.seconds / total:.0%}")
        rest = total - sum(s.seconds for s in sorted(self.steps, key=lambda s: -s.seconds)[:8])
        table.add_row("[dim]everything else[/]", f"{rest:.1f}", f"{rest / total:.0%}")
        return table
