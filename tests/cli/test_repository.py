"""The repository's commands, as a user runs them: results on stdout, errors in one line, an exit code for each kind."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LinearRegression

from gravswell import quiver as qv
from gravswell.cli.app import app
from gravswell.errors import ConflictError, InvalidInputError, UnavailableError, VerificationError

from .conftest import Run

_WITHOUT_ROOM = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
os.execv(sys.executable, [sys.executable, "-m", "gravswell", *sys.argv[1:]])
"""
WITHOUT_ROOM = (sys.executable, "-c", _WITHOUT_ROOM)
"""The command line in a process in which no file gets longer than ten bytes. Not by code of ours between fork and exec:
what other tests loaded into this process may not let it fork.
"""

TRAIN = """\
from sklearn.datasets import load_digits
from sklearn.linear_model import LinearRegression

def make():
    return LinearRegression().fit(*load_digits(return_X_y=True))

model = make()

class Box:
    inner = model

odd = object()
"""


def test_the_whole_way(run: Run, model: Path, tmp_path: Path) -> None:
    assert run("init", "r", "-o", "json").data == {"url": (tmp_path / "r").as_uri(), "entries": []}
    assert "gravswell add r NAME" in run("ls", "r").out
    assert run("add", "r", "m", "-o", "json").data == {"name": "m", "platform": "onnxruntime_onnx"}
    assert "none yet" in run("ls", "r").out
    assert "nothing to verify" in run("verify", "r").out
    exported = run("export", "r", "m", "given.onnx", "-o", "json")
    assert exported.code == 0
    assert exported.data["path"] == "r/m/1/model.onnx"
    assert exported.data["manifest"]["verification"]["samples"] == 3
    text = run("export", "r", "m", "given.onnx").out
    assert "r/m/2/model.onnx" in text
    assert "1, 2, 5 rows" in text
    (first, second) = run("ls", "r", "m", "-o", "json").data["m"]
    assert (first["version"], second["version"]) == (2, 1)
    assert second["digest"] == exported.data["digest"]
    header, row = run("ls", "r").out.splitlines()
    assert header.split()[:3] == ["entry", "latest", "versions"]
    assert row.split()[:3] == ["m", "2", "2"]
    shown = run("show", "r", "m")
    assert 'name: "m"' in shown.out
    assert "versions: 1, 2" in shown.out
    assert run("show", "r", "m", "-o", "json").data["inputs"] == [
        {"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 4]}
    ]
    assert exported.data["digest"] in run("show", "r", "m/1").out.replace("\n", "").replace(" ", "")
    assert run("show", "r", "m/1", "-o", "json").data["manifest"] == exported.data["manifest"]
    verified = run("verify", "r", "-o", "json")
    assert verified.code == 0
    assert [(row["version"], row["result"], row["samples"]) for row in verified.data] == [
        (2, "verified", 3),
        (1, "verified", 3),
    ]
    assert run("verify", "r", "m/1").code == 0
    assert run("rm", "r", "m/2", "--yes", "-o", "json").data == {"removed": "m/2"}
    assert run("rm", "r", "m", "-y").code == 0
    assert run("ls", "r", "-o", "json").data == {}


@pytest.mark.parametrize("name", ["train.py:model", "train.py:make", "train:Box.inner"])
def test_python_objects(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    run("init", "r")
    exported = run("export", "r", "digits", name, "--add", "--output-name", "digit", "-o", "json")
    assert exported.code == 0, exported.err
    assert [o["name"] for o in exported.data["manifest"]["signature"]["outputs"]] == ["digit"]
    sys.modules.pop("train", None)


def test_torch_with_shapes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import torch\nnet = torch.nn.Linear(64, 1)\n")
    run("init", "r")
    options = ["--input-shape", "x=-1,64", "--input-type", "x=float32", "--output-name", "y", "--max-batch-size", 8]
    exported = run("export", "r", "m", "net.py:net", "--add", *options, "-o", "json")
    assert exported.code == 0, exported.err
    assert "max_batch_size: 8" in run("show", "r", "m").out
    assert run("export", "r", "m", "net.py:net").code == 0


@pytest.mark.parametrize(("name", "dump"), [("m.joblib", joblib.dump), ("m.pkl", pickle.dump)])
def test_pickles_only_when_trusted(run: Run, tmp_path: Path, name: str, dump: Callable[..., None]) -> None:
    estimator = LinearRegression().fit(*load_digits(return_X_y=True))
    with (tmp_path / name).open("wb") as stream:
        dump(estimator, stream)
    run("init", "r")
    refused = run("export", "r", "m", name, "--add")
    assert refused.code == 2
    assert "runs whatever code is in it" in refused.err
    assert "--allow-pickle" in refused.err
    assert run("ls", "r", "-o", "json").data == {}, "no entry is left behind"
    assert run("export", "r", "m", name, "--add", "--allow-pickle").code == 0
    (tmp_path / name).write_bytes(b"garbage")
    assert run("export", "r", "m", name, "--allow-pickle").code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "fact"),
    [
        (["add", "r", "../evil"], 2, "holds a path"),
        (["add", "r", "m"], 4, "has an entry 'm' already"),
        (["add", "r", "n", "--platform", "plan"], 2, "onnxruntime_onnx"),
        (["add", "nowhere", "m"], 3, "gravswell init nowhere"),
        (["ls", "ftp://host/x"], 9, "ftp://host/x"),
        (["ls", "given.onnx"], 2, "is a file"),
        (["ls", "r", "other"], 3, "entries: m"),
        (["show", "r", "m/7"], 3, "its versions: 1"),
        (["show", "r", "m/abc"], 3, "'abc' is no version of m, and no alias either; its aliases: none"),
        (["show", "r", "m/-1"], 2, "write a number from 1 on, latest, or an alias"),
        (["show", "r", "m/"], 2, "'' is no version of m"),
        (["rm", "r", "m/champion", "--yes"], 3, "no alias either"),
        (["verify", "r", "m/7"], 3, "its versions: 1"),
        (["rm", "r", "other", "--yes"], 3, "entries: m"),
        (["export", "r", "other", "given.onnx"], 3, "gravswell add"),
        (["export", "r", "m", "missing.onnx"], 3, "missing.onnx"),
        (["export", "r", "m", "nonsense"], 2, "file.py:attribute"),
        (["export", "r", "m", "model.pt"], 3, "no file model.pt"),
        (["export", "r", "m", "pathlib:Path"], 2, "pathlib:Path is a class: name a model made of it"),
        (["export", "r", "m", "missing.py:x"], 3, "missing.py"),
        (["export", "r", "m", "no.such.module:x"], 3, "no module"),
        (["export", "r", "m", "train.py:nothing"], 3, "it has:"),
        (["export", "r", "m", "train.py:odd"], 2, "a builtins.object cannot be exported; known: "),
        (["export", "r", "m", "broken.py:x"], 2, "ZeroDivisionError"),
        (["export", "r", "m", "needs.py:x"], 2, "not_installed_here"),
        (["export", "r", "m", "missing.joblib"], 3, "missing.joblib"),
        (["export", "r", "m", "train.py:model"], 2, "fitted on (None, 64)"),
        (["export", "r", "m", "given.onnx", "--input-shape", "x"], 2, "NAME=VALUE"),
        (["export", "r", "m", "given.onnx", "--input-shape", "x=a,b"], 2, "x=-1,64"),
        (["export", "r", "m", "given.onnx", "--version", "1"], 4, "2 or more"),
    ],
)
def test_mistakes_are_one_line(run: Run, repo: str, tmp_path: Path, arguments: list[str], code: int, fact: str) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "needs.py").write_text("import not_installed_here")
    before = run("ls", repo, "-o", "json").data
    result = run(*arguments)
    assert result.code == code, result.err
    assert fact in result.err
    assert result.err.strip().splitlines()[-1].startswith("error: ")
    assert result.out == ""
    assert run("ls", repo, "-o", "json").data == before


