"""What Tab proposes: names out of the repository that was typed, soon, and never a word about what went wrong."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gravswell import quiver as qv
from gravswell.cli import completion

from .conftest import Run

Complete = Callable[..., list[str]]


@pytest.fixture
def complete(run: Run, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """``complete("show", "r", "")``: what bash is told, where the last word is the one under the cursor."""
    monkeypatch.setattr(completion, "WAIT_SECONDS", 90.0)  # whoever presses Tab has no machine that is so busy

    def proposals(*words: str, at: int | None = None) -> list[str]:
        monkeypatch.setenv("_GRAVSWELL_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(("gravswell", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words) if at is None else at))
        done = run()
        monkeypatch.delenv("_GRAVSWELL_COMPLETE")
        assert done.err == ""
        return done.out.split()

    return proposals


@pytest.fixture
def repo(run: Run, repo: str, model: Path) -> str:
    """``m`` with two versions and an alias, and ``other``."""
    assert run("export", repo, "m", model).code == 0
    assert run("promote", repo, "m", 1, "champion").code == 0
    assert run("add", repo, "other").code == 0
    return repo


def test_names_in_a_repository(complete: Complete, repo: str) -> None:
    assert complete("show", repo, "") == ["m", "other"]
    assert complete("show", repo, "o") == ["other"]
    assert complete("show", repo, "m/") == ["m/latest", "m/champion", "m/2", "m/1"]
    assert complete("verify", repo, "m/c") == ["m/champion"]
    assert complete("copy", repo, "other", "m/l") == ["m/latest"]
    assert complete("promote", repo, "m", "") == ["latest", "champion", "2", "1"]
    assert complete("diff", repo, "m", "1", "l") == ["latest"]
    assert complete("rollback", repo, "m", "") == ["champion"]
    assert complete("history", repo, "m", "ch") == ["champion"]
    assert complete("sync", repo, "t", "--entry", "") == ["m", "other"]
    assert complete("serve", repo, "--entry", "o") == ["other"]
    assert complete("config", "set", repo, "m", "max_b") == ["max_batch_size="]


def test_a_url_that_bash_cut_at_its_colons(complete: Complete, repo: str) -> None:
    cut = ("file", ":", f"//{Path(repo).resolve()}")
    assert complete("show", *cut, "") == ["m", "other"]
    assert complete("show", *cut, "m/c") == ["m/champion"]
    assert complete("show", *cut, "o", "gs", ":", "//behind/the-cursor", at=5) == ["other"]


def test_tags_and_contexts(complete: Complete, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete("lint", "r", "--target", "24.0")[:2] == ["24.09", "24.08"]
    assert complete("export", "r", "m", "x.onnx", "--target", "20.") == ["20.12", "20.11"]
    (tmp_path / "a").write_text("contexts: [{name: prod}, {name: test}]")
    (tmp_path / "b").write_text("contexts: [{name: laptop}]")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/a:{tmp_path}/absent:{tmp_path}/b")
    assert complete("prune", "r", "--context", "") == ["prod", "test", "laptop"]
    assert complete("prune", "r", "--kubeconfig", "b", "--context", "") == ["laptop"]
    assert complete("demo", "--context", "p") == ["prod"]
    (tmp_path / "b").write_text("{")
    assert complete("operator", "run", "--kubeconfig", "b", "--context", "") == []


def test_nothing_where_there_is_nothing_to_propose(
    complete: Complete, repo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (
        ("show", "absent", ""),
        ("show", "given.onnx", ""),
        ("show", "ftp", ":", "//host/x", ""),
        ("show", repo, "absent/"),
        ("rollback", repo, "absent", ""),
        ("promote", repo, "../m", ""),
    ):
        assert complete(*words) == []
    Path(repo, ".m.gravswell.json").write_text("{")
    assert complete("show", repo, "m/") == []
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert complete("prune", repo, "--context", "") == [], "without the extra"


def test_a_bucket_without_credentials_and_one_that_is_away(
    complete: Complete, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    assert complete("show", "gs", ":", "//bucket/r", "") == []
    monkeypatch.setattr(completion, "WAIT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert complete("show", "gs", ":", "//bucket/r", "") == [], "it takes the connection and never answers"


def test_a_thousand_entries_are_one_listing(complete: Complete, repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = qv.ModelRepository.open(repo)._store
    asked: list[str] = []
    children = type(store).children

    def counted(self: object, folder: str = "") -> object:
        asked.append(folder)
        return children(self, folder)  # type: ignore[arg-type]

    monkeypatch.setattr(type(store), "children", counted)
    assert complete("show", repo, "") == ["m", "other"]
    assert asked == [""]
