"""Small models that take sequences."""

import onnx
from onnx import TensorProto, helper

START = {
    "name": "start",
    "control": [{"kind": "CONTROL_SEQUENCE_START", "fp32_false_true": [0.0, 1.0]}],
}
"""The graph is told by 1 that a sequence begins."""

STATE = {"input_name": "before", "output_name": "after", "data_type": "TYPE_FP32", "dims": [2]}


def beginning_told() -> onnx.ModelProto:
    """``y = x + 100 * start``: every row of shape (2,), the first request of a sequence told by 100."""
    nodes = [
        helper.make_node("Mul", ["start", "hundred"], ["told"]),
        helper.make_node("Add", ["x", "told"], ["y"]),
    ]
    inputs = [_tensor("x", 2), _tensor("start", 1)]
    return _model(nodes, inputs, [_tensor("y", 2)], [helper.make_tensor("hundred", TensorProto.FLOAT, [], [100.0])])


def running_sum() -> onnx.ModelProto:
    """``y = before + x``, which is the next request's ``before``."""
    nodes = [helper.make_node("Add", ["before", "x"], ["y"]), helper.make_node("Identity", ["y"], ["after"])]
    return _model(nodes, [_tensor("x", 2), _tensor("before", 2)], [_tensor("y", 2), _tensor("after", 2)])


def _tensor(name: str, width: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