def test_outputs_that_differ_each_time(run: Run, tmp_path: Path) -> None:
    (tmp_path / "chance.py").write_text(
        "import torch\nclass Chance(torch.nn.Module):\n"
        "    def forward(self, x):\n        return x + torch.rand_like(x)\nmodel = Chance()\n"
    )
    run("init", "r")
    result = run("export", "r", "m", "chance.py:model", "--add", "--input-shape", "x=-1,4")
    assert result.code == 5
    assert "the same inputs give another answer each time" in result.err
    assert run("ls", "r", "-o", "json").data == {}, "no entry is left behind"


def test_corruption_is_found(run: Run, repo: str) -> None:
    run("export", repo, "m", "given.onnx")
    path = Path(repo, "m/1/model.onnx")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    result = run("verify", repo, "-o", "json")
    assert result.code == 5
    assert [row["result"] for row in result.data] == ["verified", "failed"]
    assert "model.onnx" in result.data[1]["message"]
    assert "1 of 2 versions failed: m/1" in result.err
    assert run("verify", repo, "m/2").code == 0


def test_a_version_that_something_else_wrote(run: Run, repo: str) -> None:
    theirs = Path(repo, "m/2")
    theirs.mkdir()
    (theirs / "model.onnx").write_bytes(b"theirs")
    assert "unverified" in run("ls", repo).out
    assert "something else wrote it" in run("show", repo, "m/2").out
    assert [row["result"] for row in run("verify", repo, "-o", "json").data] == ["unverified", "verified"]


