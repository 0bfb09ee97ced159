"""Bounded waits with back-off, and how they are shown to a person."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gravswell.cloudbreak.errors import TRANSIENT
from gravswell.errors import GravswellError, UnavailableError
from gravswell.kube.backoff import Backoff

T = TypeVar("T")

Tell = Callable[[str], None]
"""Says in a few words what is under way."""


@contextmanager
def display(what: str) -> Iterator[Tell]:
    """A line that shows what is under way and for how long, on stderr or in the notebook's cell.

    Yields what changes its words. Where nobody looks (no terminal, no notebook), it is one line, at the end.
    """
    columns = SpinnerColumn(finished_text="·"), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=None)
        try:
            yield lambda words: progress.update(task, description=words)
        except BaseException:
            progress.update(task, total=1, completed=1, description=f"{what}: ended")
            raise
        progress.update(task, total=1, completed=1, description=f"{what}: done")


class Patience:
    """How long something may take in all, and when to look next."""

    def __init__(self, seconds: float, *, first: float = 0.25, longest: float = 15.0) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._backoff = Backoff(first, longest)

    def pause(self, until: str, error: Exception | None = None) -> None:
        """Wait before the next look, a little longer each time.

        Raises :class:`UnavailableError` when the time is up; ``until`` says what did not come to be, and what is left.
        ``error`` is why there must be another look, if one failed.
        """
        if time.monotonic() >= self._end:
            raise UnavailableError(f"{until} within {self.seconds:.0f} s" + (f": {error}" if error else "")) from error
        time.sleep(max(0.0, min(self._backoff.failed(), self._end - time.monotonic())))

    def again(self, until: str, call: Callable[[], T], tell: Tell) -> T:
        """What ``call`` returns, made again as long as its errors pass with time."""
        while True:
            try:
                return call()
            except TRANSIENT as error:
                tell(short(error))
                self.pause(until, error)


def short(error: GravswellError, width: int = 160) -> str:
    """An error as a line of a display has room for it."""
    words = " ".join(str(error).split())
    return words if len(words) <= width else words[: width - 1] + "…"
