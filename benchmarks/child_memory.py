"""What a process has in memory at most, and a control group in which it has so much and no more."""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gravswell.errors import UnavailableError, UnsupportedError

FILES = {
    "cgroup": ("memory.limit_in_bytes", "memory.swappiness", "memory.oom_control"),
    "cgroup2": ("memory.max", "memory.swap.max", "memory.events"),
}
"""By the version: what is set to the limit, and to 0 so that nothing is swapped; and what counts who was killed."""
CHILD_SECONDS = 1200.0
"""For one process: where memory is short, the kernel may be reading the same pages again and again."""
_RESIDENT = re.compile(r"^(VmHWM|RssAnon):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Peak:
    """Bytes of resident memory: ``all`` of it, and its ``own``, which is no file's."""

    all: float
    own: float


@dataclass(frozen=True)
class Ended:
    """A process that has: by itself, killed for want of memory, or ``late``, when it was killed here."""

    peak: Peak
    seconds: float
    code: int
    """Of its exit; negative for the signal that ended it."""
    late: bool


def run(command: Sequence[str], group: "Group | None" = None) -> Ended:
    """Run ``command``, in ``group`` if it is given, until it has ended."""
    begin = time.perf_counter()
    child = subprocess.Popen(group.joining(command) if group else command)
    peak, late = Peak(0.0, 0.0), False
    try:
        while child.poll() is None:
            now = _resident(child.pid)
            peak = Peak(max(peak.all, now.all), max(peak.own, now.own))
            time.sleep(0.005)
            if not late and time.perf_counter() - begin > CHILD_SECONDS:
                late = True
                child.kill()
    except BaseException:  # interrupted: it would go on
        child.kill()
        child.wait()
        raise
    return Ended(peak, time.perf_counter() - begin, child.returncode, late)


def _resident(pid: int) -> Peak:
    """What the process had in memory at most until now, and has that is no file's; nothing of one that has ended.

    What :func:`os.wait4` tells of the former begins with the memory of who started it, which forked.
    """
    found = dict(_RESIDENT.findall(Path(f"/proc/{pid}/status").read_text()))
    return Peak(*(int(found.get(name, 0)) * 1024.0 for name in ("VmHWM", "RssAnon")))


@contextmanager
def limited(name: str, size: int) -> Iterator["Group"]:
    """A control group ``name``, whose processes have ``size`` bytes of memory, pages of files that they bring in too.

    The kernel takes back pages of files where it needs them, and kills the process where that is not enough. The
    processes must have ended when the group is left, which removes it.

    :raises UnsupportedError: this takes root, and the memory controller of control groups.
    :raises UnavailableError: the group cannot be made.
    """
    from gravswell_operator.devcluster.realnode import cgroups  # noqa: PLC0415 - not in every child that is measured

    if os.geteuid() != 0:
        raise UnsupportedError("a limit of memory is a control group, which takes root; run this with sudo")
    try:
        found = cgroups.hierarchies()
    except UnsupportedError:
        found = []
    place, kind = memory_place([(hierarchy.place, hierarchy.kind, hierarchy.options) for hierarchy in found])
    group = Group(place / name, kind)
    try:
        group.folder.mkdir()
    except OSError as error:
        raise UnavailableError(f"the control group {group.folder} cannot be made: {error.strerror}") from error
    try:
        group.limit(size)
        yield group
    finally:
        cgroups.remove(name)


def memory_place(hierarchies: Sequence[tuple[Path, str, str]]) -> tuple[Path, str]:
    """Of these places, versions and options the place and version that have the memory controller."""
    for place, kind, options in hierarchies:
        controllers = (place / "cgroup.controllers").read_text().split() if kind == "cgroup2" else options.split(",")
        if "memory" in controllers:
            return place, kind
    raise UnsupportedError("a limit of memory needs the memory controller of control groups, which is not mounted here")


class Group:
    """A group, and how processes join it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self._limit, self._swap, self._events = FILES[kind]

    def limit(self, size: int) -> None:
        """Give it so many bytes, and no swap."""
        if not (self.folder / self._limit).exists():
            raise UnsupportedError(
                f"new control groups do not get the memory controller here; as root: "
                f"echo +memory > {self.folder.parent}/cgroup.subtree_control"
            )
        (self.folder / self._limit).write_text(str(size))
        if (self.folder / self._swap).exists():  # where the kernel has swap at all
            (self.folder / self._swap).write_text("0")

    def joining(self, command: Sequence[str]) -> list[str]:
        """The command of a process that is ``command`` in the group, from its first moment on."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"), *command]

    @property
    def killed(self) -> bool:
        """Whether a process was, for want of memory."""
        found = re.search(r"^oom_kill (\d+)$", (self.folder / self._events).read_text(), re.MULTILINE)
        return found is not None and int(found[1]) > 0
