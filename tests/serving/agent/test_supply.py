"""From the repository into the models folder: each way in which it fails has its reason."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gravswell.quiver.manifest import MANIFEST
from gravswell.serving.agent import memory
from gravswell.serving.agent.decide import identity
from gravswell.serving.agent.failures import ModelFailure, SupersededError
from gravswell.serving.agent.folder import ModelFolder
from gravswell.serving.agent.supply import (
    SPARE_BYTES,
    fetch,
    is_damaged,
    published_config,
    servable_config,
)
from gravswell.serving.contracts import DesiredModel, Reason, Verification

from .versions import flip_a_bit, publish, publish_member, publish_pipeline, scaling_graph


@pytest.fixture
def folder(models: Path) -> ModelFolder:
    made = ModelFolder(models)
    made.prepare()
    return made


def damaged_manifest(version: Path) -> None:
    (version / MANIFEST).write_text("{")


def missing_file(version: Path) -> None:
    (version / "model.onnx").unlink()


def truncated(version: Path) -> None:
    data = (version / "model.onnx").read_bytes()
    (version / "model.onnx").write_bytes(data[:-5])


def replaced(version: Path) -> None:
    shutil.rmtree(version)
    publish(version.parent.parent, "m", 1, 5.0)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda version: flip_a_bit(version / "model.onnx"), Reason.HASH_MISMATCH),
        (lambda version: flip_a_bit(version / ".golden.npz"), Reason.HASH_MISMATCH),
        (lambda version: flip_a_bit(version / ".config.pbtxt"), Reason.HASH_MISMATCH),
        (missing_file, Reason.HASH_MISMATCH),
        (truncated, Reason.HASH_MISMATCH),
        (damaged_manifest, Reason.MANIFEST_INVALID),
        (lambda version: (version / MANIFEST).unlink(), Reason.VERSION_NOT_FOUND),
        (shutil.rmtree, Reason.VERSION_NOT_FOUND),
        (lambda version: shutil.rmtree(version.parent), Reason.VERSION_NOT_FOUND),
        (lambda version: shutil.rmtree(version.parent.parent), Reason.REPOSITORY_NOT_FOUND),
        (replaced, Reason.DIGEST_MISMATCH),
    ],
    ids=[
        "bit in the model", "bit in the golden tensors", "bit in the config", "file gone", "cut short",
        "manifest damaged", "manifest gone", "version gone", "entry gone", "repository gone", "replaced",
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_is_staged(
    folder: ModelFolder, repository: Path, damage: Callable[[Path], None], reason: Reason
):
    model = DesiredModel(name="m", version=1, digest=publish(repository, "m", 1, 1.0))
    damage(repository / "m/1")
    with pytest.raises(ModelFailure) as caught:
        fetch(str(repository), model, folder, wanted=lambda: True)
    assert caught.value.reason is reason, str(caught.value)
    assert folder.staged == set()
    assert list(folder.staged_path("x").parent.iterdir()) == []
    assert list(folder.incoming.iterdir()) == []


@pytest.mark.parametrize("url", ["ftp://host/models", "file://host/x", ""])
def test_what_is_no_repository(folder: ModelFolder, url: str):
    with pytest.raises(ModelFailure) as caught:
        fetch(url, DesiredModel(name="m", version=1, digest="0" * 64), folder, wanted=lambda: True)
    assert caught.value.reason is Reason.NOT_A_REPOSITORY


def test_a_download_that_nobody_wants_any_more_is_given_up(folder: ModelFolder, repository: Path):
    model = DesiredModel(name="m", version=1, digest=publish(repository, "m", 1, 1.0))
    with pytest.raises(SupersededError):
        fetch(str(repository), model, folder, wanted=lambda: False)
    assert folder.staged == set()
    assert list(folder.incoming.iterdir()) == []


def test_a_version_of_others_gets_the_entry_s_config(folder: ModelFolder, repository: Path):
    publish(repository, "m", 1, 1.0)
    shutil.copytree(repository / "m/1", repository / "m/2", ignore=shutil.ignore_patterns(".*"))
    model = DesiredModel(name="m", version=2, verification=Verification.NONE)
    fetch(str(repository), model, folder, wanted=lambda: True)
    assert published_config(folder.place(model), "m").platform == "onnxruntime_onnx"

    shutil.copytree(repository / "m/2", repository / "bare/1")
    bare = DesiredModel(name="bare", version=1, verification=Verification.NONE)
    fetch(str(repository), bare, folder, wanted=lambda: True)
    with pytest.raises(ModelFailure, match=r"no config\.pbtxt"):
        published_config(folder.place(bare), "bare")


def test_room_is_asked_for_a_pipeline_with_all_its_members(models: Path, repository: Path):
    padding = bytes(200_000)
    first = publish_member(repository, "first", 1, 2.0, graph=scaling_graph(2.0) + padding)
    second = publish_member(repository, "second", 1, 3.0, graph=scaling_graph(3.0) + padding)
    digest = publish_pipeline(repository, "chain", 1, 6.0, first, second)
    model = DesiredModel(name="chain", version=1, digest=digest)
    small = ModelFolder(models, limit=SPARE_BYTES + 300_000)
    small.prepare()
    for folder, limit, reason in ((small, None, Reason.NO_SPACE), (ModelFolder(models), 300_000, Reason.NO_MEMORY)):
        folder.prepare()
        with pytest.raises(ModelFailure) as caught:
            fetch(str(repository), model, folder, wanted=lambda: True, memory_limit=limit)
        assert caught.value.reason is reason
        assert folder.staged == set(), "nothing was copied"
    fetch(str(repository), model, folder, wanted=lambda: True)
    assert folder.holds(model)
    assert folder.needed() == {first.digest, second.digest}
    again = ModelFolder(models)
    again.prepare()
    assert again.members_of(model) == folder.members_of(model), "it is read again after a restart"


def of_others(repository: Path) -> DesiredModel:
    """A version that somebody else wrote."""
    publish(repository, "m", 1, 1.0)
    shutil.copytree(repository / "m/1", repository / "m/2", ignore=shutil.ignore_patterns(".*"))
    return DesiredModel(name="m", version=2, verification=Verification.NONE)


def test_a_copy_that_cannot_be_completed_is_no_obstacle_to_the_next(folder: ModelFolder, repository: Path):
    model = of_others(repository)
    text = (repository / "m/config.pbtxt").read_bytes()
    (repository / "m/config.pbtxt").write_bytes(b"\xff")
    with pytest.raises(ModelFailure) as caught:
        fetch(str(repository), model, folder, wanted=lambda: True)
    assert caught.value.reason is Reason.HASH_MISMATCH
    assert list(folder.staged_path("x").parent.iterdir()) == []
    (repository / "m/config.pbtxt").write_bytes(text)
    shutil.copytree(
        repository / "m/2", folder.staged_path(identity(model))
    )  # as an agent killed at this point leaves it
    fetch(str(repository), model, folder, wanted=lambda: True)
    assert published_config(folder.place(model), "m").platform == "onnxruntime_onnx"


@pytest.mark.parametrize("name", ["model.onnx", ".config.pbtxt", ".golden.npz", MANIFEST])
def test_a_damaged_copy_is_seen(folder: ModelFolder, repository: Path, name: str):
    model = DesiredModel(name="m", version=1, digest=publish(repository, "m", 1, 1.0))
    fetch(str(repository), model, folder, wanted=lambda: True)
    placed = folder.place(model)
    assert not is_damaged(str(repository), model, placed)
    flip_a_bit(placed / name)
    assert is_damaged(str(repository), model, placed)
    (placed / name).unlink()
    assert is_damaged(str(repository), model, placed)


def test_a_copy_of_others_is_outdated_when_its_source_was_written_again(folder: ModelFolder, repository: Path):
    model = of_others(repository)
    fetch(str(repository), model, folder, wanted=lambda: True)
    placed = folder.place(model)
    assert not is_damaged(str(repository), model, placed)
    assert not is_damaged(str(repository / "away"), model, placed), "nobody knows"
    source = repository / "m/2/model.onnx"
    os.utime(source, (0, 0))
    assert is_damaged(str(repository), model, placed)
    folder.distrust(model)
    fetch(str(repository), model, folder, wanted=lambda: True)
    assert not is_damaged(str(repository), model, folder.staged_path(identity(model)))


def test_what_appears_is_on_the_disk(folder: ModelFolder, repository: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    )
    model = DesiredModel(name="m", version=1, digest=publish(repository, "m", 1, 1.0))
    fetch(str(repository), model, folder, wanted=lambda: True)
    names = [Path(path).name for path in synced]
    assert {"model.onnx", ".config.pbtxt", ".golden.npz", MANIFEST} < set(names)
    assert synced[-2].startswith(str(folder.incoming)), "the folder itself, before the rename"
    assert synced[-1] == str(folder.staged_path("x").parent), "and what holds it, after"


def test_a_version_larger_than_the_memory_is_not_fetched(
    folder: ModelFolder, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = DesiredModel(name="m", version=1, digest=publish(repository, "m", 1, 1.0))
    with pytest.raises(ModelFailure, match="Triton can get 0 MB of memory") as caught:
        fetch(str(repository), model, folder, wanted=lambda: True, memory_limit=100)
    assert caught.value.reason is Reason.NO_MEMORY
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:       0 kB\n")
    with pytest.raises(ModelFailure) as caught:
        fetch(str(repository), model, folder, wanted=lambda: True)
    assert caught.value.reason is Reason.NO_MEMORY
    assert folder.staged == set()
    (tmp_path / "meminfo").write_text("MemAvailable:    4096 kB\n")
    assert (memory.room(), memory.room(100)) == (4 << 20, 100)
    (tmp_path / "meminfo").unlink()
    assert (memory.room(), memory.room(100)) == (None, 100)


def test_what_a_config_says_is_not_lost_on_its_way(folder: ModelFolder, repository: Path):
    model = of_others(repository)
    with (repository / "m/config.pbtxt").open("a") as config:
        config.write("future_limit { rows: 5 }\n")
    fetch(str(repository), model, folder, wanted=lambda: True)
    placed = folder.place(model)
    assert published_config(placed, "m").name == "m", "what is loaded already can be asked all the same"
    with pytest.raises(ModelFailure, match="future_limit") as caught:
        servable_config(placed, "m")
    assert caught.value.reason is Reason.LOAD_FAILED
    (placed / ".config.pbtxt").write_bytes(b"\xff")
    with pytest.raises(ModelFailure, match="utf-8"):
        servable_config(placed, "m")


@pytest.mark.parametrize("name", ["..", ".gravswell", "a/b", "", "gravswell-proof-x"])
def test_names_that_leave_the_folder_are_no_entries(folder: ModelFolder, repository: Path, name: str):
    model = DesiredModel.model_construct(name=name, version=1, digest="0" * 64)
    with pytest.raises(ModelFailure, match="cannot be the name"):
        fetch(str(repository), model, folder, wanted=lambda: True)


@pytest.mark.parametrize("name", ["my model", "größe", "a;b"])
def test_names_that_triton_does_not_serve_are_told_before_a_download(folder: ModelFolder, repository: Path, name: str):
    model = DesiredModel(name=name, version=1, digest=publish(repository, name, 1, 1.0))
    with pytest.raises(ModelFailure, match=r"cannot be served: Triton serves names of .*; rename") as caught:
        fetch(str(repository), model, folder, wanted=lambda: True)
    assert caught.value.reason is Reason.LOAD_FAILED


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "call", [(os, "fsync"), (os, "mkdir"), (Path, "write_text")], ids=["copy", "stage", "complete"]
)
def test_a_disk_that_gets_full_is_no_fault_of_the_repository(
    folder: ModelFolder, repository: Path, monkeypatch: pytest.MonkeyPatch, call: tuple[object, str]
):
    model = of_others(repository)
    with monkeypatch.context() as patch:
        patch.setattr(*call, full)
        with pytest.raises(ModelFailure, match="give the server more model storage") as caught:
            fetch(str(repository), model, folder, wanted=lambda: True)
    assert caught.value.reason is Reason.NO_SPACE
    assert folder.staged == set()
    fetch(str(repository), model, folder, wanted=lambda: True)


def test_the_volume_s_limit_counts_what_is_there_once(models: Path, repository: Path):
    digests = {number: publish(repository, "m", number, 1.0) for number in (1, 2)}
    first, second = (DesiredModel(name="m", version=n, digest=digest) for n, digest in digests.items())
    room = sum(path.stat().st_size for path in (repository / "m/1").iterdir()) + SPARE_BYTES
    folder = ModelFolder(models, limit=room)
    folder.prepare()
    fetch(str(repository), first, folder, wanted=lambda: True)
    folder.expose(folder.find(first), "gravswell-proof-x", 1)
    assert 0 <= folder.free_bytes() <= SPARE_BYTES
    with pytest.raises(ModelFailure, match="give the server more model storage") as caught:
        fetch(str(repository), second, folder, wanted=lambda: True)
    assert caught.value.reason is Reason.NO_SPACE


def test_a_pipeline_of_what_cannot_be_served_says_so(repository: Path, folder: ModelFolder):
    member = publish_member(repository, "m", 1, 2.0).model_copy(update={"model": "gravswell-proof-m"})
    digest = publish_pipeline(repository, "chain", 1, 4.0, member, member)
    with pytest.raises(ModelFailure, match=r"'chain' is made of .*gravswell-proof-m.*publish it again") as caught:
        fetch(str(repository), DesiredModel(name="chain", version=1, digest=digest), folder, wanted=lambda: True)
    assert caught.value.reason is Reason.MANIFEST_INVALID
