"""What this machine shows of what runs in namespaces of its own, and of what is left of it."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def until(fact: Callable[[], object]) -> None:
    end = time.monotonic() + 300
    while not fact():
        assert time.monotonic() < end, "not within 300 s"
        time.sleep(0.05)


def mounts_in(folder: Path) -> list[str]:
    """The mounts below a folder that any process sees."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines = (process / "mountinfo").read_text().splitlines()
        except OSError:  # it has ended
            continue
        found += [line.split()[4] for line in lines if line.split()[4].startswith(f"{folder}/")]
    return found


def processes_of(folder: Path) -> list[str]:
    """The commands that name a folder, or have it in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in said and int(process.name) != os.getpid():
            found.append(said[:200].decode(errors="replace"))
    return found


def threads_elsewhere() -> list[str]:
    """The names of this process's threads that are in another network than the one that asks."""
    own, found = Path("/proc/thread-self/ns/net").readlink(), []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            if (task / "ns/net").readlink() != own:
                found.append((task / "comm").read_text().strip())
    return found
