"""Every operation, ended at every one of its steps: what is visible is whole, and the next user works on.

On a bucket a step is a request, which fails, is lost on its way back, or is the last thing that the process does; on a
disk it is a change of it that the system refuses. That a process is killed at each is in ``test_deaths.py``.

A test run ends requests in three ways; with ``GRAVSWELL_FAULTS=all`` in its environment in all five.
"""

import errno
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import GravswellError, UnavailableError
from gravswell.quiver import stores
from gravswell.quiver.stores import burial, claims

from .faults import (
    BEFORE,
    DISK,
    OPERATIONS,
    Killed,
    Operation,
    Trap,
    aliases_in,
    found_in,
    go_on,
    prepare,
    remains,
    trapped,
)
from .stores.memory_objects import Memory, MemoryObjects

Affine = Callable[..., Any]
URL = "gs://memory/my repo"
_LIMIT = 200
"""More steps than any operation has."""


class InMemory:
    """The bucket behind :data:`URL`."""

    def __init__(self) -> None:
        self.memory = Memory()

    def keys(self) -> list[str]:
        return [key.removeprefix("my repo/") for key in self.memory.held]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> InMemory:
    """Where every claim is dead at once and no tombstone stays, so that the very next writer clears up."""
    place = InMemory()
    monkeypatch.setattr(stores, "_objects", lambda *_: MemoryObjects(place.memory))
    monkeypatch.setattr(claims, "EXPIRY", timedelta(0))
    monkeypatch.setattr(burial, "EXPIRY", timedelta(0))
    monkeypatch.setattr(burial, "TOMBSTONES_STAY", timedelta(0))
    return place


def _cut() -> BaseException:
    return UnavailableError("the network is cut")


ENDS: dict[str, Callable[[int], Trap]] = {
    "refused once": lambda at: Trap(at, _cut, for_good=False),
    "lost once": lambda at: Trap(at, _cut, for_good=False, after=True),
    "cut": lambda at: Trap(at, _cut),
    "lost, then cut": lambda at: Trap(at, _cut, after=True),
    "killed": lambda at: Trap(at, Killed),
}


@pytest.mark.parametrize("end", ENDS if os.environ.get("GRAVSWELL_FAULTS") else ["refused once", "lost once", "killed"])
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_request_to_a_bucket(place: InMemory, prebuilt: Path, operation: Operation, end: str) -> None:
    prepare(URL, prebuilt)
    prepared = place.memory
    for at in range(_LIMIT):
        place.memory = prepared.copy()
        repo = qv.ModelRepository.open(URL)
        trap = ENDS[end](at)
        trapped(repo, trap.step)
        done = False
        try:
            operation.act(repo, prebuilt)
            done = True
        except (GravswellError, Killed):
            pass
        if not trap.sprung:
            assert done
            assert at > 1
            return
        found, aliases = found_in(URL), aliases_in(URL)
        where = f"{end} at {at}: {found}, {aliases}"
        assert operation.allows(found, aliases), where
        if done:
            assert (found, aliases) == (operation.after, operation.aliases), where
        elif end == "refused once" and operation.after != BEFORE and "export" in operation.act.__code__.co_names:
            assert found == BEFORE, where
        go_on(URL, prebuilt, {**found, **BEFORE} if found else {})  # numbers are forgotten with the whole repository
        left = remains(URL, place.keys())
        assert not left, f"{where}; {left}"
    raise AssertionError("it never ended")


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_change_of_a_disk_that_is_full(tmp_path: Path, prebuilt: Path, operation: Operation) -> None:
    """What could not be written is told, and left no trace by the time that it is."""
    prepare(tmp_path / "prepared", prebuilt)
    root = tmp_path / "trial" / "repository"
    for at in range(_LIMIT):
        shutil.copytree(tmp_path / "prepared", root)
        repo = qv.ModelRepository.open(root)
        trap = Trap(at, lambda: OSError(errno.ENOSPC, "No space left on device"), for_good=False)
        told = None
        with DISK.trapped(root.parent, trap, DISK.MAKING):
            try:
                operation.act(repo, prebuilt)
            except UnavailableError as error:
                told = str(error)
        found, aliases = found_in(root), aliases_in(root)
        right = operation.allows(found, aliases) if told else (found, aliases) == (operation.after, operation.aliases)
        assert right, f"at {at}: {told}"
        if not trap.sprung:
            return
        assert told is None or "free some space" in told
        if found:
            assert list(root.parent.iterdir()) == [root], f"at {at}: {told}"
            go_on(root, prebuilt, {**found, **BEFORE}, exports=1)
            left = remains(root, [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()])
            assert not left, f"at {at}: {told}"
        shutil.rmtree(root.parent)
    raise AssertionError("it never ended")
