"""What the demo's tests share: a mark by which every process and file that it leaves behind is found."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gravswell.serving.triton import ensure_triton
from gravswell_operator.devcluster import ensure_binaries

from ..environments import without_python_variables

LAST_STEPS = 60
"""Seconds for processes that end by themselves when they see that the demo is gone, as multiprocessing's do."""


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    """The programs are built before a demo's time is bounded: on a new machine that takes minutes."""
    ensure_binaries()
    ensure_triton()


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment by which every process that a demo leaves behind can be found."""
    mark = f"GRAVSWELL_TEST_MARK={tmp_path}"
    yield without_python_variables() | {"GRAVSWELL_TEST_MARK": str(tmp_path), "COLUMNS": "200", "TMPDIR": str(tmp_path)}
    left = outlived(mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, "processes outlived the demo"


def outlived(mark: str) -> dict[int, str]:
    """What is left with ``mark``, once processes had the time to end by themselves."""
    until = time.monotonic() + LAST_STEPS
    while (left := marked(mark)) and time.monotonic() < until:
        time.sleep(0.1)
    return left


def marked(mark: str) -> dict[int, str]:
    """Processes that carry ``mark`` in their environment, with their command lines."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"\0{mark}\0" in "\0" + (process / "environ").read_text(errors="replace"):
                found[int(process.name)] = (process / "cmdline").read_text(errors="replace").replace("\0", " ")
        except OSError:
            continue  # it ended, or is not ours
    return found
