import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError, InvalidInputError, NotFoundError, VerificationError
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.verification import verify_version

from .versions import put_versions

Affine = Callable[..., Any]


@pytest.fixture
def reader(root: Path, entry: qv.Entry, affine: Affine) -> RepositoryReader:
    """A repository with one entry and one version."""
    entry.export_version(affine())
    return RepositoryReader(root.as_uri())


def test_imports_nothing_heavy() -> None:
    """An agent reads repositories without ONNX and without any framework."""
    code = (
        "import sys, gravswell.quiver.reader, gravswell.quiver.config, gravswell.quiver.golden, gravswell.quiver\n"
        "heavy = {'onnx', 'onnxruntime', 'torch', 'sklearn', 'skl2onnx', 'onnxscript', 'kopf', 'gravswell_operator'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_lists(reader: RepositoryReader, root: Path) -> None:
    assert reader.entries() == ["my-model"]
    (info,) = reader.versions("my-model")
    manifest, raw = reader.manifest("my-model", 1)
    assert (info.number, info.created) == (1, manifest.created)
    assert raw == (root / "my-model/1/.manifest.json").read_bytes()
    assert reader.aliases("my-model") == {}
    assert reader.config("my-model") == reader.version_config("my-model", 1)
    with pytest.raises(NotFoundError, match="entries: my-model"):
        reader.versions("other")
    for name in ("", "..", "a/b"):
        with pytest.raises(NotFoundError):
            reader.versions(name)


def test_newest_first_and_claims_hidden(reader: RepositoryReader, root: Path) -> None:
    for number in (2, 10):
        (root / f"my-model/{number}").mkdir()
        (root / f"my-model/{number}/model.onnx").write_bytes(b"12345")
    (root / "my-model/11").mkdir()
    (root / "my-model/11/.claim.json").write_text("{}")
    (root / "my-model/11/model.onnx").write_bytes(b"half")
    (root / "my-model/12").mkdir()
    found = reader.versions("my-model")
    assert [(v.number, v.digest is None) for v in found] == [(10, True), (2, True), (1, False)]
    assert found[0].size == 5
    assert found[0].created is not None


def test_fetches_all_of_it_at_once(reader: RepositoryReader, root: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    manifest = reader.fetch("my-model", 1, tmp_path / "a/b/1", progress=lambda *p: seen.append(p))
    assert manifest is not None
    assert manifest == reader.manifest("my-model", 1)[0]
    for path in (root / "my-model/1").iterdir():
        assert (tmp_path / "a/b/1" / path.name).read_bytes() == path.read_bytes()
    assert [p.name for p in (tmp_path / "a/b").iterdir()] == ["1"]
    done, total = seen[-1]
    assert done == total == reader.versions("my-model")[0].size


def test_fetches_an_unverified_version(reader: RepositoryReader, root: Path, tmp_path: Path) -> None:
    (root / "my-model/2/sub").mkdir(parents=True)
    (root / "my-model/2/model.onnx").write_bytes(b"theirs")
    (root / "my-model/2/sub/more").write_bytes(b"x")
    assert reader.fetch("my-model", 2, tmp_path / "2") is None
    assert (tmp_path / "2/sub/more").read_bytes() == b"x"
    assert reader.version_config("my-model", 2) == reader.config("my-model")
    assert verify_version(reader, "my-model", 2).files == 0


def test_fetch_never_overwrites(reader: RepositoryReader, tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="exists already"):
        reader.fetch("my-model", 1, tmp_path)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["model.onnx", ".config.pbtxt", ".golden.npz"])
@pytest.mark.parametrize(
    ("damage", "fact"),
    [
        (_flip, "was changed after publication"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), "bytes in the manifest"),
        (lambda p: p.write_bytes(p.read_bytes() + b"x"), "more than"),
        (lambda p: p.unlink(), "is missing"),
    ],
)
def test_damage_is_found_and_named(
    reader: RepositoryReader, root: Path, tmp_path: Path, name: str, damage: Callable[[Path], None], fact: str
) -> None:
    damage(root / "my-model/1" / name)
    with pytest.raises(VerificationError, match=f"{name}.*{fact}"):
        reader.fetch("my-model", 1, tmp_path / "there")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my-repo"], "nothing half-made"


def test_a_damaged_manifest_is_listed_and_not_fetched(reader: RepositoryReader, root: Path, tmp_path: Path) -> None:
    (root / "my-model/1/.manifest.json").write_text("{")
    assert [v.number for v in reader.versions("my-model")] == [1]
    with pytest.raises(VerificationError, match=r"is no manifest \(Invalid JSON"):
        reader.fetch("my-model", 1, tmp_path / "1")


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd", "a/../../b", "", "a\\b", ".", "a//b"])
def test_a_manifest_cannot_lead_out(reader: RepositoryReader, root: Path, tmp_path: Path, path: str) -> None:
    file = root / "my-model/1/.manifest.json"
    manifest = json.loads(file.read_text())
    manifest["files"][path] = manifest["files"]["model.onnx"]
    file.write_text(json.dumps(manifest))
    with pytest.raises(VerificationError, match="outside"):
        reader.fetch("my-model", 1, tmp_path / "1")


def test_a_version_copied_by_hand_is_refused(reader: RepositoryReader, root: Path, tmp_path: Path) -> None:
    (root / "my-model/1").rename(root / "my-model/2")
    with pytest.raises(VerificationError, match="version 1 of my-model"):
        reader.fetch("my-model", 2, tmp_path / "2")


