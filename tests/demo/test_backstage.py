"""What the demo starts behind its first chapters: how far it is, how it fails, and that it goes, wherever it is."""

import tempfile
from pathlib import Path

import pytest

from gravswell.errors import UnavailableError
from gravswell_operator.api.crd import crds
from gravswell_operator.demo.backstage import Backstage
from gravswell_operator.devcluster import ensure_binaries
from gravswell_operator.devcluster.binaries import ASSETS_ENV

from .conftest import marked

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
    assert not marked(f"GRAVSWELL_TEST_MARK={tmp_path}")
    assert not list((tmp_path / "scratch").iterdir())


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


def test_what_fails_is_told_where_it_is_waited_for(
    stage: Backstage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etcd").write_text("#!/bin/sh\necho the disk is on fire; exit 1\n")
    (tmp_path / "etcd").chmod(0o755)
    monkeypatch.setenv(ASSETS_ENV, str(tmp_path))
    stage.begin()
    for part in (stage.cluster, stage.operator):
        with pytest.raises(UnavailableError, match="the disk is on fire"):
            part.result(LONGEST)
    stage.end()
    require_nothing_left(tmp_path)
