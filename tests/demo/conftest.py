"""What the demo's tests share: a mark by which every process and file that it leaves behind is found."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from gravswell.serving.triton import ensure_triton
from gravswell_operator.devcluster import ensure_binaries


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    """The programs are built before a demo's time is bounded: on a new machine that takes minutes."""
    ensure_binaries()
    ensure_triton()


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment by which every process that a demo leaves behind can be found."""
    mark = f"GRAVSWELL_TEST_MARK={tmp_path}"
    yield os.environ | {"GRAVSWELL_TEST_MARK": str(tmp_path), "COLUMNS": "200", "TMPDIR": str(tmp_path)}
    left = marked(mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, "processes outlived the demo"


def marked(mark: str) -> list[int]:
    """Processes that carry ``mark`` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"\0{mark}\0" in "\0" + (process / "environ").read_text(errors="replace"):
                found.append(int(process.name))
        except OSError:
            continue  # it ended, or is not ours
    return found
