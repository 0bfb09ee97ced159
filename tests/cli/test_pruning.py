"""``prune``: what it shows, when it asks, and what it then does."""

import os
import time
from pathlib import Path

import pytest

from gravswell import quiver as qv
from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.quiver.stores import open_store

from ..quiver.versions import put_versions
from .conftest import Run


@pytest.fixture
def repo(run: Run, tmp_path: Path) -> str:
    """``r``: ``m`` with five versions and ``n`` with one; 3 of ``m`` is the champion."""
    repository = qv.ModelRepository(tmp_path / "r")
    for name, count in (("m", 5), ("n", 1)):
        entry = repository.add(name)
        put_versions(open_store(tmp_path / "r"), name, range(1, count + 1))
    repository.models["m"].promote(3, "champion")
    assert entry.versions == [1]
    return "r"


def rows(out: str) -> dict[str, str]:
    return {line.split()[0]: line.split()[1] for line in out.splitlines()[1:] if "/" in line.split()[0]}


def test_a_dry_run_says_what_goes_and_why_the_rest_stays(run: Run, repo: str) -> None:
    shown = run("prune", repo, "--keep", 1, "--grace", "0s", "--dry-run")
    assert rows(shown.out) == {
        "m/5": "stays",
        "m/4": "goes",
        "m/3": "stays",
        "m/2": "goes",
        "m/1": "goes",
        "n/1": "stays",
    }
    assert "champion" in shown.out
    assert "the newest; among the newest 1" in shown.out
    assert "3 versions to go" in shown.out
    assert "no cluster was asked what it serves" in shown.err
    data = run("prune", repo, "m", "--keep", 1, "--grace", "0s", "--dry-run", "-o", "json").data
    assert data["dryRun"]
    assert [v["version"] for v in data["versions"] if v["goes"]] == [4, 2, 1]
    assert data["freed"] == sum(v["size"] for v in data["versions"] if v["goes"]) > 0
    assert len(run("ls", repo, "m", "-o", "json").data["m"]) == 5
    young = run("prune", repo, "--older-than", "30d", "--yes")
    assert "younger than 1d" in young.out
    assert "nothing goes" in young.out


@pytest.mark.parametrize(("answer", "gone"), [("n\n", False), ("y\n", True)])
def test_it_asks_first(run: Run, repo: str, answer: str, gone: bool) -> None:
    asked = run("prune", repo, "--keep", 2, "--grace", "0s", stdin=answer)
    assert "m/2" in asked.err
    assert "Remove 2 versions from r?" in asked.err
    assert (asked.code == 0) is gone
    assert ("2 versions removed" in asked.out) is gone
    assert (len(run("ls", repo, "m", "-o", "json").data["m"]) == 3) is gone


def test_what_goes_is_gone(run: Run, repo: str, tmp_path: Path) -> None:
    old = time.time() - 40 * 86_400
    for number in (1, 2, 3):
        os.utime(tmp_path / f"r/m/{number}/.manifest.json", (old, old))
    qv.ModelRepository.open(repo).models["m"].pin("prod", [2])
    done = run("prune", repo, "--keep", 1, "--grace", "0s", "--yes", "-o", "json")
    assert done.code == 0
    assert "no cluster was asked" not in done.err
    assert {f"{v['entry']}/{v['version']}": v["goes"] for v in done.data["versions"]} == {
        "m/5": False,
        "m/4": True,
        "m/3": False,
        "m/2": False,
        "m/1": True,
        "n/1": False,
    }
    assert [v["version"] for v in run("ls", repo, "m", "-o", "json").data["m"]] == [5, 3, 2]
    refused = run("rm", repo, "m/2", "-y")
    assert "prod serves m/2" in refused.err
    assert run("rm", repo, "m/2", "-y", "--even-served").code == 0


def test_what_cannot_be_meant(run: Run, repo: str, tmp_path: Path) -> None:
    for arguments, error, says in (
        ((), InvalidInputError, "give --keep, --older-than"),
        (("--older-than", "3w"), InvalidInputError, "write 30d"),
        (("--keep", 1, "--grace", "soon"), InvalidInputError, "write 30d"),
        (("x", "--keep", 1), NotFoundError, "entries: m, n"),
        (("--keep", 1, "--kubeconfig", tmp_path / "absent"), NotFoundError, "there is no kubeconfig"),
    ):
        refused = run("prune", repo, *arguments)
        assert refused.code == error.exit_code, refused.err
        assert says in refused.err
