"""Repositories with small models to make pipelines of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from gravswell import quiver as qv


def onnx_model(
    nodes: list[Any],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
    weights: dict[str, Any] | None = None,
) -> ModelProto:
    """A graph of these nodes; each tensor has ONNX's type and its dims."""
    infos = [
        [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in side.items()]
        for side in (inputs, outputs)
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", *infos, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def scaled(scale: float, features: int = 4, *, batch: Any = "n") -> ModelProto:
    """``y = scale * x`` over rows."""
    sides = ({name: (TensorProto.FLOAT, [batch, features])} for name in "xy")
    weights = {"s": np.array([scale], np.float32)}
    return onnx_model([helper.make_node("Mul", ["x", "s"], ["y"])], *sides, weights)


def split() -> ModelProto:
    """Two outputs of one input: ``low = min(x, 0)`` and ``high = max(x, 0)``."""
    rows = (TensorProto.FLOAT, ["n", 4])
    nodes = [helper.make_node("Min", ["x", "z"], ["low"]), helper.make_node("Max", ["x", "z"], ["high"])]
    return onnx_model(nodes, {"x": rows}, {"low": rows, "high": rows}, {"z": np.zeros(1, np.float32)})


def added() -> ModelProto:
    """Two inputs: ``y = a - b``."""
    rows = (TensorProto.FLOAT, ["n", 4])
    return onnx_model([helper.make_node("Sub", ["a", "b"], ["y"])], {"a": rows, "b": rows}, {"y": rows})


def rounded() -> ModelProto:
    """int64 in, int64 out."""
    rows = (TensorProto.INT64, ["n", 4])
    return onnx_model([helper.make_node("Neg", ["k"], ["y"])], {"k": rows}, {"y": rows})


MODELS: dict[str, Callable[[], Any]] = {
    "double": lambda: scaled(2.0),
    "triple": lambda: scaled(3.0),
    "wide": lambda: scaled(1.0, 8),
    "split": split,
    "subtract": added,
    "whole": rounded,
}


def fill(repo: qv.ModelRepository, *names: str, **how: Any) -> qv.ModelRepository:
    """Export these of :data:`MODELS`."""
    for name in names:
        (repo.models[name] if name in repo.models else repo.add(name)).export_version(MODELS[name](), **how)
    return repo


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "repo"


@pytest.fixture
def repo(root: Path) -> qv.ModelRepository:
    """With ``double`` and ``triple``."""
    return fill(qv.ModelRepository(root), "double", "triple")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> qv.ModelRepository:
    """With every model, for tests that publish nothing."""
    return fill(qv.ModelRepository(tmp_path_factory.mktemp("models") / "repo"), *MODELS)
