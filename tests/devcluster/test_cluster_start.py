"""What a start says to the one who waits for it, with a process that reports as a supervisor does."""

import sys
from pathlib import Path

import pytest

from gravswell.errors import InvalidInputError, UnavailableError, UnsupportedError
from gravswell_operator.devcluster.cluster import _await_ready
from gravswell_operator.devcluster.processes import Child

REPORT = (
    "import os, pathlib, sys, time\n"
    "from gravswell_operator.devcluster.state import ClusterState, Phase, Shape\n"
    "state = ClusterState(phase=Phase.FAILED, pid=os.getpid(), shape=Shape(), message='it cannot be here',\n"
    "                     exit_code=int(sys.argv[2]))\n"
    "state.write(pathlib.Path(sys.argv[1]))\n"
)


@pytest.mark.parametrize(
    ("code", "kind"), [(9, UnsupportedError), (2, InvalidInputError), (7, UnavailableError), (1, UnavailableError)]
)
def test_a_start_that_failed_is_told_as_what_it_was(tmp_path: Path, code: int, kind: type[Exception]):
    child = Child("a supervisor", [sys.executable, "-c", REPORT, tmp_path, str(code)], log=tmp_path / "log")
    try:
        with pytest.raises(kind, match="did not start: it cannot be here"):
            _await_ready(tmp_path, child)
    finally:
        child.stop()
