"""What is done to every ONNX graph before it is published: age limits and private metadata; and walks through it."""

from collections.abc import Iterator
from typing import Any

from onnx import ModelProto, TensorProto, inliner, version_converter

from gravswell.errors import ExportError
from gravswell.quiver.exporters.base import described
from gravswell.targets import Target

_FUNCTIONS_SINCE = 8
"""The IR version from which on a graph may bring functions of its own."""


def default_opset(proto: ModelProto) -> int:
    """The opset of ONNX's own operators."""
    return next((int(o.version) for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)


def fit_for_serving(proto: ModelProto, target: Target) -> tuple[ModelProto, bool]:
    """The graph in an opset and IR version that ``target`` takes, and whether it was changed.

    The caller's object stays as it is. What comes out is to be proved: converters are known to err. ExportError, naming
    the target and what it takes, where nothing brings the graph down.
    """
    fitted = proto
    _check_opsets(proto, target)
    opset = default_opset(proto)
    if target.ir_version < _FUNCTIONS_SINCE and proto.functions:
        fitted = inliner.inline_local_functions(fitted)
    if opset > target.opset:
        try:
            fitted = version_converter.convert_version(fitted, target.opset)
        except Exception as error:  # the converter raises what its C++ raises
            raise ExportError(
                f"the graph is in opset {opset}, {target} takes up to {target.opset}, and ONNX cannot convert it "
                f"({described(error)}): export it with opset {target.opset} or older, or for a newer target"
            ) from error
    if fitted.ir_version > target.ir_version:
        if fitted is proto:
            fitted = ModelProto()
            fitted.CopyFrom(proto)
        fitted.ir_version = target.ir_version  # the proof in ONNX Runtime shows whether anything else newer was used
    return fitted, fitted is not proto


def _check_opsets(proto: ModelProto, target: Target) -> None:
    """Refuse what no converter brings down: newer operators of ``ai.onnx.ml``, and newer ones of any in a function."""
    imports = [("the graph", o) for o in proto.opset_import if o.domain == "ai.onnx.ml"]
    imports += [(f"function {f.name!r} of the graph", o) for f in proto.functions for o in f.opset_import]
    for what, imported in imports:
        limit = target.limit(imported.domain)
        if limit is not None and imported.version > limit:
            raise ExportError(
                f"{what} is in opset {imported.version} of {imported.domain or 'ai.onnx'}, {target} takes up to "
                f"{limit}: export it with opset {limit} or older, or for a newer target"
            )


def strip_sources(proto: ModelProto) -> None:
    """Drop the notes that exporters write into nodes: they hold source paths, so digests would differ by machine."""
    for graph in graphs(proto):
        del graph.metadata_props[:]
        graph.doc_string = ""
        for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
            _strip(part)
    for function in proto.functions:
        _strip(function)
        for part in (*function.node, *function.value_info):
            _strip(part)
    proto.doc_string = ""


def _strip(part: Any) -> None:
    part.doc_string = ""
    del part.metadata_props[:]


def graphs(proto: ModelProto) -> Iterator[Any]:
    """The graph, and every graph inside it and inside its functions."""
    pending = [proto.graph]
    nodes = [node for function in proto.functions for node in function.node]
    while pending or nodes:
        if pending:
            graph = pending.pop()
            yield graph
            nodes.extend(graph.node)
            continue
        pending.extend(inner_graphs(nodes.pop()))


def inner_graphs(node: Any) -> Iterator[Any]:
    """The graphs that a node holds itself, such as the branches of an ``If``."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def every_node(proto: ModelProto) -> Iterator[Any]:
    """The nodes of the graph, of every graph inside it, and of its functions."""
    for part in (*graphs(proto), *proto.functions):
        yield from part.node


def tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every tensor that the graph, its subgraphs and its functions hold."""
    for graph in graphs(proto):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield sparse.values
            yield sparse.indices
        for node in graph.node:
            yield from _attribute_tensors(node)
    for function in proto.functions:
        for node in function.node:
            yield from _attribute_tensors(node)


def _attribute_tensors(node: Any) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        yield from attribute.tensors
        if attribute.HasField("t"):
            yield attribute.t
