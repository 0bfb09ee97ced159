"""What is done to every ONNX graph before it is published: age limits, private metadata, external data, writing."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, TensorProto, external_data_helper, inliner, version_converter

from gravswell.errors import ExportError, InvalidInputError, NotFoundError
from gravswell.quiver.exporters.base import described
from gravswell.quiver.manifest import MODEL_FILE
from gravswell.quiver.targets import DEFAULT_TARGET, Target

_FUNCTIONS_SINCE = 8
"""The IR version from which on a graph may bring functions of its own."""

INLINE_LIMIT = 2**31 - 2**24
"""Bytes of tensors up to which a model is one file. protobuf ends at 2 GiB; the graph itself takes the rest."""

DATA_FILE = f"{MODEL_FILE}.data"


def default_opset(proto: ModelProto) -> int:
    """The opset of ONNX's own operators."""
    return next((int(o.version) for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)


def fit_for_serving(proto: ModelProto, target: Target = DEFAULT_TARGET) -> tuple[ModelProto, bool]:
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
        for attribute in nodes.pop().attribute:
            pending.extend(attribute.graphs)
            if attribute.HasField("g"):
                pending.append(attribute.g)


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


def _external(proto: ModelProto) -> dict[str, str]:
    """Name of each tensor whose data lies in another file, and that file."""
    return {
        tensor.name: next((e.value for e in tensor.external_data if e.key == "location"), "")
        for tensor in tensors(proto)
        if tensor.data_location == TensorProto.EXTERNAL
    }


def load(path: Path) -> tuple[ModelProto, bool]:
    """Read an ONNX file, data files beside it included, and say whether there were any.

    A data file outside the model's own folder is refused: a crafted model would publish any file of this machine.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # noqa: BLE001 - protobuf's DecodeError, or whatever a damaged file provokes
        raise InvalidInputError(f"{path} is no ONNX model: {described(error)}") from None
    if not proto.graph.node and not proto.graph.output:
        raise InvalidInputError(f"{path} is no ONNX model: it holds no graph")
    external = _external(proto)
    folder = path.parent.resolve()
    for tensor, location in external.items():
        target = folder / location
        inside = target.resolve().is_relative_to(folder) and not target.is_symlink()
        if not location or os.path.isabs(location) or ".." in Path(location).parts or not inside:  # noqa: PTH117 - text
            raise InvalidInputError(
                f"{path}: tensor {tensor!r} keeps its data in {location!r}, outside the model's folder; "
                f"save the model with its data beside it"
            )
        if not target.is_file():
            raise NotFoundError(f"{path}: tensor {tensor!r} keeps its data in {location!r}, which is not there")
    if external:
        external_data_helper.load_external_data_for_model(proto, str(folder))
    return proto, bool(external)


def check_in_memory(proto: ModelProto) -> None:
    """Refuse a ``ModelProto`` whose data lies in files that we cannot know."""
    external = _external(proto)
    if external:
        tensor, location = next(iter(external.items()))
        raise InvalidInputError(
            f"tensor {tensor!r} of the ModelProto keeps its data in {location!r}: "
            f"give the path of the model file instead, or load it with its external data"
        )


def write(proto: ModelProto, folder: Path) -> Path:
    """Write ``model.onnx``, in one file below :data:`INLINE_LIMIT`, else with ``model.onnx.data`` beside it."""
    path = folder / MODEL_FILE
    size = sum(len(tensor.raw_data) for tensor in tensors(proto))
    if size < INLINE_LIMIT:
        path.write_bytes(proto.SerializeToString(deterministic=True))
    else:
        onnx.save_model(proto, str(path), save_as_external_data=True, location=DATA_FILE, size_threshold=1024)
    return path
