"""A model and a repository to use the command line on."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ..commands import Result, Run, run

__all__ = ["Result", "Run", "model", "repo", "run"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """``given.onnx``: y = 2x over rows of 4."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.array([2], np.float32), "two")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path / "given.onnx"
    path.write_bytes(made.SerializeToString())
    return path


@pytest.fixture
def repo(run: Run, model: Path) -> str:
    """``r``: one entry, ``m``, with one version."""
    assert run("init", "r").code == 0
    assert run("add", "r", "m").code == 0
    assert run("export", "r", "m", model).code == 0
    return "r"
