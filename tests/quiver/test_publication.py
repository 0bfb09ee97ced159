"""What makes a version exist, when, and under which number; and that nothing else is ever seen."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from gravswell.quiver import publication
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import LocalStore

Affine = Callable[..., Any]


def test_what_a_version_holds(root: Path, entry: qv.Entry, affine: Affine) -> None:
    path = Path(entry.export_version(affine()))
    assert path == root / "my-model/1/model.onnx"
    names = sorted(p.name for p in path.parent.iterdir())
    assert names == [".config.pbtxt", ".golden.npz", ".manifest.json", "model.onnx"]
    raw = (path.parent / ".manifest.json").read_bytes()
    manifest = json.loads(raw)
    assert set(manifest["files"]) == set(names) - {".manifest.json"}
    for name, record in manifest["files"].items():
        data = (path.parent / name).read_bytes()
        assert record == {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    assert manifest["model"] == "my-model"
    assert manifest["version"] == 1
    assert manifest["parent"] is None
    assert manifest["signature"]["inputs"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 4]}]
    assert manifest["verification"]["batch_sizes"] == [1, 2, 5]
    (version,) = entry.versions
    assert version == 1
    assert version.digest == hashlib.sha256(raw).hexdigest()
    assert version.size == sum(p.stat().st_size for p in path.parent.iterdir())
    assert version.manifest.created == version.created
    assert (path.parent / ".config.pbtxt").read_text() == (root / "my-model/config.pbtxt").read_text()


def test_a_version_s_config_is_that_of_its_time(root: Path, entry: qv.Entry, affine: Affine) -> None:
    entry.export_version(affine())
    entry.config.add_instance_group(count=4)
    entry.export_version(affine())
    assert "count: 4" not in (root / "my-model/1/.config.pbtxt").read_text()
    assert "count: 4" in (root / "my-model/2/.config.pbtxt").read_text()
    assert entry.version(2).manifest.parent == 1


def test_a_later_export_does_not_touch_the_config_file(root: Path, entry: qv.Entry, affine: Affine) -> None:
    """Triton reloads every version when a file in the model's folder is newer."""
    entry.export_version(affine())
    before = (root / "my-model/config.pbtxt").stat()
    entry.export_version(affine())
    after = (root / "my-model/config.pbtxt").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_numbers_are_never_used_again(root: Path, repo: qv.ModelRepository, entry: qv.Entry, affine: Affine) -> None:
    for _ in range(3):
        entry.export_version(affine())
    assert not (root / ".my-model.gravswell.json").exists(), "absent until first needed"
    entry.remove_version(2)
    entry.remove_version(3)
    assert json.loads((root / ".my-model.gravswell.json").read_text())["nextVersion"] == 4
    entry.export_version(affine())
    assert entry.versions == [1, 4]
    repo.remove("my-model")
    again = repo.add("my-model")
    again.export_version(affine())
    assert again.versions == [5]


def test_a_number_of_one_s_own(entry: qv.Entry, affine: Affine) -> None:
    entry.export_version(affine(), version=7)
    for number in (7, 3):
        with pytest.raises(ConflictError, match="8 or more"):
            entry.export_version(affine(), version=number)
    for number in (0, -3, "abc", 1.5):
        with pytest.raises(InvalidInputError, match="from 1 on"):
            entry.export_version(affine(), version=number)  # type: ignore[arg-type]
    entry.export_version(affine())
    assert entry.versions == [7, 8]


def test_removing_what_is_not_there(entry: qv.Entry, affine: Affine) -> None:
    entry.export_version(affine())
    with pytest.raises(NotFoundError, match="its versions: 1"):
        entry.remove_version(2)


def test_an_alias_keeps_its_version(root: Path, entry: qv.Entry, affine: Affine) -> None:
    entry.export_version(affine())
    (root / ".my-model.gravswell.json").write_text('{"aliases": {"champion": 1}, "fromTheFuture": {"kept": true}}')
    with pytest.raises(ConflictError, match="champion"):
        entry.remove_version(1)
    entry.export_version(affine())
    entry.remove_version(2)
    state = json.loads((root / ".my-model.gravswell.json").read_text())
    assert state["nextVersion"] == 3
    assert state["fromTheFuture"] == {"kept": True}
    assert RepositoryReader(root).aliases("my-model") == {"champion": 1}


def test_foreign_folders_are_no_numbers_of_ours(root: Path, entry: qv.Entry, affine: Affine) -> None:
    for name in ("9.tmp", "-1", "007", "abc"):
        (root / "my-model" / name).mkdir()
    (root / "my-model/4").mkdir()
    (root / "my-model/4/model.onnx").write_bytes(b"theirs")
    (root / "my-model/5").mkdir()
    assert [(v, v.digest) for v in entry.versions] == [(4, None)]
    entry.export_version(affine())
    assert entry.versions == [4, 6]
    assert (root / "my-model/4/model.onnx").read_bytes() == b"theirs"
    assert entry.version(6).manifest.parent is None