@pytest.mark.parametrize(("answer", "removed"), [("y\n", True), ("n\n", False), ("", False)])
def test_removal_asks(
    run: Run, repo: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, removed: bool
) -> None:
    (tmp_path / "answer").write_text(answer)
    with (tmp_path / "answer").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        result = run("rm", repo, "m")
    assert (result.code == 0) is removed
    assert "m with its 1 version" in result.err + result.out
    assert Path(repo, "m").exists() is not removed


def test_a_folder_that_is_no_repository(run: Run, tmp_path: Path) -> None:
    (tmp_path / "project/src").mkdir(parents=True)
    for arguments in (["init", "project"], ["ls", "project"], ["add", "project", "m"]):
        result = run(*arguments)
        assert result.code == 2
        assert "no model repository: it holds src" in result.err


@pytest.mark.parametrize(
    ("code", "fact"),
    [
        ("def make():\n    raise ValueError('boom')", "ValueError: boom"),
        ("import sys\nsys.exit(3)", "ended the process (exit 3)"),
        ("def make():\n    raise SystemExit", "ended the process"),
    ],
)
def test_the_user_s_own_code_fails_in_one_line(run: Run, repo: str, tmp_path: Path, code: str, fact: str) -> None:
    (tmp_path / "boom.py").write_text(code)
    result = run("export", repo, "m", "boom.py:make")
    assert result.code == 2
    assert fact in result.err


def test_a_corrupt_pickle(run: Run, repo: str, tmp_path: Path) -> None:
    joblib.dump(np.arange(1000.0), tmp_path / "m.joblib", compress=3)
    data = bytearray((tmp_path / "m.joblib").read_bytes())
    data[50:] = b"\xff" * len(data[50:])
    (tmp_path / "m.joblib").write_bytes(data)
    result = run("export", repo, "m", "m.joblib", "--allow-pickle")
    assert result.code == 2
    assert "loading m.joblib failed" in result.err


@pytest.mark.parametrize(("answer", "replaced"), [("y\n", True), ("n\n", False), ("", False)])
def test_replacement_asks(
    run: Run, repo: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, replaced: bool
) -> None:
    assert run("add", repo, "fresh", "--force").code == 0, "nothing to lose, nothing to ask"
    (tmp_path / "answer").write_text(answer)
    with (tmp_path / "answer").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        result = run("add", repo, "m", "--force")
    assert (result.code == 0) is replaced
    assert "m with its 1 version" in result.err + result.out
    assert Path(repo, "m/1").exists() is not replaced
    assert run("add", repo, "m", "--force", "--yes").code == 0


