"""How the demo ends early: once asked to, it cleans up, and nothing stops it at that."""

import errno
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from rich.markup import escape

from gravswell.errors import GravswellError, UnavailableError
from gravswell_operator.demo.view import Story

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interruptible(story: Story) -> Iterator[None]:
    """Let the first Ctrl-C end the block, as SIGTERM and a closed terminal do; those that follow change nothing.

    A second Ctrl-C would end the clean-up that the first one began, and leave processes, folders or objects behind.
    """
    asked = False

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if number == signal.SIGHUP:
            story.console.quiet = True  # nobody is there to read, and writing would fail
        if not asked:
            asked = True
            raise KeyboardInterrupt

    # One that is ignored already, as under nohup, stays so.
    before = {number: handler for number in _SIGNALS if (handler := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for_interrupt(story: Story, words: str, *lines: str) -> None:
    """Say ``words`` and ``lines``, which a reader may copy, and wait until the user has seen enough."""
    story.say(f"\n[bold]{escape(words)}[/]")
    for line in lines:
        story.console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    story.say("Ctrl-C ends it and cleans up.")
    with story.step("kept up", spinner=False), suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


@contextmanager
def full_disk_told() -> Iterator[None]:
    """Turn the system's own error for a full disk, wherever it comes up, into one that says what helps."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UnavailableError(
            f"the disk is full{f' ({error.filename})' if error.filename else ''}: make room, or set TMPDIR (what the "
            "demo makes) and GRAVSWELL_CACHE (what it installs and builds once) to folders on a larger disk"
        ) from error


@contextmanager
def first_error_counts(story: Story, what: str) -> Iterator[None]:
    """Around a clean-up after an error: when it fails too, say what it leaves, and let the first error be told."""
    try:
        yield
    except GravswellError as error:
        story.say(f"[yellow]Left behind:[/] {escape(f'{what} ({error})')}")
