"""The models folder."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from gravswell.errors import InvalidInputError
from gravswell.serving.agent.decide import identity
from gravswell.serving.agent.folder import WORK, ModelFolder
from gravswell.serving.agent.supply import fetch
from gravswell.serving.contracts import DesiredModel

from .versions import publish


@pytest.fixture
def folder(models: Path) -> ModelFolder:
    made = ModelFolder(models)
    made.prepare()
    return made


def staged(folder: ModelFolder, repository: Path, number: int) -> DesiredModel:
    digest = publish(repository, "m", number, float(number))
    model = DesiredModel(name="m", version=number, digest=digest)
    fetch(str(repository), model, folder, wanted=lambda: True)
    return model


def test_a_folder_with_other_things_is_refused(models: Path, repository: Path):
    publish(models, "m", 1, 1.0)
    with pytest.raises(InvalidInputError, match="give it an empty folder"):
        ModelFolder(models).prepare()
    assert (models / "m/1/model.onnx").exists()
    (repository / "lost+found").mkdir()
    ModelFolder(repository).prepare()


def test_a_version_goes_its_way(folder: ModelFolder, repository: Path):
    model = staged(folder, repository, 1)
    assert folder.find(model) == folder.staged_path(model.digest)
    assert folder.staged == {model.digest}

    folder.expose(folder.find(model), "gravswell-proof-x", 1)
    private = folder.root / "gravswell-proof-x"
    assert (private / "config.pbtxt").exists()
    assert (private / "1/model.onnx").stat().st_nlink == 2, "no byte was copied"
    folder.withdraw("gravswell-proof-x")
    assert not private.exists()

    placed = folder.place(model)
    assert placed == folder.root / "m/1" == folder.find(model)
    assert not folder.staged
    assert folder.placed == {"m": {1: model.digest}}
    assert (folder.root / "m/config.pbtxt").exists()
    assert folder.place(model) == placed, "it is placed once"

    folder.remove("m", 1)
    assert not (folder.root / "m").exists()
    assert folder.find(model) is None


def test_another_content_takes_the_number(folder: ModelFolder, repository: Path):
    old = staged(folder, repository, 1)
    folder.place(old)
    (repository / "m/1").rename(repository / "old")
    new = DesiredModel(name="m", version=1, digest=publish(repository, "m", 1, 9.0))
    assert folder.find(new) is None
    fetch(str(repository), new, folder, wanted=lambda: True)
    folder.place(new)
    assert folder.placed == {"m": {1: new.digest}}
    assert folder.find(old) is None


def test_a_new_agent_takes_stock(folder: ModelFolder, repository: Path):
    first, second = staged(folder, repository, 1), staged(folder, repository, 2)
    folder.place(first)
    unverified = folder.root / "theirs/7"
    unverified.mkdir(parents=True)
    (folder.root / "m/2.tmp").mkdir()
    (folder.incoming / ".half.partial").mkdir()
    (folder.root / "gravswell-proof-y/1").mkdir(parents=True)

    again = ModelFolder(folder.root)
    again.prepare()
    theirs = identity(DesiredModel(name="theirs", version=7))
    assert again.placed == {"m": {1: first.digest}, "theirs": {7: theirs}}
    assert again.staged == {second.digest}
    assert list(again.incoming.iterdir()) == []
    assert again.exposed == {"gravswell-proof-y"}, "it stays until Triton has let go of it"
    again.withdraw("gravswell-proof-y")
    assert sorted(path.name for path in again.root.iterdir()) == [WORK, "m", "theirs"]
    assert again.exposed == set()


def test_a_full_disk_does_not_hinder_what_frees_it(
    folder: ModelFolder, repository: Path, monkeypatch: pytest.MonkeyPatch
):
    model = staged(folder, repository, 1)
    folder.place(model)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "mkdir", full)
    folder.remove("m", 1)
    assert not (folder.root / "m").exists()
    assert list(folder.incoming.iterdir()) == []


def test_a_full_disk_leaves_no_half_of_a_config_and_takes_nothing_away(
    folder: ModelFolder, repository: Path, monkeypatch: pytest.MonkeyPatch
):
    old = staged(folder, repository, 1)
    folder.place(old)
    (folder.root / "m/config.pbtxt").unlink()
    (repository / "m/1").rename(repository / "old")
    new = DesiredModel(name="m", version=1, digest=publish(repository, "m", 1, 9.0))
    fetch(str(repository), new, folder, wanted=lambda: True)

    def half(_: Path, target: Path) -> None:
        target.write_text("name")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", half)
        with pytest.raises(OSError, match="No space"):
            folder.place(new)
    assert not (folder.root / "m/config.pbtxt").exists()
    assert folder.find(old) == folder.root / "m/1"
    folder.place(new)
    assert (folder.find(old), folder.find(new)) == (None, folder.root / "m/1")


def test_what_cannot_be_removed_is_out_of_sight(folder: ModelFolder, repository: Path, monkeypatch: pytest.MonkeyPatch):
    model = staged(folder, repository, 1)
    folder.place(model)

    def stuck(path: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    monkeypatch.setattr(shutil, "rmtree", stuck)
    folder.remove("m", 1)
    assert folder.placed == {}
    assert not (folder.root / "m").exists()


@pytest.mark.parametrize("is_placed", [False, True])
def test_a_distrusted_version_is_not_here_and_its_number_can_be_taken_again(
    folder: ModelFolder, repository: Path, is_placed: bool
):
    model = staged(folder, repository, 1)
    if is_placed:
        (folder.place(model) / "model.onnx").write_bytes(b"")
    folder.distrust(model)
    assert folder.find(model) is None
    fetch(str(repository), model, folder, wanted=lambda: True)
    assert (folder.place(model) / "model.onnx").stat().st_size > 0


def test_a_stage_is_dropped(folder: ModelFolder, repository: Path):
    model = staged(folder, repository, 1)
    folder.drop_stage(model.digest)
    assert folder.find(model) is None
    assert not folder.staged_path(model.digest).exists()
