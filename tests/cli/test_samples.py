"""``gravswell export --sample-inputs``: batches of the user's own, from ``.npz``, in place of random ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from .conftest import Run

ROWS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """``table.onnx``: row ``ids`` of a table of one row, by a way that hides its length: random ids lead out of it."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["ids", "zero"], ["same"]), helper.make_node("Gather", ["table", "same"], ["y"])],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(ROWS[:1], "table"), numpy_helper.from_array(np.int64([0]), "zero")],
    )
    path = tmp_path / "table.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(made.SerializeToString())
    return path


def test_a_model_that_takes_no_random_inputs(run: Run, table: Path) -> None:
    run("init", "r")
    refused = run("export", "r", "m", table, "--add")
    assert refused.code == 6
    assert "give batches as sample_inputs (--sample-inputs FILE.npz)" in refused.err
    np.savez("a.npz", ids=np.array([-1, 0, 0, 0]))
    np.savez_compressed("b.npz", ids=np.array([-1], np.int8))
    made = run("export", "r", "m", table, "--add", "--sample-inputs", "a.npz", "--sample-inputs", "b.npz", "-o", "json")
    assert made.code == 0, made.err
    assert made.data["manifest"]["verification"]["batch_sizes"] == [1, 2, 4, 5], "and the first one at other sizes"
    assert made.data["manifest"]["verification"]["inputs"] == "given"
    with np.load("r/m/1/.golden.npz") as golden:
        recorded = [golden[key].tolist() for key in golden.files if key.endswith("inputs/ids")]
    assert [-1, 0, 0, 0] in recorded
    assert [-1] in recorded


@pytest.mark.parametrize(
    ("arrays", "fact"),
    [
        ({"z": ROWS}, "sample 0 has inputs z; the model takes x"),
        ({"x": ROWS, "z": ROWS}, "sample 0 has inputs x, z; the model takes x"),
        ({"x": ROWS[:, :3]}, "x has shape [3, 3], which is no [-1, 4]"),
        ({"x": ROWS[:0]}, "x has shape [0, 4]"),
        ({"x": np.full((1, 4), "a")}, "x holds <U1 values that are no TYPE_FP32"),
        ({"x": np.full((1, 4), 1 + 1j)}, "x holds complex128 values"),
        ({"x": np.full((1, 4), 1e300)}, "x holds float64 values that are no TYPE_FP32"),
        ({"x": np.full((1, 4), None)}, "'x' cannot be read"),
        ({}, "holds no array"),
    ],
)
def test_samples_that_do_not_fit(run: Run, repo: str, arrays: dict[str, Any], fact: str) -> None:
    np.savez("given.npz", **arrays)
    result = run("export", repo, "m", "given.onnx", "--sample-inputs", "given.npz")
    assert result.code == 2, result.err
    assert fact in result.err
    assert result.err.startswith("error: ")
    assert [v["version"] for v in run("ls", repo, "m", "-o", "json").data["m"]] == [1]


def test_whose_inputs_proved_it_is_told(run: Run, repo: str) -> None:
    assert "random inputs (--sample-inputs proves it with yours)" in run("export", repo, "m", "given.onnx").out
    np.savez("given.npz", x=ROWS)
    proved = run("export", repo, "m", "given.onnx", "--sample-inputs", "given.npz")
    assert "rows, your inputs" in proved.out


def test_ids_that_are_no_whole_numbers(run: Run, table: Path) -> None:
    run("init", "r")
    np.savez("a.npz", ids=np.array([0.5]))
    result = run("export", "r", "m", table, "--add", "--sample-inputs", "a.npz")
    assert result.code == 2
    assert "ids holds float64 values that are no TYPE_INT64" in result.err


def test_pickled_objects_are_never_loaded(run: Run, repo: str, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    np.savez("given.npz", x=np.array([[Trap()] * 4], object))
    result = run("export", repo, "m", "given.onnx", "--sample-inputs", "given.npz")
    assert result.code == 2
    assert "never pickled objects" in result.err
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK"])
def test_files_that_are_no_npz(run: Run, repo: str, content: bytes | None) -> None:
    if content is not None:
        Path("given.npz").write_bytes(content)
    result = run("export", repo, "m", "given.onnx", "--sample-inputs", "given.npz")
    assert result.code == (3 if content is None else 2)
    assert ("there is no file given.npz" if content is None else "given.npz is no .npz") in result.err


def test_a_damaged_npz(run: Run, repo: str) -> None:
    np.savez("given.npz", x=ROWS)
    data = bytearray(Path("given.npz").read_bytes())
    data[150:160] = b"x" * 10
    Path("given.npz").write_bytes(data)
    result = run("export", repo, "m", "given.onnx", "--sample-inputs", "given.npz")
    assert result.code == 2
    assert "'x' cannot be read" in result.err
