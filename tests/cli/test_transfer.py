"""``gravswell copy`` and ``sync``, as a user runs them."""

import io
from pathlib import Path

import pytest
import typer

from .conftest import Run


def test_copy(run: Run, repo: str, model: Path) -> None:
    assert run("export", repo, "m", model).code == 0
    dry = run("copy", repo, "m/2", "t", "--dry-run", "-o", "json")
    assert dry.data["dryRun"] is True
    assert [(s["action"], s["version"]) for s in dry.data["steps"]] == [("copy", None), ("copy", 2)]
    assert not Path("t").exists()
    assert "copied m/2" in run("copy", repo, "m/2", "t").out.replace("  ", " ")
    assert "1 version there already" in run("copy", repo, "m", "t").out
    named = run("copy", repo, "m/1", "t", "--as", "n", "-o", "json")
    assert [s["name"] for s in named.data["steps"]] == ["n", "n"]
    assert run("verify", "t").code == 0
    assert run("copy", repo, "t").code == 2
    assert run("copy", repo, "m/9", "t").code == 3


def test_moves_of_aliases_are_told(run: Run, repo: str, model: Path) -> None:
    assert run("export", repo, "m", model).code == 0
    assert run("promote", repo, "m", "2", "champion").code == 0
    assert "would move champion to m/2" in " ".join(run("sync", repo, "t", "--state", "--dry-run").out.split())
    done = run("sync", repo, "t", "--state", "-o", "json")
    assert done.data["aliases"] == [{"entry": "m", "alias": "champion", "version": 2, "previous": None}]


def test_sync_and_delete(run: Run, repo: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert run("sync", repo, "t").code == 0
    assert run("export", "t", "m", model).code == 0
    told = run("sync", repo, "t", "--delete", "--dry-run")
    assert "would delete" in told.out
    assert run("sync", repo, "t", "--delete").code == 1  # asks, and is told no
    Path("away").mkdir()
    assert run("sync", "away", "t", "--delete", "--yes").code == 3
    Path("away/notes.txt").write_text("")
    assert "away is no model repository: it holds notes.txt" in run("sync", "away", "t").err

    def asked(question: str, **_: object) -> bool:
        assert "Remove m/2 from t?" in question
        return run("export", "t", "m", model).code == 0

    with monkeypatch.context() as answering:
        answering.setattr(typer, "confirm", asked)
        assert "m/3" not in run("sync", repo, "t", "--delete").out
    assert run("show", "t", "m", "-o", "json").data["versions"] == [1, 3]
    done = run("sync", repo, "t", "--delete", "--yes", "--entry", "m", "-o", "json")
    assert [(s["action"], s["version"]) for s in done.data["steps"]][-1] == ("delete", 3)
    assert run("export", repo, "m", model).code == 0
    skipped = run("sync", repo, "t")
    assert (skipped.code, "below the next number" in " ".join(skipped.out.split())) == (0, True)
    refused = run("copy", repo, "m/2", "t")
    assert refused.code == 4
    assert "m/2 is below the next number in the destination (4)" in refused.err