def test_a_dead_first_export_is_healed_by_readers_and_by_the_next(root: Path, entry: qv.Entry, affine: Affine) -> None:
    """The version is there, and the entry's config is still that of before, or missing altogether."""
    before = str(entry.config)
    entry.export_version(affine())
    described = str(entry.config)
    config = root / "my-model/config.pbtxt"
    config.write_text(before)
    assert str(qv.ModelRepository.open(root).models["my-model"].config) == described
    config.unlink()
    assert str(qv.ModelRepository.open(root).models["my-model"].config) == described
    with pytest.raises(InvalidInputError, match="signature"):
        entry.export_version(affine(3))
    entry.export_version(affine())
    assert config.read_text() == described


def test_a_changed_signature_leaves_no_version(root: Path, entry: qv.Entry, affine: Affine) -> None:
    entry.export_version(affine())
    before = (root / "my-model/config.pbtxt").read_text()
    with pytest.raises(ValueError, match=r"input 'x' is TYPE_FP32 \[-1, 3\], and was TYPE_FP32 \[-1, 4\]"):
        entry.export_version(affine(3))
    assert entry.versions == [1]
    assert (root / "my-model/config.pbtxt").read_text() == before
    assert list(root.parent.iterdir()) == [root]


def test_an_unreadable_config_stops_the_export(root: Path, entry: qv.Entry, affine: Affine) -> None:
    (root / "my-model/config.pbtxt").write_text("input {")
    with pytest.raises(InvalidInputError, match=r"config\.pbtxt"):
        entry.export_version(affine())
    assert entry.versions == []


def test_max_batch_size(root: Path, repo: qv.ModelRepository, entry: qv.Entry, affine: Affine) -> None:
    entry.export_version(affine(), max_batch_size=16)
    assert entry.config.max_batch_size == 16
    assert list(entry.config.input[0].dims) == [4]
    assert entry.inputs["x"].dims == (-1, 4)
    entry.export_version(affine())
    assert entry.versions == [1, 2]
    with pytest.raises(InvalidInputError, match="max_batch_size=16"):
        entry.export_version(affine(), max_batch_size=8)
    with pytest.raises(InvalidInputError, match="max_batch_size"):
        repo.add("other").export_version(affine(), max_batch_size=-1)


_EDIT_MANY = """
import sys
from gravswell import quiver as qv
config = qv.ModelRepository.open(sys.argv[1]).models["my-model"].config
for k in range(300):
    config.max_batch_size = k % 2 + 1
"""


def test_a_reader_beside_a_writer_never_sees_half_a_config(root: Path, entry: qv.Entry) -> None:
    reader = RepositoryReader(root)
    process = subprocess.Popen([sys.executable, "-c", _EDIT_MANY, str(root)])
    seen = set()
    while process.poll() is None:
        text = reader.config("my-model")
        assert text
        assert text.startswith('name: "my-model"\nplatform: "onnxruntime_onnx"\n')
        seen.add(text)
    assert process.returncode == 0
    assert len(seen) > 1


_EXPORT_WITHIN_LIMITS = """
import resource, signal, sys
from gravswell import quiver as qv
from gravswell.errors import UnavailableError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write beyond the limit fails, as on a full disk
repo = qv.ModelRepository.open(sys.argv[1])

def told(write, *arguments):
    try:
        print(write(*arguments))
    except UnavailableError as error:
        print(type(error.__cause__).__name__, error)

for limit in map(int, sys.argv[3:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
    told(repo.models["my-model"].export_version, sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (10, -1))
told(repo.add, "another")
"""


