"""Small ONNX graphs, entries made of them, and one real Triton that the tests of the backend share."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import np_to_triton_dtype

from gravswell.serving.triton import EmbeddedTriton

Tensor = tuple[str, int, list[Any]]


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    model = helper.make_model(
        helper.make_graph(
            list(nodes),
            "g",
            [helper.make_tensor_value_info(*tensor) for tensor in inputs],
            [helper.make_tensor_value_info(*tensor) for tensor in outputs],
            list(weights),
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.checker.check_model(model)
    return model


def scale(factor: float = 2.0, rows: Any = "n") -> onnx.ModelProto:
    """``y = factor * x``, x of shape (rows, 4)."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [], [factor])
    tensor = ("x", TensorProto.FLOAT, [rows, 4])
    return graph([helper.make_node("Mul", ["x", "w"], ["y"])], [tensor], [("y", *tensor[1:])], [weight])


SCALE_CONFIG = """\
platform: "onnxruntime_onnx"
input { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1, 4 ] }
"""

BATCHED_CONFIG = """\
platform: "onnxruntime_onnx"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 4 }
"""


def put(
    root: Path, name: str, model: onnx.ModelProto | bytes, config: str | None = SCALE_CONFIG, version: int = 1
) -> Path:
    """Write an entry as anybody could, without a manifest."""
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    data = model if isinstance(model, bytes) else model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    if config is not None:
        (root / name / "config.pbtxt").write_text(f'name: "{name}"\n{config}')
    return folder


def ask(address: str, model: str, outputs: Sequence[str] | None = None, **inputs: NDArray[Any]) -> dict[str, Any]:
    """One request over gRPC; the answer's outputs by name."""
    tensors = []
    for name, value in inputs.items():
        tensor = InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
        tensors.append(tensor.set_data_from_numpy(value))
    with InferenceServerClient(address) as client:
        answer = client.infer(model, tensors, client_timeout=60)
    return {output.name: answer.as_numpy(output.name) for output in answer.get_response().outputs}


ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(scope="session")
def onnx_graph() -> Callable[..., onnx.ModelProto]:
    return graph


@pytest.fixture(scope="session")
def onnx_scale() -> Callable[..., onnx.ModelProto]:
    return scale


@pytest.fixture(scope="session")
def put_entry() -> Callable[..., Path]:
    return put


@pytest.fixture(scope="session")
def infer() -> Callable[..., dict[str, Any]]:
    return ask


@pytest.fixture(scope="session")
def scale_config() -> str:
    return SCALE_CONFIG


@pytest.fixture(scope="session")
def batched_config() -> str:
    return BATCHED_CONFIG


@pytest.fixture(scope="session")
def rows() -> NDArray[np.float32]:
    """Two rows for the models that :func:`scale` makes."""
    return ROWS


@pytest.fixture(scope="session")
def open_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that :func:`triton` serves; each test puts models of its own names there."""
    return tmp_path_factory.mktemp("open")


@pytest.fixture(scope="session")
def triton(open_repository: Path) -> Iterator[EmbeddedTriton]:
    """A server in explicit control."""
    with EmbeddedTriton(open_repository, model_control="explicit") as server:
        yield server
