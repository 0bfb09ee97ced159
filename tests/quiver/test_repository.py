import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError, VerificationError

Affine = Callable[..., Any]


def test_it_is_made_or_opened(root: Path) -> None:
    with pytest.raises(NotFoundError, match="gravswell init"):
        qv.ModelRepository.open(root)
    repo = qv.ModelRepository(root)
    assert dict(repo.models) == {}
    assert repo.url == root.as_uri()
    repo.add("m")
    assert list(qv.ModelRepository(root).models) == list(qv.ModelRepository.open(repo.url).models) == ["m"]


@pytest.mark.parametrize("kind", [str, Path])
def test_a_home_is_the_one_that_a_shell_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[[str], str | Path]
) -> None:
    """A folder that is called ``~`` would be removed with a home by whoever types its name."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    repo = qv.ModelRepository(kind("~/models"))
    assert repo.url == (tmp_path / "home/models").as_uri()
    assert not Path("~").exists()
    with pytest.raises(InvalidInputError, match="give the whole path"):
        qv.ModelRepository(kind("~nobody-of-that-name/models"))
    if kind is str:
        assert qv.ModelRepository("./~").url == (tmp_path / "~").as_uri()


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "src/3").mkdir(parents=True)
    (tmp_path / "src/3/notes.txt").write_text("")
    for use in (qv.ModelRepository, qv.ModelRepository.open):
        with pytest.raises(InvalidInputError, match="no model repository: it holds src"):
            use(tmp_path)


def test_a_folder_with_nothing_but_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    for use in (qv.ModelRepository, qv.ModelRepository.open):
        with pytest.raises(InvalidInputError, match=r"no model repository: it holds thesis.tex"):
            use(tmp_path)


def test_what_is_left_of_entries_and_hidden_things_are_no_strangers(root: Path, repo: qv.ModelRepository) -> None:
    (root / ".my-model.gravswell.json").write_text("{}")
    (root / ".git").mkdir()
    assert dict(qv.ModelRepository.open(root).models) == {}


def test_other_things_beside_entries_are_neither_listed_nor_deleted(root: Path, repo: qv.ModelRepository) -> None:
    repo.add("m")
    (root / "README.md").write_text("")
    (root / ".git").mkdir()
    (root / "docs").mkdir()
    (root / "docs/x").write_text("")
    repo.refresh()
    assert list(repo.models) == ["m"]
    repo.delete()
    assert sorted(p.name for p in root.iterdir()) == [".git", "README.md", "docs"]
    assert dict(repo.models) == {}


def test_an_entry_that_exists(repo: qv.ModelRepository, entry: qv.Entry, affine: Affine) -> None:
    entry.export_version(affine())
    with pytest.raises(ConflictError, match=r"exists already.*force"):
        repo.add("my-model")
    assert entry.versions == [1]
    fresh = repo.add("my-model", force=True)
    assert fresh.versions == []
    assert fresh.inputs == {}
    assert fresh.export_version(affine(3)).endswith("my-model/2/model.onnx"), "numbers are never used again"


def test_a_folder_in_the_way(root: Path, repo: qv.ModelRepository) -> None:
    (root / "m").mkdir()
    with pytest.raises(ConflictError, match="exists already"):
        repo.add("m")


@pytest.mark.parametrize("name", ["../evil", "", "a/b", ".m", "/etc/x"])
def test_names_with_a_path(root: Path, repo: qv.ModelRepository, name: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot name an entry"):
        repo.add(name)
    assert list(root.parent.rglob("*")) == [root]


def test_platforms(repo: qv.ModelRepository) -> None:
    assert qv.Platform.ONNX == "onnxruntime_onnx"
    for k, platform in enumerate((qv.Platform.ONNX, "onnx", "ONNX", "onnxruntime_onnx")):
        assert repo.add(f"m{k}", platform).platform is qv.Platform.ONNX
    with pytest.raises(InvalidInputError, match="onnxruntime_onnx"):
        repo.add("m", "tensorrt_plan")


def test_removal_spares_the_neighbour_with_the_same_prefix(repo: qv.ModelRepository, affine: Affine) -> None:
    for name in ("det", "detector"):
        repo.add(name).export_version(affine())
    repo.remove("det")
    assert list(repo.models) == ["detector"]
    assert repo.models["detector"].versions == [1]
    with pytest.raises(NotFoundError, match="entries: detector"):
        repo.remove("det")


def test_refresh_takes_up_what_others_did(root: Path, repo: qv.ModelRepository) -> None:
    assert list(repo.models) == []
    other = qv.ModelRepository.open(root)
    other.add("m")
    assert "m" not in repo.models
    repo.refresh()
    assert list(repo.models) == ["m"]
    other.add("n")
    assert list(repo.models) == ["m"], "as they were when they were listed"
    repo.refresh()
    assert repo.models["n"] is repo.models["n"], "an entry is looked for alone, and made once"
    assert "o" not in repo.models
    with pytest.raises(KeyError):
        repo.models["o"]
    assert repo.models.get("../n") is None
    assert "m" in repr(repo.models)
    assert str(root) in repr(repo)


def test_delete_leaves_nothing(root: Path, repo: qv.ModelRepository, entry: qv.Entry, affine: Affine) -> None:
    entry.export_version(affine())
    entry.remove_version(1)
    assert (root / ".my-model.gravswell.json").exists()
    repo.delete()
    assert list(root.parent.iterdir()) == []


def test_a_thousand_entries(root: Path) -> None:
    for k in range(1000):
        folder = root / f"m{k:04}"
        folder.mkdir(parents=True)
        (folder / "config.pbtxt").write_text(f'name: "m{k:04}" platform: "onnxruntime_onnx"')
    repo = qv.ModelRepository.open(root)
    assert len(repo.models) == 1000
    assert repo.models["m0999"].platform is qv.Platform.ONNX
    repo.delete()
    assert not root.exists()


@pytest.mark.parametrize("fails", ["write_text", "fsync", "rename"])
def test_a_replacement_that_fails_loses_nothing(
    root: Path, repo: qv.ModelRepository, entry: qv.Entry, affine: Affine, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    entry.export_version(affine())
    rename = Path.rename

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def refuse_the_new(self: Path, target: Path) -> Path:
        return full() if (self / "1").exists() is False and target == root / "my-model" else rename(self, target)  # type: ignore[func-returns-value]

    with monkeypatch.context() as patch:
        if fails == "rename":
            patch.setattr(Path, "rename", refuse_the_new)
        else:
            patch.setattr(os if fails == "fsync" else Path, fails, full)
        with pytest.raises(UnavailableError, match="No space left"):
            repo.add("my-model", force=True)
    assert entry.versions == [1]
    assert list(root.parent.iterdir()) == [root]
    repo.add("my-model", force=True)
    assert entry.versions == []


def test_a_removed_entry_leaves_its_numbers_and_takes_its_aliases(
    root: Path, repo: qv.ModelRepository, entry: qv.Entry, affine: Affine
) -> None:
    state = root / ".my-model.gravswell.json"
    for make_anew in (
        lambda: repo.add("my-model", force=True),
        lambda: (repo.remove("my-model"), repo.add("my-model")),
    ):
        number = int(Path(entry.export_version(affine())).parent.name)
        state.write_text(json.dumps({"aliases": {"champion": number}, "nextVersion": number}))
        make_anew()
        left = json.loads(state.read_text())
        assert (left["schema"], left["nextVersion"], left["aliases"]) == ("gravswell.dev/entry/v1", number + 1, {})
        assert [(m["action"], m["previous"]) for m in left["history"]] == [("remove", number)]


def test_damaged_memory_is_told_before_anything_is_changed(
    root: Path, repo: qv.ModelRepository, entry: qv.Entry, affine: Affine
) -> None:
    entry.export_version(affine())
    (root / ".my-model.gravswell.json").write_text("{")
    for act in (lambda: repo.add("my-model", force=True), lambda: repo.remove("my-model")):
        with pytest.raises(VerificationError, match="is damaged"):
            act()
    assert entry.versions == [1]
    repo.delete()
    assert not root.exists(), "a deletion always ends"


@pytest.mark.parametrize("verb", ["remove", "replace"])
def test_an_entry_that_a_cluster_serves_goes_only_on_purpose(
    root: Path, repo: qv.ModelRepository, entry: qv.Entry, affine: Affine, verb: str
) -> None:
    """An alias alone keeps no entry: who removes it all, on purpose, removes its names with it."""

    def act(**how: bool) -> None:
        if verb == "remove":
            repo.remove("my-model", **how)
        else:
            repo.add("my-model", force=True, **how)

    for _ in range(3):
        entry.export_version(affine())
    entry.promote(2, "champion")
    entry.pin("prod", [1, 3])
    entry.pin("dev", [3])
    entry.remove_version(1, even_served=True)
    before = (root / ".my-model.gravswell.json").read_bytes()
    assert {n: (h.aliases, h.clusters) for n, h in repo.holders("my-model").items()} == {
        2: (("champion",), ()),
        3: ((), ("dev", "prod")),
    }, "nobody needs what is gone"
    with pytest.raises(ConflictError, match=r"^dev, prod serves my-model/3: .*--even-served"):
        act()
    assert entry.versions == [2, 3]
    assert (root / ".my-model.gravswell.json").read_bytes() == before
    act(even_served=True)
    assert list(repo.models) == ([] if verb == "remove" else ["my-model"])
    number = repo.add("my-model", force=True).export_version(affine())
    assert number.endswith("my-model/4/model.onnx")
    repo.models["my-model"].promote(4, "champion")
    act()


def test_only_an_empty_entry(repo: qv.ModelRepository, entry: qv.Entry, affine: Affine) -> None:
    entry.export_version(affine())
    with pytest.raises(ConflictError, match="has versions"):
        repo.remove("my-model", only_empty=True)
    repo.add("other")
    repo.remove("other", only_empty=True)
    assert list(repo.models) == ["my-model"]


def test_an_entry_that_another_removes_at_once(root: Path, repo: qv.ModelRepository) -> None:
    entry = repo.add("m")
    shutil.rmtree(root / "m")
    with pytest.raises(NotFoundError, match="was removed"):
        _ = entry.config
