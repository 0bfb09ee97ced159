"""What the next server's start sweeps of those whose owner was killed."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gravswell.serving.triton.workspace import KEEP_LOGS_SECONDS, Workspace

SHM = Path("/dev/shm")


@pytest.fixture
def dead() -> int:
    """The process id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(60)
    return child.pid


@pytest.fixture
def segments(dead: int) -> Iterator[list[Path]]:
    """Of a dead server, of one that runs, and of no server."""
    made = [SHM / name for name in (f"gravswell-{dead}-abc", f"gravswell-{os.getpid()}-abc", "gravswell-x-abc")]
    for path in made:
        path.write_bytes(b"1")
    yield made
    for path in made:
        path.unlink(missing_ok=True)


def test_shared_memory_of_killed_servers_goes(segments: list[Path]) -> None:
    Workspace.create().remove()
    assert [path.exists() for path in segments] == [False, True, True]


def test_logs_of_failed_starts_go_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, fresh, other = (tmp_path / name for name in ("gravswell-triton-a.log", "gravswell-triton-b.log", "mine.log"))
    for path in (old, fresh, other):
        path.write_text("")
    for path in (old, other):
        os.utime(path, (0, time.time() - KEEP_LOGS_SECONDS - 1))
    Workspace.create().remove()
    assert [path.exists() for path in (old, fresh, other)] == [False, True, True]
