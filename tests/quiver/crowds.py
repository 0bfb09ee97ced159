"""What holds after a crowd was at one model, on every kind of store. A test run sends a small one to a bucket, which is
slow here; ``GRAVSWELL_CROWD=50`` in its environment lets each of the four make so many versions.
"""

import os
import subprocess
import sys
from pathlib import Path

from gravswell import quiver as qv
from gravswell.quiver.reader import RepositoryReader

from .faults import found_in

ABOVE = Path(__file__).parents[1]
"""Whence programs are run: from the root, a package ``tests`` that somebody installed would come first."""
WRITERS = 4
EACH = int(os.environ.get("GRAVSWELL_CROWD", "0"))
LIMIT = 3600 if EACH else 550
"""Seconds."""


def crowd(url: str, model: Path, logs: Path, *, each: int) -> None:
    """Four processes export ``each`` versions to one model while another reads: all are there, and whole."""
    each = EACH or each
    qv.ModelRepository(url).add("m")
    logs.mkdir()
    program = [sys.executable, "-m", "quiver.crowd", url, each, WRITERS, logs, model]
    ended = subprocess.run([*map(str, program)], capture_output=True, text=True, timeout=LIMIT, check=False, cwd=ABOVE)
    assert ended.returncode == 0, ended.stderr
    said = [int(line) for k in range(WRITERS) for line in (logs / f"{k}.log").read_text().split()]
    assert len(said) == WRITERS * each
    assert len(set(said)) == len(said), "no number is given twice"
    assert found_in(url) == {"m": tuple(sorted(said))}, "none lost, none torn, and nothing else"
    assert int((logs / "reader").read_text()) > 0, "the reader never failed, and did read"
    assert {info.number for info in RepositoryReader(url).versions("m")} == set(said)
