"""``gravswell pipeline``, and what the other commands tell of pipelines."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gravswell import quiver as qv
from gravswell.cli.app import app
from gravswell.errors import InvalidInputError

from .conftest import fill

FILE = str(Path(__file__).parent / "functions.py")


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command puts the folder of the file that it is given there: other tests would find its modules by name."""
    monkeypatch.setattr(sys, "path", [*sys.path])


def run(*arguments: str) -> Any:
    """What a command prints as JSON."""
    result = CliRunner().invoke(app, [*arguments, "--output", "json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def text(*arguments: str) -> str:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "200"}).stdout


def test_from_a_file_to_a_listing(repo: qv.ModelRepository) -> None:
    where = repo.location
    checked = run("pipeline", "check", where, f"{FILE}:six")
    assert (checked["compilesTo"], [m["model"] for m in checked["members"]]) == ("ensemble", ["double", "triple"])
    told = text("pipeline", "check", where, f"{FILE}:repeated")
    assert "repeated compiles to Python in the server" in told
    assert "uses" in told
    with pytest.raises(InvalidInputError, match="put @qv"):
        run("pipeline", "check", where, f"{FILE}:BIAS")
    made = run("export", where, "six", f"{FILE}:six", "--add")
    assert Path(made["path"]).name == ".config.pbtxt"
    assert [member["alias"] for member in made["manifest"]["members"]] == ["double", "triple"]
    run("export", where, "six", f"{FILE}:six")
    assert "calls double: double/1" in text("export", where, "repeated", f"{FILE}:repeated", "--add")
    listed = run("ls", where, "six")["six"]
    assert [member["version"] for member in listed[0]["members"]] == [1, 1]
    assert "double/1, triple/1" in text("ls", where)
    assert "members" not in text("ls", where, "double")
    assert run("show", where, "double")["memberOf"] == {"1": ["repeated/1", "six/1", "six/2"]}
    assert "1 is a member of repeated/1, six/1, six/2" in text("show", where, "double")
    assert "member double" in text("show", where, "six/1")
    assert {row["result"] for row in run("verify", where)} == {"verified"}
    fill(repo, "double")
    run("export", where, "six", f"{FILE}:six")
    differs = run("diff", where, "six", "2", "3")
    assert differs["members"] == [{"alias": "double", "old": "double/1", "new": "double/2"}]
    assert "double/2" in text("diff", where, "six", "2", "3")
    pruned = run("prune", where, "--keep", "1", "--grace", "0s", "--dry-run")
    reasons = {(v["entry"], v["version"]): v["reasons"] for v in pruned["versions"]}
    assert reasons["double", 1] == ["member of repeated/1"]
    run("rm", where, "repeated", "--yes")
    gone = run("prune", where, "--keep", "1", "--grace", "0s", "--yes")["versions"]
    assert [(v["entry"], v["version"]) for v in gone if v["goes"]] == [("six", 2), ("six", 1), ("double", 1)]
    assert {row["result"] for row in run("verify", where)} == {"verified"}


def test_an_export_that_fails_leaves_no_entry(repo: qv.ModelRepository) -> None:
    with pytest.raises(InvalidInputError, match="input_shapes names y, and six takes x"):
        run("export", repo.location, "six", f"{FILE}:six", "--add", "--input-shape", "y=-1,4")
    assert "six" not in qv.ModelRepository(repo.location).models
