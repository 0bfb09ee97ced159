"""A process that is measured, and what a limit of memory does to it: on the kernel's own control groups, as root."""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gravswell.errors import UnavailableError, UnsupportedError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAME = f"gravswell-test-{os.getpid()}"
LIMIT = 64_000_000
TAKES = "held = bytearray(b'x') * {size}"
UNTIL = """
import pathlib, time
end = time.monotonic() + 60
while not pathlib.Path({path!r}).exists() and time.monotonic() < end:
    time.sleep(0.01)
"""
FILE = """
import os, pathlib
path = pathlib.Path({path!r})
with path.open("wb") as sink:
    for _ in range(200):
        sink.write(bytes(1_000_000))
        os.fsync(sink.fileno())
assert sum(len(block) for block in iter(lambda s=path.open("rb"): s.read(1_000_000), b"")) == 200_000_000
"""


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("child_memory")


def test_what_a_process_has_is_seen(memory: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen, sampled = tmp_path / "seen", memory._resident
    own = bytearray(b"x") * 300_000_000  # what the test's own process has is not the child's

    def telling(pid: int) -> object:
        found = sampled(pid)
        if found.own > 100e6:
            seen.touch()
        return found

    monkeypatch.setattr(memory, "_resident", telling)
    ended = memory.run([sys.executable, "-c", f"{TAKES.format(size=100_000_000)}\n{UNTIL.format(path=str(seen))}"])
    assert (ended.code, ended.late) == (0, False)
    assert 100e6 < ended.peak.own < ended.peak.all < 200e6 < len(own)


@pytest.mark.parametrize(("size", "killed"), [(20_000_000, False), (200_000_000, True)])
def test_who_takes_more_is_killed_and_who_does_not_is_not(memory: ModuleType, size: int, killed: bool) -> None:
    with memory.limited(NAME, LIMIT) as group:
        ended = memory.run([sys.executable, "-c", TAKES.format(size=size)], group)
        assert group.killed is killed
    assert ended.code == (-9 if killed else 0)
    assert not group.folder.exists()


def test_pages_of_files_are_taken_back(memory: ModuleType, tmp_path: Path) -> None:
    """Once they are on the disk: version 1 of control groups may kill who writes faster than that."""
    with memory.limited(NAME, LIMIT) as group:
        ended = memory.run([sys.executable, "-c", FILE.format(path=str(tmp_path / "file"))], group)
        assert (ended.code, group.killed) == (0, False)


def test_a_group_goes_when_its_user_fails(memory: ModuleType) -> None:
    groups = []

    def failing() -> None:
        with memory.limited(NAME, LIMIT) as group:
            groups.append(group.folder)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert [folder.exists() for folder in groups] == [False]


def test_a_group_of_somebody_else_is_left_alone(memory: ModuleType) -> None:
    with memory.limited(NAME, LIMIT) as group:
        with pytest.raises(UnavailableError, match=rf"{NAME} cannot be made: File exists"), memory.limited(NAME, LIMIT):
            pass
        assert group.folder.exists()


def test_a_process_that_takes_too_long_is_ended(memory: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CHILD_SECONDS", 0.1)
    ended = memory.run([sys.executable, "-c", "import time; time.sleep(1000)"])
    assert (ended.code, ended.late) == (-9, True)


def test_without_root_it_says_so(memory: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(UnsupportedError, match="takes root; run this with sudo"), memory.limited(NAME, LIMIT):
        pass


def test_the_memory_controller_is_where_the_kernel_has_it(memory: ModuleType, tmp_path: Path) -> None:
    """Of both versions, which one kernel does not have at once."""
    (tmp_path / "cgroup.controllers").write_text("cpu io pids\n")
    second, first = (tmp_path, "cgroup2", ""), [(Path("/c"), "cgroup", "cpu,cpuacct"), (Path("/m"), "cgroup", "memory")]
    assert memory.memory_place([second, *first]) == (Path("/m"), "cgroup")
    for places in ([], [second], [second, first[0]]):
        with pytest.raises(UnsupportedError, match="needs the memory controller of control groups"):
            memory.memory_place(places)
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    assert memory.memory_place([second]) == (tmp_path, "cgroup2")


def test_a_group_that_gets_no_memory_controller_says_how_it_would(memory: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=rf"echo \+memory > {tmp_path}/cgroup.subtree_control"):
        memory.Group(tmp_path / "mine", "cgroup2").limit(LIMIT)
