"""``gravswell infer`` against the real Triton."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gravswell.quiver.arrays import write_arrays
from gravswell.serving.triton import EmbeddedTriton

from ..commands import Run
from ..serving.client.conftest import entries

X = np.arange(4 * 101, dtype=np.float32).reshape(101, 4)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedTriton(entries(tmp_path_factory.mktemp("infer") / "models"), models=["scale", "text"]) as server:
        yield server.http_address


def test_rows_of_a_file_into_a_file(run: Run, server: str) -> None:
    np.savez("rows.npz", x=X)
    told = run("infer", server, "scale", "--inputs", "rows.npz", "--out", "y.npz", "--batch-size", 8, "-o", "json")
    assert told.code == 0, told.err
    assert told.data["rows"] == 101
    assert told.data["outputs"] == {"y": {"dtype": "float32", "shape": [101, 4]}}
    assert told.data["replicas"] == {server: 2 + 13}
    assert told.data["rowsPerSecond"] > 0
    with np.load("y.npz") as stored:
        np.testing.assert_array_equal(stored["y"], 2 * X, strict=True)
    mask = os.umask(0)
    os.umask(mask)
    assert Path("y.npz").stat().st_mode & 0o777 == 0o666 & ~mask
    shown = run("infer", f"{server},{server}", "scale", "--inputs", "rows.npz", "--out", "y.npz", "--only", "y")
    assert "101 in " in shown.out
    assert "rows/s" in shown.out
    assert sorted(path.name for path in Path().iterdir()) == ["rows.npz", "y.npz"]


def test_text_without_pickles(run: Run, server: str) -> None:
    np.savez("words.npz", s=np.array([["a"], ["größer"]]))
    assert run("infer", server, "text", "--inputs", "words.npz", "--out", "t.npz").code == 0
    with np.load("t.npz", allow_pickle=False) as stored:
        assert stored["t"].tolist() == [["a"], ["größer"]]


def test_a_failure_is_one_line_and_leaves_what_was_there(run: Run, server: str) -> None:
    np.savez("rows.npz", x=X.astype(np.float64))
    Path("y.npz").write_bytes(b"before")
    command = ["infer", server, "scale", "--inputs", "rows.npz", "--out", "y.npz"]
    told = run(*command)
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "is FP32, and the array is of float64: send array.astype(np.float32)" in told.err
    assert run("infer", server, "absent", *command[3:]).code == 3
    assert run("infer", "127.0.0.1:9", "scale", *command[3:], "--retry-for", 0).code == 7
    assert run(*command[:-1], "no-such-folder/y.npz").code == 3
    assert run(*command[:3], "--inputs", "absent.npz", "--out", "y.npz").code == 3
    np.savez("rows.npz", x=X)
    Path("folder").mkdir()
    into_a_folder = run("infer", "127.0.0.1:9", *command[2:-1], "folder")
    assert (into_a_folder.code, "folder is a folder: name a file in it" in into_a_folder.err) == (2, True)
    assert Path("y.npz").read_bytes() == b"before"
    assert sorted(path.name for path in Path().iterdir()) == ["folder", "rows.npz", "y.npz"]


def test_outputs_of_any_name(tmp_path: Path) -> None:
    outputs = {"file": np.arange(3), "a/b": np.array(["ü"])}
    write_arrays(tmp_path / "y.npz", outputs)
    with np.load(tmp_path / "y.npz") as stored:
        assert {name: stored[name].tolist() for name in stored.files} == {"file": [0, 1, 2], "a/b": ["ü"]}
