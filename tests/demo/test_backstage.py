"""What the demo starts behind its first chapters: how far it is, how it fails, and that it goes, wherever it is."""

import io
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from gravswell.errors import UnavailableError
from gravswell_operator.api.crd import crds
from gravswell_operator.demo import backstage, story
from gravswell_operator.demo.backstage import Backstage
from gravswell_operator.demo.view import Story
from gravswell_operator.devcluster import DevCluster, ensure_binaries
from gravswell_operator.devcluster.binaries import ASSETS_ENV
from gravswell_operator.devcluster.processes import Child

from .conftest import outlived

LONGEST = 300
"""Seconds: a few are usual."""


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backstage:
    for folder in ("scratch", "stage"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.setenv("GRAVSWELL_TEST_MARK", str(tmp_path))
    return Backstage(ensure_binaries(), tmp_path / "stage")


def require_nothing_left(tmp_path: Path) -> None:
    assert not list((tmp_path / "scratch").iterdir())
    assert not outlived(f"GRAVSWELL_TEST_MARK={tmp_path}")


def all_asleep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an etcd and an operator that only sleep pass for a cluster that is up."""
    another_etcd(tmp_path, monkeypatch, "exec sleep 600")
    operator = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(DevCluster, "wait", lambda _: None)
    monkeypatch.setattr(DevCluster, "kubectl", None)
    monkeypatch.setattr(backstage, "start_operator", lambda _, log: Child("an operator", operator, log=log))


def test_one_after_the_other_is_there_and_all_of_it_goes(stage: Backstage, tmp_path: Path) -> None:
    stage.begin()
    operator = stage.operator.result(LONGEST)
    operator.require_running()
    listed = stage.cluster.result().kubectl("get", "customresourcedefinitions", "--output=name").split()
    assert len(listed) == len(crds())
    stage.end()
    stage.end()
    assert not operator.running
    require_nothing_left(tmp_path)


def test_it_goes_while_it_starts(stage: Backstage, tmp_path: Path) -> None:
    stage.begin()
    stage.end()
    require_nothing_left(tmp_path)


def another_etcd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (tmp_path / "etcd").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "etcd").chmod(0o755)
    monkeypatch.setenv(ASSETS_ENV, str(tmp_path))


def test_what_is_stopped_before_it_is_waited_for_does_not_begin_again(
    stage: Backstage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_etcd(tmp_path, monkeypatch, "exec sleep 600")
    runs, stopped = Backstage._run, threading.Event()

    def late(stage: Backstage) -> None:
        stopped.wait()
        runs(stage)

    def stop(cluster: DevCluster, stops=DevCluster.stop) -> None:
        stops(cluster)
        stopped.set()

    monkeypatch.setattr(Backstage, "_run", late)
    monkeypatch.setattr(DevCluster, "stop", stop)
    stage.begin()
    stage.end()
    with pytest.raises(UnavailableError, match="was stopped while it started"):
        stage.cluster.result(LONGEST)
    require_nothing_left(tmp_path)


def test_interrupted_at_its_end_it_goes_all_the_same(
    stage: Backstage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A join that is interrupted has Python believe that the thread is gone, with the cluster's folder still there."""
    all_asleep(tmp_path, monkeypatch)

    def stop(cluster: DevCluster, stops=DevCluster.stop) -> None:
        if threading.current_thread() is not threading.main_thread():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.5)
        stops(cluster)

    monkeypatch.setattr(DevCluster, "stop", stop)
    stage.begin()
    stage.operator.result(LONGEST)
    with pytest.raises(KeyboardInterrupt):
        stage.end()
    require_nothing_left(tmp_path)


def test_an_end_that_fails_is_told_once_and_not_in_place_of_an_error_before_it(
    stage: Backstage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_asleep(tmp_path, monkeypatch)

    def stop(cluster: DevCluster, stops=DevCluster.stop) -> None:
        stops(cluster)
        raise UnavailableError("the folder stays")

    monkeypatch.setattr(DevCluster, "stop", stop)
    said = io.StringIO()

    def fail() -> None:
        with story._ended(Story(Console(file=said)), stage):
            stage.begin()
            stage.operator.result(LONGEST)
            raise UnavailableError("the first error")

    with pytest.raises(UnavailableError, match="the first error"):
        fail()
    assert "Left behind: parts of the development cluster (the folder stays)" in said.getvalue()
    stage.end()
    require_nothing_left(tmp_path)


def test_what_fails_is_told_where_it_is_waited_for(
    stage: Backstage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_etcd(tmp_path, monkeypatch, "echo the disk is on fire; exit 1")
    stage.begin()
    for part in (stage.cluster, stage.operator):
        with pytest.raises(UnavailableError, match="the disk is on fire"):
            part.result(LONGEST)
    stage.end()
    require_nothing_left(tmp_path)
