"""What a start says to the one who waits for it, with a process that reports as a supervisor does."""

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gravswell.cli.app import _assemble, app
from gravswell.errors import InvalidInputError, UnavailableError, UnsupportedError
from gravswell_operator.devcluster import cluster
from gravswell_operator.devcluster.cluster import _await_ready
from gravswell_operator.devcluster.processes import Child
from gravswell_operator.devcluster.state import ClusterState, Phase, Shape, supervising

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
            _await_ready(tmp_path, child.pid, lambda: child.running)
    finally:
        child.stop()


def test_a_disk_without_room_is_told_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "_ROOM", 10**18)
    monkeypatch.setattr(cluster, "ensure", lambda *_: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UnavailableError, match="larger disk") as told:
        cluster.DevCluster().start()
    assert "set TMPDIR" in str(told.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UnavailableError, match="set GRAVSWELL_CACHE"):
        cluster.up(Shape(), directory=tmp_path / "cluster")


def test_a_folder_goes_though_a_server_that_dies_writes_there_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "cluster"
    folder.mkdir()
    late, removes = [folder / "written-late"], shutil.rmtree

    def rmtree(path: Path, *, ignore_errors: bool) -> None:
        removes(path, ignore_errors=ignore_errors)
        while late:
            path.mkdir()
            late.pop().touch()

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    assert not cluster.down(folder)
    assert not late
    assert not folder.exists()


@pytest.fixture
def starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterState]:
    """A detached cluster whose supervisor, this process, is not done with its start."""
    folder = tmp_path / "cluster"
    monkeypatch.setattr(cluster, "default_directory", lambda: folder)
    with supervising(folder) as free:
        assert free
        state = ClusterState(phase=Phase.STARTING, pid=os.getpid(), shape=Shape())
        state.write(folder)
        yield state


@pytest.mark.parametrize("command", [["status"], ["kubeconfig"], ["logs", "pod"]])
def test_during_a_start_the_commands_say_so(starting: ClusterState, command: list[str]):
    _assemble()
    told = CliRunner().invoke(app, ["cluster", *command])
    assert isinstance(told.exception, UnavailableError)
    assert "is starting" in str(told.exception)


def test_up_waits_for_a_start_whose_command_was_interrupted(starting: ClusterState, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "ensure", lambda *_: None)
    ready = starting.model_copy(update={"phase": Phase.READY, "kubeconfig": "there"})
    later = threading.Timer(0.3, ready.write, (cluster.default_directory(),))
    later.start()
    assert cluster.up(starting.shape) == (ready, False)
    later.join()
