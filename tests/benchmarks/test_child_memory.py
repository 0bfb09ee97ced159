"""A process that is measured, and what a limit of memory does to it: on the kernel's own control groups, as root."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gravswell.errors import UnavailableError, UnsupportedError

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


def test_what_a_process_has_is_seen(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen, sampled = tmp_path / "seen", benchmark._resident
    own = bytearray(b"x") * 300_000_000  # what the test's own process has is not the child's

    def telling(pid: int) -> object:
        found = sampled(pid)
        if found.own > 100e6:
            seen.touch()
        return found

    monkeypatch.setattr(benchmark, "_resident", telling)
    ended = benchmark.run([sys.executable, "-c", f"{TAKES.format(size=100_000_000)}\n{UNTIL.format(path=str(seen))}"])
    assert (ended.code, ended.late) == (0, False)
    assert 100e6 < ended.peak.own < ended.peak.all < 200e6 < len(own)


@pytest.mark.parametrize(("size", "killed"), [(20_000_000, False), (200_000_000, True)])
def test_who_takes_more_is_killed_and_who_does_not_is_not(benchmark: ModuleType, size: int, killed: bool) -> None:
    with benchmark.limited(NAME, LIMIT) as group:
        ended = benchmark.run([sys.executable, "-c", TAKES.format(size=size)], group)
        assert group.killed is killed
    assert ended.code == (-9 if killed else 0)
    assert not group.folder.exists()


def test_pages_of_files_are_taken_back(benchmark: ModuleType, tmp_path: Path) -> None:
    """Once they are on the disk: version 1 of control groups may kill who writes faster than that."""
    with benchmark.limited(NAME, LIMIT) as group:
        ended = benchmark.run([sys.executable, "-c", FILE.format(path=str(tmp_path / "file"))], group)
        assert (ended.code, group.killed) == (0, False)


def test_a_group_goes_when_its_user_fails(benchmark: ModuleType) -> None:
    groups = []

    def failing() -> None:
        with benchmark.limited(NAME, LIMIT) as group:
            groups.append(group.folder)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert [folder.exists() for folder in groups] == [False]


def test_a_group_of_somebody_else_is_left_alone(benchmark: ModuleType) -> None:
    with benchmark.limited(NAME, LIMIT) as group:
        told = f"{NAME} cannot be made: File exists"
        with pytest.raises(UnavailableError, match=told), benchmark.limited(NAME, LIMIT):
            pass
        assert group.folder.exists()


def test_a_process_that_takes_too_long_is_ended(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "CHILD_SECONDS", 0.1)
    ended = benchmark.run([sys.executable, "-c", "import time; time.sleep(1000)"])
    assert (ended.code, ended.late) == (-9, True)


def test_without_root_it_says_so(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(UnsupportedError, match="takes root; run this with sudo"), benchmark.limited(NAME, LIMIT):
        pass


def test_the_memory_controller_is_where_the_kernel_has_it(benchmark: ModuleType, tmp_path: Path) -> None:
    """Of both versions, which one kernel does not have at once."""
    (tmp_path / "cgroup.controllers").write_text("cpu io pids\n")
    second, first = (tmp_path, "cgroup2", ""), [(Path("/c"), "cgroup", "cpu,cpuacct"), (Path("/m"), "cgroup", "memory")]
    assert benchmark.memory_place([second, *first]) == (Path("/m"), "cgroup")
    for places in ([], [second], [second, first[0]]):
        with pytest.raises(UnsupportedError, match="needs the memory controller of control groups"):
            benchmark.memory_place(places)
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    assert benchmark.memory_place([second]) == (tmp_path, "cgroup2")


def test_a_group_that_gets_no_memory_controller_says_how_it_would(benchmark: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=rf"echo \+memory > {tmp_path}/cgroup.subtree_control"):
        benchmark.Group(tmp_path / "mine", "cgroup2").limit(LIMIT)
