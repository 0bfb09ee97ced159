"""Which integers an ONNX graph takes, as far as it says so itself: an index ends where its table does."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_INTEGERS = {TensorProto.INT64, TensorProto.INT32, TensorProto.INT16, TensorProto.INT8}
_INTEGERS |= {TensorProto.UINT64, TensorProto.UINT32, TensorProto.UINT16, TensorProto.UINT8}

_SAME_VALUES = {
    "Cast",
    "Identity",
    "Reshape",
    "Unsqueeze",
    "Squeeze",
    "Transpose",
    "Flatten",
    "Expand",
    "Tile",
    "Slice",
}
"""Operators whose result holds values of their first input, and no others."""

_SAME_ROWS = {"Cast", "Identity", "DequantizeLinear"}
"""Operators whose result is as long as their first input."""

_LOOKUPS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "Gather": ((1, 0),),
    "GatherElements": ((1, 0),),
    "EmbedLayerNormalization": ((0, 2), (1, 4), (8, 3)),
}
"""Of operators that look something up: each input that is an index, and the input that it is one of."""


def index_bounds(proto: ModelProto) -> dict[str, int]:
    """For the graph's inputs that are indices of tables of fixed length, as token ids are: that length, the smallest.

    They are followed through operators that keep their values, not into subgraphs and functions.
    """
    graph = proto.graph
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    takers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            takers[name].append(node)
        if node.op_type == "Constant":
            values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
            sizes |= {name: tuple(tensor.dims) for name, tensor in zip(node.output, values, strict=False)}
        elif node.op_type in _SAME_ROWS and node.input[0] in sizes:  # nodes stand in the order of their computation
            sizes[node.output[0]] = sizes[node.input[0]]
    found = {name: list(_lengths(name, takers, sizes)) for name in integer_inputs(graph)}
    return {name: min(lengths) for name, lengths in found.items() if lengths}


def integer_inputs(graph: GraphProto) -> list[str]:
    """The names of the graph's inputs that are integers."""
    own = {tensor.name for tensor in graph.initializer}
    return [i.name for i in graph.input if i.type.tensor_type.elem_type in _INTEGERS and i.name not in own]


def _lengths(name: str, takers: Mapping[str, list[NodeProto]], sizes: Mapping[str, tuple[int, ...]]) -> Iterator[int]:
    pending, seen = [name], {name}
    while pending:
        value = pending.pop()
        for node in takers.get(value, ()):
            for index, table in _LOOKUPS.get(node.op_type, ()):
                if len(node.input) > max(index, table) and node.input[index] == value:
                    size = sizes.get(node.input[table], ())
                    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 0)
                    if -len(size) <= axis < len(size):
                        yield size[axis]
            if node.op_type in _SAME_VALUES and node.input[0] == value and node.output[0] not in seen:
                seen.add(node.output[0])
                pending.append(node.output[0])