def test_an_entry_that_is_needed(run: Run, repo: str) -> None:
    """The question tells who needs it; what a cluster serves takes more than a yes."""
    entry = qv.ModelRepository.open(repo).models["m"]
    entry.promote(1, "champion")
    for command, question in (
        (("rm", repo, "m"), "Remove m with its 1 version from r?"),
        (("add", repo, "m", "--force"), "Replace m with its 1 version in r?"),
    ):
        assert f"champion names m/1. {question}" in run(*command, stdin="n\n").err
        entry.pin("prod", [1])
        for answer in ((), ("--yes",)):
            refused = run(*command, *answer)
            assert refused.code == ConflictError.exit_code
            assert refused.err.startswith("error: prod serves m/1: "), "and nothing is asked first"
        assert f"champion names m/1; prod serves m/1. {question}" in run(*command, "--even-served", stdin="n\n").err
        assert entry.versions == [1]
        entry.pin("prod", [])
    entry.pin("prod", [1])
    assert run("add", repo, "m", "--force", "--yes", "--even-served").code == 0
    assert entry.versions == []
    assert run("rm", repo, "m", "--yes").code == 0


def test_names_that_look_like_markup(run: Run, model: Path) -> None:
    assert "x[/b]" in run("init", "x[/b]").out
    assert "x[/b]" in run("ls", "x[/b]").out
    Path("x[/b]", "theirs[b]/1").mkdir(parents=True)
    Path("x[/b]", "theirs[b]/1/model.onnx").write_bytes(b"")
    assert "theirs[b]" in run("ls", "x[/b]").out
    assert run("verify", "x[/b]").code == 0
    assert run("export", "x[/b]", "m", model.name, "--add").code == 0
    assert run("show", "x[/b]", "m/1").code == 0


def test_a_disk_that_takes_no_more_is_one_line(run: Run, model: Path, tmp_path: Path) -> None:
    run("init", "r")
    run("add", "r", "m")
    done = subprocess.run(
        [*WITHOUT_ROOM, "export", "r", "m", model],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == UnavailableError.exit_code
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}/.r.gravswell-staging/")
    assert "File too large; raise the limit of a file's size, `ulimit -f`" in line
    assert run("ls", "r", "-o", "json").data == {"m": []}


def test_an_entry_that_cannot_be_read_hides_no_other(run: Run, repo: str) -> None:
    run("add", repo, "looped")
    Path(repo, "looped/1").mkdir()
    Path(repo, "looped/1/.manifest.json").symlink_to(".manifest.json")
    listed = run("ls", repo)
    assert listed.code == InvalidInputError.exit_code
    assert [row.split()[:2] for row in listed.out.splitlines()[1:]] == [["looped", "unreadable"], ["m", "1"]]
    assert "looped cannot be read: r/looped/1/.manifest.json is, or lies under, a link that leads to" in listed.err
    verified = run("verify", repo, "-o", "json")
    assert verified.code == VerificationError.exit_code
    assert [(row["entry"], row["result"]) for row in verified.data] == [("looped", "failed"), ("m", "verified")]
    assert "1 of 2 versions failed: looped" in verified.err


def test_messages_speak_of_the_repository_as_it_was_named_and_of_options(run: Run, repo: str) -> None:
    missing = run("ls", repo, "absent")
    assert "there is no entry 'absent' in r; entries: m;" in missing.err
    twice = run("add", repo, "m")
    assert twice.code == ConflictError.exit_code
    assert twice.err == "error: r has an entry 'm' already: `gravswell show r m` shows it, --force replaces it\n"


def test_a_verification_without_room_names_its_folder(run: Run, repo: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*WITHOUT_ROOM, "verify", repo, "-o", "json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    (row,) = json.loads(done.stdout)
    assert row["result"] == "not verified"  # which says nothing of the version
    assert "File too large" in row["message"]
    assert "let TMPDIR name a folder with room for" in row["message"]


def test_the_commands_are_assembled_once_a_process(run: Run) -> None:
    run("--version")
    registered = len(app.registered_commands), len(app.registered_groups)
    run("--version")
    assert (len(app.registered_commands), len(app.registered_groups)) == registered
