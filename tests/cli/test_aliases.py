"""``promote``, ``rollback``, ``unalias``, ``aliases``, ``history``, and what ``ls`` and ``show`` say of aliases."""

from pathlib import Path

import pytest

from gravswell.errors import ConflictError, InvalidInputError, NotFoundError, VerificationError
from gravswell.quiver.stores import open_store

from ..quiver.versions import put_versions
from .conftest import Run


@pytest.fixture
def repo(run: Run, tmp_path: Path) -> str:
    """``r``: one entry, ``m``, with the versions 1 to 4."""
    assert run("init", "r").code == 0
    assert run("add", "r", "m").code == 0
    put_versions(open_store(tmp_path / "r"), "m", range(1, 5))
    return "r"


def test_the_whole_way(run: Run, repo: str) -> None:
    assert "gravswell promote r ENTRY VERSION champion" in run("aliases", repo).out
    assert "no alias of m was ever moved" in run("history", repo, "m").out
    made = run(
        "promote", repo, "m", 2, "champion", "--expect", "none", "--by", "alice", "--reason", "first", "-o", "json"
    )
    assert made.code == 0
    assert (made.data["version"], made.data["previous"], made.data["changed"]) == (2, None, True)
    assert "champion of m names 2 already" in run("promote", repo, "m", 2, "champion").out
    same = run("promote", repo, "m", 2, "champion", "-o", "json").data
    assert (same["changed"], same["version"], same["previous"]) == (False, 2, 2)
    assert same.keys() == made.data.keys()
    assert "champion of m names 3, and named 2" in run("promote", repo, "m", "3", "champion", "--expect", 2).out
    assert run("promote", repo, "m", "latest", "canary").code == 0
    assert "names 4, and named 3" in run("promote", repo, "m", "canary", "champion", "--no-verify").out

    back = run("rollback", repo, "m", "champion", "--reason", "slow")
    assert "champion of m names 3, and named 4; undo this: gravswell promote r m 4 champion" in back.out
    assert run("rollback", repo, "m", "champion", "-o", "json").data["version"] == 2
    assert "was nowhere before" in run("rollback", repo, "m", "champion").err

    rows = run("aliases", repo, "-o", "json").data
    assert [(row["entry"], row["alias"], row["version"], row["rollback"]) for row in rows] == [
        ("m", "canary", 4, None),
        ("m", "champion", 2, None),
    ]
    assert run("aliases", repo, "m").out.splitlines()[1].split()[:3] == ["m", "canary", "4"]
    moves = run("history", repo, "m", "champion", "-o", "json").data
    assert [(move["action"], move["version"], move["reason"]) for move in moves] == [
        ("promote", 2, "first"),
        ("promote", 3, ""),
        ("promote", 4, ""),
        ("rollback", 3, "slow"),
        ("rollback", 2, ""),
    ]
    assert moves[0]["by"] == "alice"
    assert len(run("history", repo, "m").out.splitlines()) == 7

    assert "canary 4, champion 2" in run("ls", repo).out
    assert {v["version"]: v["aliases"] for v in run("ls", repo, "m", "-o", "json").data["m"]} == {
        4: ["canary"],
        3: [],
        2: ["champion"],
        1: [],
    }
    assert "champion: 2" in run("show", repo, "m").out
    assert run("show", repo, "m", "-o", "json").data["aliases"] == {"canary": 4, "champion": 2}
    assert ["aliases", "canary"] in [line.split() for line in run("show", repo, "m/4").out.splitlines()]
    assert run("show", repo, "m/4", "-o", "json").data["aliases"] == ["canary"]

    assert "champion of m is gone; it named 2" in run("unalias", repo, "m", "champion").out
    assert run("aliases", repo, "-o", "json").data[0]["alias"] == "canary"


def test_refusals(run: Run, repo: str, tmp_path: Path) -> None:
    run("promote", repo, "m", 2, "champion", "--by", "alice")
    for arguments, error, says in (
        (("promote", repo, "m", 3, "champion", "--expect", 1), ConflictError, "is at 2, and it should be at 1: alice"),
        (("rollback", repo, "m", "champion", "--expect", 1), ConflictError, "is at 2"),
        (("unalias", repo, "m", "champion", "--expect", "none"), ConflictError, "should not exist"),
        (("promote", repo, "m", 9, "champion"), NotFoundError, "its versions: 4, 3, 2, 1"),
        (("promote", repo, "m", "best", "champion"), NotFoundError, "its aliases: champion (2)"),
        (("promote", repo, "n", 1, "champion"), NotFoundError, "entries: m"),
        (("promote", repo, "m", 1, "latest"), InvalidInputError, "is no alias"),
        (("promote", repo, "m", 1, "champion", "--expect", "any"), InvalidInputError, "or none"),
        (("rollback", repo, "m", "canary"), NotFoundError, "no alias 'canary'"),
        (("history", repo, "m", "canary"), NotFoundError, "its aliases: champion (2)"),
        (("rm", repo, "m/2", "-y"), ConflictError, "champion points at m/2"),
    ):
        refused = run(*arguments)
        assert refused.code == error.exit_code, refused.err
        assert says in refused.err
        assert refused.err.count("\n") == 1
    (tmp_path / "r/m/3/model.onnx").write_bytes(b"other")
    damaged = run("promote", repo, "m", 3, "champion")
    assert (damaged.code, "model.onnx has" in damaged.err) == (VerificationError.exit_code, True)
    run("add", repo, "empty")
    assert "has no version yet" in run("promote", repo, "empty", "latest", "champion").err


def test_a_damaged_memory_hides_no_other_entry(run: Run, repo: str, tmp_path: Path) -> None:
    run("add", repo, "n")
    (tmp_path / "r/.n.gravswell.json").write_text("{")
    listed = run("ls", repo)
    assert listed.code == VerificationError.exit_code
    assert "m " in listed.out
    assert "n cannot be read" in listed.err
