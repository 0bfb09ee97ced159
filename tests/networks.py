"""Small ONNX networks with weights worth converting."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

FEATURES = 16


def classifier(hidden: int = 64, classes: int = 4, *, transposed: bool = False, seed: int = 0) -> ModelProto:
    """``label``, ``scores`` of rows ``x`` of 16 features: two dense layers and a softmax."""
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((FEATURES, hidden)).astype(np.float32) / 4
    second = rng.standard_normal((hidden, classes)).astype(np.float32) / 4
    weights = {
        "w1": first.T.copy() if transposed else first,
        "b1": rng.standard_normal(hidden).astype(np.float32),
        "w2": second.T.copy() if transposed else second,
        "b2": rng.standard_normal((1, classes)).astype(np.float32),  # as skl2onnx writes a bias
    }
    how = {"transB": int(transposed)}
    return model(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h1"], **how),
            helper.make_node("Relu", ["h1"], ["r1"]),
            helper.make_node("Gemm", ["r1", "w2", "b2"], ["h2"], **how),
            helper.make_node("Softmax", ["h2"], ["scores"], axis=1),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        ],
        [("x", TensorProto.FLOAT, ["rows", FEATURES])],
        [("label", TensorProto.INT64, ["rows"]), ("scores", TensorProto.FLOAT, ["rows", classes])],
        weights,
    )


def convolution(opset: int = 17) -> ModelProto:
    """``y`` of images ``x`` of three channels and 8 by 8 pixels: one convolution."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    image: list[Any] = ["rows", 3, 8, 8]
    return model(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        [("x", TensorProto.FLOAT, image)],
        [("y", TensorProto.FLOAT, ["rows", 4, 8, 8])],
        {"w": weight},
        opset=opset,
    )


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    weights: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    domains: Mapping[str, int] | None = None,
) -> ModelProto:
    """Those nodes as a model that every Triton of today takes; ``domains``: versions of others than ONNX's own."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in {"": opset, **(domains or {})}.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)