def test_a_disk_that_takes_no_more_is_one_message(
    root: Path, repo: qv.ModelRepository, entry: qv.Entry, affine: Affine, tmp_path: Path
) -> None:
    """Whichever of a version's files is the one too many, really written under the system's limit of a file's size."""
    model = tmp_path / "given.onnx"
    model.write_bytes(affine().SerializeToString())
    repo.add("measured").export_version(model)
    sizes = {path.name: path.stat().st_size for path in root.glob("measured/1/*")}
    repo.remove("measured")
    limits = sorted(size - 1 for size in sizes.values())
    command = [sys.executable, "-c", _EXPORT_WITHIN_LIMITS, str(root), str(model), *map(str, limits)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == len(sizes) + 1
    for line in lines:
        assert re.fullmatch(rf"OSError {root.parent}/\S+: File too large; raise .*`ulimit -f`.*", line)
    assert entry.versions == []
    assert not list(root.parent.glob(".*staging"))


@pytest.mark.parametrize("version", [None, 1])
@pytest.mark.parametrize("obstacle", ["file", "link", "folder"])
@pytest.mark.timeout(60)
def test_what_is_in_the_way_of_a_number(
    root: Path, entry: qv.Entry, affine: Affine, obstacle: str, version: int | None
) -> None:
    way = root / "my-model/1"
    {
        "file": lambda: way.write_text("mine"),
        "link": lambda: way.symlink_to("nothing"),
        "folder": way.mkdir,
    }[obstacle]()
    if version is None:
        assert entry.export_version(affine()).endswith("my-model/2/model.onnx")
    else:
        with pytest.raises(ConflictError, match="2 or more"):
            entry.export_version(affine(), version=version)
    assert os.path.lexists(way)


@pytest.mark.timeout(60)
def test_what_no_listing_shows_ends_the_search_for_a_number(
    entry: qv.Entry, affine: Affine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: LocalStore, __: Path, folder: str, **___: object) -> None:
        raise ConflictError(f"{folder} exists already")

    monkeypatch.setattr(LocalStore, "publish", refuse)
    with pytest.raises(ConflictError, match="my-model/1 exists already"):
        entry.export_version(affine())


def test_once_the_version_is_there_nothing_fails(
    root: Path, entry: qv.Entry, affine: Affine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise UnavailableError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "write", full)
        assert entry.export_version(affine()).endswith("my-model/1/model.onnx")
    assert "no space left" in caplog.text
    assert "input" not in (root / "my-model/config.pbtxt").read_text()
    assert list(entry.inputs) == ["x"], "readers heal it"
    entry.export_version(affine())
    assert "input" in (root / "my-model/config.pbtxt").read_text()


def test_what_a_first_version_took_stays_known_when_it_goes(
    root: Path, entry: qv.Entry, affine: Affine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its writer died before the entry's file said so: what clients send is the entry's, not a version's."""
    with monkeypatch.context() as patch:
        patch.setattr(publication.Publication, "_write_config", lambda *_: None)
        entry.export_version(affine())
    assert "input" not in (root / "my-model/config.pbtxt").read_text()
    entry.remove_version(1)
    assert entry.inputs["x"].dims == (-1, 4)
    with pytest.raises(InvalidInputError, match="signature"):
        entry.export_version(affine(3))


def test_a_config_that_does_not_parse_keeps_no_version(root: Path, entry: qv.Entry, affine: Affine) -> None:
    entry.export_version(affine())
    (root / "my-model/config.pbtxt").write_text("name: {")
    entry.remove_version(1)
    assert [path.name for path in (root / "my-model").iterdir()] == ["config.pbtxt"]


def test_a_config_under_another_name_is_not_published(root: Path, entry: qv.Entry, affine: Affine) -> None:
    path = root / "my-model/config.pbtxt"
    path.write_text(path.read_text().replace("my-model", "other"))
    with pytest.raises(InvalidInputError, match="is named 'other'"):
        entry.export_version(affine())
    assert entry.versions == []


def test_the_config_s_own_tensors_stand_for_its_batching(entry: qv.Entry, affine: Affine) -> None:
    entry.config.add_output("y", (None, 4))
    with pytest.raises(InvalidInputError, match=r"stated for max_batch_size=0: leave --max-batch-size 4 .*--force"):
        entry.export_version(affine(), max_batch_size=4)


def test_a_root_that_goes_during_an_export_hides_no_error(root: Path, entry: qv.Entry, affine: Affine) -> None:
    def fail(stage: str) -> None:
        shutil.rmtree(root)
        raise ValueError("the user's own")

    with pytest.raises(ValueError, match="the user's own"):
        entry.export_version(affine(), on_stage=fail)
    assert list(root.parent.iterdir()) == [], "the stage and its lock are gone too"


@pytest.mark.parametrize("again", [True, False])
def test_an_entry_that_goes_during_an_export(
    root: Path, repo: qv.ModelRepository, entry: qv.Entry, affine: Affine, again: bool
) -> None:
    """The export took its signature from the entry that was; what has taken its place may have another."""
    entry.export_version(affine())

    def act(stage: str) -> None:
        if stage == "publishing":
            repo.remove("my-model")
            if again:
                repo.add("my-model")

    error, words = (ConflictError, "was replaced while") if again else (NotFoundError, "there is no entry 'my-model'")
    with pytest.raises(error, match=words):
        entry.export_version(affine(), on_stage=act)
    assert [p.name for p in root.glob("my-model/*")] == ["config.pbtxt"] * again
    assert list(root.parent.iterdir()) == [root]