def test_versions_that_are_none(reader: RepositoryReader, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="its versions: 1"):
        reader.fetch("my-model", 2, tmp_path / "2")
    with pytest.raises(InvalidInputError):
        reader.fetch("my-model", 0, tmp_path / "0")


def test_a_damaged_state_is_named(reader: RepositoryReader, root: Path) -> None:
    (root / ".my-model.gravswell.json").write_text('{"nextVersion": "many"}')
    with pytest.raises(VerificationError, match=r"\.my-model\.gravswell\.json is damaged"):
        reader.aliases("my-model")


def test_verification_runs_the_model(reader: RepositoryReader, root: Path, affine: Affine) -> None:
    """A model and a manifest that agree with each other and not with the golden tensors."""
    assert verify_version(reader, "my-model", 1).samples == 3
    other = affine(scale=3.0).SerializeToString()
    (root / "my-model/1/model.onnx").write_bytes(other)
    file = root / "my-model/1/.manifest.json"
    manifest = json.loads(file.read_text())
    manifest["files"]["model.onnx"] = {"sha256": hashlib.sha256(other).hexdigest(), "size": len(other)}
    file.write_text(json.dumps(manifest))
    with pytest.raises(VerificationError, match=r"my-model/1: output y: .* values differ"):
        verify_version(reader, "my-model", 1)


def test_verification_finds_what_was_put_in_later(reader: RepositoryReader, root: Path) -> None:
    (root / "my-model/1/model.plan").write_bytes(b"")
    with pytest.raises(VerificationError, match=r"model\.plan, which was not published"):
        verify_version(reader, "my-model", 1)


def test_the_claim_of_a_writer_who_died_after_publishing_is_no_damage(reader: RepositoryReader, root: Path) -> None:
    (root / "my-model/1/.claim.json").write_text("{}")
    assert verify_version(reader, "my-model", 1).samples == 3


@pytest.mark.parametrize("path", ["model.onnx/x", ".manifest.json/x"])
def test_a_manifest_cannot_name_a_file_as_a_folder(
    reader: RepositoryReader, root: Path, tmp_path: Path, path: str
) -> None:
    file = root / "my-model/1/.manifest.json"
    manifest = json.loads(file.read_text())
    manifest["files"][path] = manifest["files"]["model.onnx"]
    file.write_text(json.dumps(manifest))
    with pytest.raises(VerificationError, match="cannot both be files"):
        reader.fetch("my-model", 1, tmp_path / "1")


def test_what_a_newer_release_wrote_is_not_told_as_damage(reader: RepositoryReader, root: Path) -> None:
    manifest = root / "my-model/1/.manifest.json"
    manifest.write_text(manifest.read_text().replace("gravswell.dev/manifest/v1", "gravswell.dev/manifest/v2"))
    assert [v.number for v in reader.versions("my-model")] == [1]
    with pytest.raises(VerificationError, match=r"manifest/v2, made by a newer gravswell.*upgrade"):
        reader.manifest("my-model", 1)
    (root / ".my-model.gravswell.json").write_text('{"schema": "gravswell.dev/entry/v7"}')
    with pytest.raises(VerificationError, match=r"entry/v7, made by a newer gravswell.*upgrade"):
        reader.aliases("my-model")


def test_a_manifest_of_an_earlier_release_states_its_tolerance(reader: RepositoryReader, root: Path) -> None:
    file = root / "my-model/1/.manifest.json"
    manifest = json.loads(file.read_text())
    manifest["verification"] |= {"rtol": 0.01, "atol": 0.001}
    file.write_text(json.dumps(manifest))
    assert reader.manifest("my-model", 1)[0].verification.rtol == 0.01
    assert verify_version(reader, "my-model", 1).samples == 3


def test_a_removal_during_a_copy_is_no_damage(reader: RepositoryReader, entry: qv.Entry, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="my-model/1 was removed while it was read"):
        reader.fetch("my-model", 1, tmp_path / "1", progress=lambda *_: entry.remove_version(1))
    assert not (tmp_path / "1").exists()


def test_a_version_that_appears_while_it_is_looked_for(
    reader: RepositoryReader, entry: qv.Entry, affine: Affine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not there when its manifest was read, and is when its folder is walked: not somebody else's for that."""
    walk = reader.store.walk

    def published_before(folder: str) -> Any:
        if folder == "my-model/2":
            entry.export_version(affine())
        return walk(folder)

    monkeypatch.setattr(reader.store, "walk", published_before)
    assert reader.version("my-model", 2).digest is not None


def test_a_look_names_no_version_that_it_does_not_have(
    reader: RepositoryReader, entry: qv.Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is published and promoted as soon as the versions were listed."""
    versions = RepositoryReader.versions

    def outrun(self: RepositoryReader, name: str) -> object:
        found = versions(self, name)
        put_versions(self.store, name, [2])
        entry.promote(2, "champion", verify=False)
        return found

    monkeypatch.setattr(RepositoryReader, "versions", outrun)
    seen = reader.look("my-model")
    assert ([info.number for info in seen.versions], seen.aliases) == ([1], {})


def test_what_cannot_be_followed_hides_no_entry(reader: RepositoryReader, root: Path) -> None:
    (root / "loop").symlink_to(root / "loop")
    (root / "my-model/2").symlink_to(root / "my-model/2")
    assert reader.entries() == ["my-model"]
    assert [info.number for info in reader.survey()["my-model"].versions] == [1]
    assert not reader.has("x" * 300)
    with pytest.raises(NotFoundError, match="entries: my-model"):
        reader.versions("x" * 300)
