"""Which integers an ONNX graph takes, as far as it says so itself: an index ends where its table does."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, shape_inference

_INTEGERS = {TensorProto.INT64, TensorProto.INT32, TensorProto.INT16, TensorProto.INT8}
_INTEGERS |= {TensorProto.UINT64, TensorProto.UINT32, TensorProto.UINT16, TensorProto.UINT8}

_SAME_VALUES = {"Cast", "Identity", "Slice", "Tile", "Expand"}
_SAME_VALUES |= {"Reshape", "Unsqueeze", "Squeeze", "Transpose", "Flatten"}
"""Operators whose result holds values of their first input, and no others."""

_LOOKUPS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "Gather": ((1, 0),),
    "GatherElements": ((1, 0),),
    "EmbedLayerNormalization": ((0, 2), (1, 4), (8, 3)),
}
"""Of operators that look something up: each input that is an index, and the input that it is one of."""


def integer_inputs(graph: GraphProto) -> list[str]:
    """The names of the graph's inputs that are integers."""
    own = {tensor.name for tensor in graph.initializer}
    return [i.name for i in graph.input if i.type.tensor_type.elem_type in _INTEGERS and i.name not in own]


def index_bounds(proto: ModelProto) -> dict[str, int | None]:
    """For the graph's inputs that are indices, as token ids are: the length of their table, the smallest of several.

    None where no length is stated. They are followed through operators that keep their values, not into subgraphs and
    functions.
    """
    graph = proto.graph
    sizes = _sizes(proto)
    takers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            takers[name].append(node)
    found = {name: list(_lengths(name, takers, sizes)) for name in integer_inputs(graph)}
    return {
        name: min((length for length in lengths if length is not None), default=None)
        for name, lengths in found.items()
        if lengths
    }


def _sizes(proto: ModelProto) -> dict[str, tuple[int, ...]]:
    """The shape of every value of which each dim is known."""
    try:
        graph = shape_inference.infer_shapes(proto).graph
    except shape_inference.InferenceError:  # of operators that ONNX does not know as ONNX Runtime does
        graph = proto.graph
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in graph.value_info:
        dims = value.type.tensor_type.shape.dim
        if dims and all(dim.HasField("dim_value") for dim in dims):
            sizes.setdefault(value.name, tuple(dim.dim_value for dim in dims))
    return sizes


def _lengths(
    name: str, takers: Mapping[str, list[NodeProto]], sizes: Mapping[str, tuple[int, ...]]
) -> Iterator[int | None]:
    pending, seen = [name], {name}
    while pending:
        value = pending.pop()
        for node in takers.get(value, ()):
            for index, table in _LOOKUPS.get(node.op_type, ()):
                if len(node.input) > max(index, table) and node.input[index] == value:
                    size = sizes.get(node.input[table], ())
                    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 0)
                    yield size[axis] if -len(size) <= axis < len(size) else None
            if node.op_type in _SAME_VALUES and node.input[0] == value and node.output[0] not in seen:
                seen.add(node.output[0])
                pending.append(node.output[0])
