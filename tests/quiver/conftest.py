"""Repositories to test with, and a version that is cheap to make."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from gravswell import quiver as qv
from gravswell.quiver import exporters


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "my-repo"


@pytest.fixture
def repo(root: Path) -> qv.ModelRepository:
    return qv.ModelRepository(root)


@pytest.fixture
def entry(repo: qv.ModelRepository) -> qv.Entry:
    return repo.add("my-model", platform=qv.Platform.ONNX)


def _affine(
    features: int = 4, *, scale: float = 2.0, batch: int | str = "batch", opset: int = 18, ir_version: int = 9
) -> Any:
    """``y = scale * x`` over rows of ``features``, as a ``ModelProto``."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        "affine",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, features])],
        [numpy_helper.from_array(np.array([scale], np.float32), "scale")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


@pytest.fixture
def affine() -> Callable[..., Any]:
    return _affine


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an affine model."""
    path = tmp_path_factory.mktemp("model") / "given.onnx"
    path.write_bytes(_affine().SerializeToString())
    return path


@pytest.fixture
def prebuilt(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As ``given``, and exports of it begin with what one has built: for what comes then, thousands of times."""
    kept = tmp_path / "built"
    real, built = exporters.build, []

    def build(request: exporters.ExportRequest, folder: Path, **how: Any) -> exporters.Built:
        if request.model != given:
            return real(request, folder, **how)
        if not built:
            built.append(real(request, folder, **how))
            shutil.copytree(folder, kept)
        for path in kept.iterdir():
            shutil.copyfile(path, folder / path.name)
        return built[0]

    monkeypatch.setattr(exporters, "build", build)
    return given
