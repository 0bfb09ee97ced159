"""What models have in common: whole models that are copies, and weights. Both are told by content, never by name."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from gravswell.quiver.exporters.fused.singles import Single
from gravswell.quiver.exporters.weights import LEAST, is_external, span_of

Content = tuple[int, tuple[int, ...], str]
"""Of a tensor: type, shape and sha256 of its values."""


def lift_constants(proto: ModelProto) -> ModelProto:
    """The graph with the large tensors that stand in nodes as initializers, where weights are looked for."""
    if not any(_is_weight(node) for node in proto.graph.node):
        return proto
    lifted = ModelProto()
    lifted.CopyFrom(proto)
    kept = [node for node in lifted.graph.node if not _is_weight(node)]
    for node in lifted.graph.node:
        if _is_weight(node):
            tensor = lifted.graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del lifted.graph.node[:]
    lifted.graph.node.extend(nodes)
    return lifted


def _is_weight(node: onnx.NodeProto) -> bool:
    return (
        node.op_type == "Constant"
        and len(node.attribute) == 1
        and node.attribute[0].name == "value"
        and node.attribute[0].t.ByteSize() >= LEAST
    )


def contents(proto: ModelProto, path: Path) -> dict[str, Content]:
    """The content of each initializer of the graph, by its name."""
    return {tensor.name: content(tensor, path) for tensor in proto.graph.initializer}


def content(tensor: TensorProto, path: Path) -> Content:
    """The content of one tensor of the file ``path``."""
    sha256 = hashlib.sha256()
    if is_external(tensor):
        for chunk in span_of(tensor, path).chunks():
            sha256.update(chunk)
    elif tensor.data_type == TensorProto.STRING:
        for text in tensor.string_data:
            sha256.update(len(text).to_bytes(8, "little") + text)
    elif tensor.HasField("raw_data"):
        sha256.update(tensor.raw_data)
    else:
        sha256.update(numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data)
    return tensor.data_type, tuple(tensor.dims), sha256.hexdigest()


def copies(
    models: Sequence[Single], protos: Sequence[ModelProto], weights: Sequence[Mapping[str, Content]]
) -> list[int]:
    """For each model the index of the first one that computes the same from the same: it stands in the graph once."""
    first: dict[str, int] = {}
    return [
        first.setdefault(_digest(model, proto, held), index)
        for index, (model, proto, held) in enumerate(zip(models, protos, weights, strict=True))
    ]


def _digest(model: Single, proto: ModelProto, weights: Mapping[str, Content]) -> str:
    """The same for graphs that differ in nothing but names of files and graphs, and are called the same by a fusion."""
    bare = onnx.GraphProto(
        node=proto.graph.node,
        input=proto.graph.input,
        output=proto.graph.output,
        sparse_initializer=proto.graph.sparse_initializer,
    )
    names = [[(t.own, t.name) for t in side] for side in (model.inputs, model.outputs)]
    said = json.dumps([names, sorted(weights.items())])
    return hashlib.sha256(bare.SerializeToString(deterministic=True) + said.encode()).hexdigest()


def shared(weights: Sequence[Mapping[str, Content]]) -> set[Content]:
    """The contents, of :data:`LEAST` bytes or more, that more than one model has."""
    count = Counter(key for held in weights for key in set(held.values()))
    return {key for key, models in count.items() if models > 1 and _bytes(key) >= LEAST}


def _bytes(key: Content) -> int:
    data_type, dims, _ = key
    if data_type == TensorProto.STRING:
        return 0
    return math.prod(dims) * helper.tensor_dtype_to_np_dtype(data_type).itemsize
