"""The control groups of a real node: one subtree in each hierarchy, of version 1 or 2, found again by its name."""

import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gravswell.errors import UnavailableError, UnsupportedError

PREFIX = "gravswell-node-"
"""Begins the name of every subtree; the process id of its owner follows."""

_ROOT = Path("/sys/fs/cgroup")
_LEAF = "machine"
"""Where processes are in version 2: a group that has some of its own cannot share out processors and memory."""
_NEEDED = frozenset({"cpu", "memory", "pids"})
_REMOVAL_SECONDS = 60.0


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy: its place, and what ``mount`` needs to show it again."""

    place: Path
    kind: str
    """``cgroup`` or ``cgroup2``."""
    options: str

    def processes(self, name: str) -> Path:
        """The group of subtree ``name`` that processes join."""
        return self.place / name / (_LEAF if self.kind == "cgroup2" else "")


def hierarchies() -> list[Hierarchy]:
    """Every hierarchy that is mounted here.

    Raises :class:`UnsupportedError` where there is none.
    """
    found = []
    for line in Path("/proc/mounts").read_text().splitlines():
        _source, place, kind, options = line.split()[:4]
        if kind not in {"cgroup", "cgroup2"} or not place.startswith(str(_ROOT)):
            continue
        named = [o for o in options.split(",") if o not in {"rw", "ro", "relatime", "nosuid", "nodev", "noexec"}]
        if kind == "cgroup" and any(option.startswith("name=") for option in named):
            named.insert(0, "none")
        found.append(Hierarchy(Path(place), kind, ",".join(named) if kind == "cgroup" else ""))
    if not found:
        raise UnsupportedError(f"a real node needs control groups, and none are mounted below {_ROOT}")
    return found


def create(name: str) -> None:
    """Make the subtree ``name`` in every hierarchy, ready for processes to join."""
    controllers: set[str] = set()
    for hierarchy in hierarchies():
        folder = hierarchy.place / name
        try:
            hierarchy.processes(name).mkdir(parents=True)
            if hierarchy.kind == "cgroup2":
                controllers.update((folder / "cgroup.controllers").read_text().split())
            else:
                controllers.update(hierarchy.options.split(","))
            for file in ("cpuset.cpus", "cpuset.mems"):
                if hierarchy.kind == "cgroup" and (folder / file).exists():  # empty, it takes no process
                    (folder / file).write_text((hierarchy.place / file).read_text())
        except OSError as error:
            raise UnavailableError(f"the control group {folder} cannot be made: {error.strerror}") from error
    if missing := _NEEDED - controllers:
        wanted = " ".join(f"+{controller}" for controller in sorted(missing))
        raise UnavailableError(
            f"a real node needs control groups with the controllers {', '.join(sorted(missing))}, which new "
            f"ones do not get here; as root: echo '{wanted}' > {_ROOT}/cgroup.subtree_control"
        )


def join_script(name: str) -> str:
    """Shell lines by which the shell joins the subtree ``name``, and with it what it starts or becomes."""
    return _join(hierarchy.processes(name) for hierarchy in hierarchies())


def root_script(name: str) -> str:
    """Shell lines by which the shell joins the top of the subtree: what is the root of a namespace that it makes."""
    return _join(hierarchy.place / name for hierarchy in hierarchies())


def mount_script() -> str:
    """Shell lines for the first process in that namespace: they show there the hierarchies that are mounted outside.

    The process leaves their roots.
    """
    lines = []
    found = hierarchies()
    join = _join(hierarchy.processes("") for hierarchy in found)
    if any(hierarchy.place == _ROOT for hierarchy in found):  # version 2 alone
        lines.append(f"mount -t cgroup2 cgroup2 {_ROOT}")
        found = []
    else:
        lines.append(f"mount -t tmpfs -o mode=755 cgroup {_ROOT}")
    for hierarchy in found:
        options = f"-o {hierarchy.options} " if hierarchy.options else ""
        lines.append(
            f"mkdir {hierarchy.place} && mount -t {hierarchy.kind} {options}{hierarchy.kind} {hierarchy.place}"
        )
    return "\n".join([*lines, join])


def _join(groups: Iterable[Path]) -> str:
    return "".join(f"echo $$ > {group / 'cgroup.procs'}\n" for group in groups)


def sweep() -> None:
    """Remove the subtrees of owners that are gone."""
    for hierarchy in hierarchies():
        for folder in hierarchy.place.glob(f"{PREFIX}*"):
            owner = re.match(rf"{PREFIX}(\d+)-", folder.name)
            if owner and not Path(f"/proc/{owner[1]}").exists():
                remove(folder.name)


def remove(name: str) -> None:
    """Remove the subtree ``name`` everywhere. Its processes must have been told to end: a bounded wait for that."""
    end = time.monotonic() + _REMOVAL_SECONDS
    for hierarchy in hierarchies():
        top = hierarchy.place / name
        for folder, _folders, _files in os.walk(top, topdown=False):
            while True:
                with suppress(FileNotFoundError):
                    try:
                        Path(folder).rmdir()
                    except OSError as error:
                        if time.monotonic() > end:
                            raise UnavailableError(f"the control group {folder} stays: {error.strerror}") from error
                        time.sleep(0.05)
                        continue
                break
