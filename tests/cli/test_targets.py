"""``ENTRY/VERSION`` wherever a version is named: its number, ``latest`` or an alias; and who is told to serve it."""

from pathlib import Path

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError, InvalidInputError, NotFoundError

from .conftest import Run


@pytest.fixture
def repo(run: Run, repo: str, model: Path) -> str:
    """``m`` with the versions 1 (old), 2 (champion) and 3."""
    for _ in range(2):
        assert run("export", repo, "m", model).code == 0
    for number, alias in ((1, "old"), (2, "champion")):
        assert run("promote", repo, "m", number, alias).code == 0
    return repo


def test_a_version_by_any_of_its_names(run: Run, repo: str) -> None:
    for name, number in (("1", 1), ("old", 1), ("champion", 2), ("latest", 3)):
        assert run("show", repo, f"m/{name}", "-o", "json").data["version"] == number
        assert [row["version"] for row in run("verify", repo, f"m/{name}", "-o", "json").data] == [number]
    copied = run("copy", repo, "m/old", "m/latest", "t", "-o", "json")
    assert [step["version"] for step in copied.data["steps"] if step["version"]] == [1, 3]
    Path(repo, "m/config.pbtxt").write_text(Path(repo, "m/config.pbtxt").read_text() + "instance_group { count: 2 }\n")
    assert run("republish", repo, "m/champion", "-o", "json").data["version"] == 4


@pytest.mark.parametrize("command", ["show", "verify", "rm", "republish"])
def test_names_that_name_nothing(run: Run, repo: str, command: str) -> None:
    for name, error, told in (
        (
            "canary",
            NotFoundError,
            "'canary' is no version of m, and no alias either; its aliases: champion (2), old (1)",
        ),
        ("Canary", InvalidInputError, "write a number from 1 on, latest, or an alias"),
        ("0", InvalidInputError, "write a number from 1 on"),
    ):
        refused = run(command, repo, f"m/{name}", *(["--yes"] if command == "rm" else []))
        assert (refused.code, told in refused.err) == (error.exit_code, True), refused.err
        assert refused.out == ""


def test_what_an_alias_names_is_not_removed_by_it(run: Run, repo: str) -> None:
    refused = run("rm", repo, "m/old", "--yes")
    assert refused.code == ConflictError.exit_code
    assert "m/old is a name for m/1" in refused.err
    assert "`gravswell unalias r m old`" in refused.err
    assert "Remove m/3 from r?" in run("rm", repo, "m/latest", stdin="n\n").err
    assert run("rm", repo, "m/latest", "--yes", "-o", "json").data == {"removed": "m/3"}
    assert [v["version"] for v in run("ls", repo, "m", "-o", "json").data["m"]] == [2, 1]


def test_clusters_that_serve_a_version_are_told(run: Run, repo: str) -> None:
    assert "served by" not in run("ls", repo).out + run("ls", repo, "m").out, "a column for nothing"
    entry = qv.ModelRepository.open(repo).models["m"]
    entry.pin("prod", [1, 2])
    entry.pin("test", [2])
    assert {v["version"]: v["servedBy"] for v in run("ls", repo, "m", "-o", "json").data["m"]} == {
        3: [],
        2: ["prod", "test"],
        1: ["prod"],
    }
    assert "prod 1, prod 2, test 2" in run("ls", repo).out
    assert "prod, test" in run("ls", repo, "m").out
    assert run("show", repo, "m", "-o", "json").data["servedBy"] == {"prod": [1, 2], "test": [2]}
    assert "served by prod: 1, 2" in run("show", repo, "m").out
    assert run("show", repo, "m/champion", "-o", "json").data["servedBy"] == ["prod", "test"]
    assert ["served", "by", "prod"] in [line.split() for line in run("show", repo, "m/old").out.splitlines()]
