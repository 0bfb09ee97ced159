"""How the demo talks: chapters, steps with a spinner and the time they took, and the ledger of all steps."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table


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
        if spinner:
            with self.console.status(f"{escape(title)} …"):
                yield step
        else:
            yield step
        step.seconds = time.monotonic() - started
        self.steps.append(step)
        note = f" [dim]·[/] {escape(step.note)}" if step.note else ""
        self.console.print(f"[green]✓[/] {escape(title)}{note} [dim]{step.seconds:.1f} s[/]", highlight=False)

    def say(self, text: str) -> None:
        """A remark, in rich markup."""
        self.console.print(text, highlight=False)

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
