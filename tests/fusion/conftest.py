"""Models that are fused, and a fusion beside its single models in ONNX Runtime."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import sklearn.datasets
import torch
from onnx import ModelProto, TensorProto, helper
from sklearn.tree import DecisionTreeRegressor

from gravswell import quiver as qv

from ..networks import model

FLOAT = TensorProto.FLOAT

onnx_model = partial(model, opset=18)
"""Those nodes as a model in opset 18."""


def scaled(factor: float, size: int = 4, *, x: str = "x", y: str = "y", opset: int = 18, kind: Any = np.float32) -> Any:
    """``y = factor * x`` over rows of ``size``."""
    data_type = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return onnx_model(
        [helper.make_node("Mul", [x, "factor"], [y])],
        [(x, data_type, ["rows", size])],
        [(y, data_type, ["rows", size])],
        {"factor": np.array([factor], kind)},
        opset=opset,
    )


def frameworks() -> list[qv.ModelInfo]:
    """A network of torch's and a tree of scikit-learn's, which take the four measures of an iris."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    tree = DecisionTreeRegressor(max_depth=4).fit(*sklearn.datasets.load_iris(return_X_y=True))
    return [
        qv.ModelInfo(network, {"x": (None, 4)}, name="network", output_names=["y"]),
        qv.ModelInfo(tree, name="tree", output_names=["y"]),
    ]


@dataclass
class Fused:
    """A fusion that was published."""

    entry: qv.Entry
    path: Path
    session: ort.InferenceSession

    def __call__(self, ids: Sequence[int], /, **inputs: Any) -> dict[str, Any]:
        feed = {"model_id": np.asarray(ids, np.int64), **inputs}
        names = [node.name for node in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, feed), strict=True))

    @property
    def proto(self) -> ModelProto:
        return onnx.load(self.path)


Fuse = Callable[..., Fused]


def alone(proto: ModelProto) -> Callable[..., dict[str, Any]]:
    """A single model as ONNX Runtime runs it by default."""
    session = opened(proto.SerializeToString())
    names = [node.name for node in session.get_outputs()]
    return lambda **inputs: dict(zip(names, session.run(names, inputs), strict=True))


def opened(given: Any) -> ort.InferenceSession:
    """ONNX Runtime that keeps to itself what a test provokes."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])


@pytest.fixture
def repo(tmp_path: Path) -> qv.ModelRepository:
    return qv.ModelRepository(tmp_path / "repo")


@pytest.fixture
def fuse(repo: qv.ModelRepository) -> Fuse:
    """``fuse(models, **export options) -> Fused``, in an entry of its own."""

    def made(models: Sequence[Any], **options: Any) -> Fused:
        entry = repo.add("zoo", qv.Platform.ONNX, force=True)
        path = Path(entry.export_version(qv.fuse(models, "zoo"), **options))
        return Fused(entry, path, opened(str(path)))

    return made
