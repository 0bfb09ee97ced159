"""A graph in float16 or in 8-bit integers, by the converters that come with ONNX Runtime."""

import logging
import math
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import onnx
import onnx.inliner
import onnxruntime as ort
from onnx import ModelProto, TensorProto

from gravswell.errors import ExportError, InvalidInputError
from gravswell.quiver.exporters import files, graph
from gravswell.quiver.exporters.base import Inputs, described
from gravswell.quiver.exporters.files import INLINE_LIMIT

Kind = Literal["fp16", "int8"]

DYNAMIC_OPS = ("MatMul", "Gather", "Attention", "LSTM", "EmbedLayerNormalization")
"""Whose weights become 8-bit without calibration; Gemm goes as MatMul. Not Conv: ONNX Runtime's ConvInteger is slower
than its float32 convolution."""

STATIC_OPS = (
    *("Conv", "Gemm", "MatMul", "Gather"),
    # They let 8-bit values through: without them every one of them would be a float32 island between two others.
    *("Relu", "Clip", "Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"),
)
"""What is computed in 8 bits with calibration. Not Softmax, LayerNormalization and the like: there 8 bits cost much
accuracy and save nothing."""

CHANNELS_SINCE = 13
"""Opset from which DequantizeLinear takes a scale for each channel; older graphs get one for each weight."""

_NARROW = {"fp16": (TensorProto.FLOAT16,), "int8": (TensorProto.INT8, TensorProto.UINT8)}
_WEIGHTED = frozenset({*DYNAMIC_OPS, "Gemm"})


_INTEGER_OPS = """
    ConvInteger DequantizeLinear DynamicQuantizeLSTM DynamicQuantizeLinear DynamicQuantizeMatMul MatMulInteger
    MatMulIntegerToFloat MatMulNBits QAttention QEmbedLayerNormalization QGemm QLinearAdd QLinearConv QLinearMatMul
    QuantizeLinear
"""

_QUANTIZED = frozenset(_INTEGER_OPS.split())
"""Operators of graphs that were quantized."""


@dataclass(frozen=True, slots=True)
class Converted:
    """A graph of lower precision."""

    proto: ModelProto
    source: Path | None
    """The file that its weights are in; None where they are in ``proto``."""
    method: str
    """How it was made, in words."""


class _Quiet(logging.Filter):
    """Drops what this thread logs below an error, and nothing of another's."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or record.thread != self._thread


def convert(kind: Kind, path: Path, batches: Sequence[Inputs], folder: Path) -> Converted:
    """The graph in the file ``path`` as ``kind``; int8 goes from file to file, in ``folder``, as far as we have a hand.

    ``batches`` calibrate int8: the ranges of all values between the layers are measured on them; without any, only
    weights are stored in 8 bits and ranges are taken from each request. Inputs and outputs stay as they are.
    Raises InvalidInputError where there is nothing in the graph to convert, ExportError where it cannot be.
    """
    original = files.load(path)
    _require_floats(original, kind)
    if kind == "int8":
        _require_takers(original, calibrated=bool(batches))
    with _told(kind), _tools_folder():
        if kind == "fp16":
            made = Converted(_to_fp16(path), None, "float16 weights and activations")
        else:
            source = _to_int8(path, graph.default_opset(original), folder, batches)
            made = Converted(files.load(source), source, "static, QDQ" if batches else "dynamic")
    if _narrow(made.proto, kind) <= _narrow(original, kind):
        raise _nothing(original, kind, "float32 weights of two or more dimensions")
    for side in ("input", "output"):  # a converter's shape inference may have renamed dims
        stated = getattr(made.proto.graph, side)
        del stated[:]
        stated.extend(getattr(original.graph, side))
    _keep_used_domains(made.proto)
    graph.strip_sources(made.proto)
    return made


def shaped(path: Path) -> ModelProto:
    """The graph in the file ``path`` with the types and shapes of all its values, and below 2 GiB without functions.

    One above that can be inferred only from file to file; the file goes beside it, where its data is.
    """
    if not _is_large(path):
        return onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(onnx.load(str(path))))
    inferred = path.with_name(".shaped.onnx")
    onnx.shape_inference.infer_shapes_path(str(path), str(inferred))
    return onnx.load(str(inferred))


def _is_large(path: Path) -> bool:
    return sum(file.stat().st_size for file in path.parent.iterdir()) >= INLINE_LIMIT


def _to_fp16(path: Path) -> ModelProto:
    """Inputs and outputs stay float32; operators without a float16 form keep it too, with casts around them."""
    converted: ModelProto = import_module("onnxruntime.transformers.float16").convert_float_to_float16(
        shaped(path), keep_io_types=True, disable_shape_infer=True
    )
    _sort(converted.graph)
    return converted


def float32_only() -> frozenset[str]:
    """Operators that stay in float32 in a graph of float16."""
    with _tools_folder():
        return frozenset(import_module("onnxruntime.transformers.float16").DEFAULT_OP_BLOCK_LIST)


def _to_int8(path: Path, opset: int, folder: Path, batches: Sequence[Inputs]) -> Path:
    """The file that is made. Weights in 7 of the 8 bits: no processor's 16-bit sums overflow, so all agree.

    Without that, x86 processors that lack VNNI saturate, and answer otherwise than those that have it.
    """
    tools = import_module("onnxruntime.quantization")
    large, made = _is_large(path), folder / "made.onnx"
    prepared = folder / "prepared" / "model.onnx"
    prepared.parent.mkdir()
    tools.quant_pre_process(
        str(path),
        str(prepared),
        skip_symbolic_shape=True,  # needs sympy, and helps only where ranks are unknown
        save_as_external_data=large,
        all_tensors_to_one_file=True,
    )
    mended = _mended(prepared, folder / "mended")
    shutil.rmtree(prepared.parent)
    if batches:
        tools.quantize_static(
            str(mended),
            str(made),
            _Reader(batches),
            op_types_to_quantize=list(STATIC_OPS),
            per_channel=opset >= CHANNELS_SINCE,
            reduce_range=True,
            use_external_data_format=large,
        )
    else:
        tools.quantize_dynamic(
            str(mended),
            str(made),
            op_types_to_quantize=list(DYNAMIC_OPS),
            per_channel=True,
            reduce_range=True,
            use_external_data_format=large,
        )
    return made


def _mended(path: Path, folder: Path) -> Path:
    """The graph without two forms that ONNX allows and ONNX Runtime's quantizer stumbles over, in ``folder``."""
    proto = files.load(path)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    # It transposes a Gemm's weight, and not what is said of its shape.
    said = [info for info in proto.graph.value_info if info.name not in weights]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(said)
    # It takes a Gemm's bias for a row of channels, also where it is a matrix of one row.
    biases = [node.input[2] for node in proto.graph.node if node.op_type == "Gemm" and len(node.input) > 2]
    read = Counter(name for g in graph.graphs(proto) for node in g.node for name in node.input)
    for name in biases:
        bias = weights.get(name)
        if bias is not None and len(bias.dims) == 2 and bias.dims[0] == 1 and read[name] == 1:
            del bias.dims[0]
    folder.mkdir()
    return files.write(proto, folder, path)


class _Reader:
    """ONNX Runtime's calibration protocol: batches one after another, then None."""

    def __init__(self, batches: Sequence[Inputs]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Inputs | None:
        return next(self._batches, None)


@contextmanager
def _told(kind: Kind) -> Iterator[None]:
    """Whatever the converters raise as one ExportError, and without the advice that they log for their own users."""
    quiet, root = _Quiet(), logging.getLogger()
    root.addFilter(quiet)
    try:
        yield
    except (ExportError, InvalidInputError):
        raise
    except Exception as error:  # they raise whatever they like
        raise ExportError(
            f"ONNX Runtime {ort.__version__} cannot convert the graph to {kind}: {described(error)}; "
            f"serve it as it is, or convert it where it comes from"
        ) from error
    finally:
        root.removeFilter(quiet)


@contextmanager
def _tools_folder() -> Iterator[None]:
    """ONNX Runtime's tools import one another by bare names, and would leave their folder on the path for everybody."""
    folder = str(Path(ort.__file__).parent / "transformers")
    before = list(sys.path)
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path[:] = [entry for entry in sys.path if entry != folder or entry in before]


def _narrow(proto: ModelProto, kind: Kind) -> int:
    """Weights in tensors of two or more dimensions of the types that ``kind`` brings."""
    return sum(
        math.prod(tensor.dims)
        for tensor in graph.tensors(proto)
        if tensor.data_type in _NARROW[kind] and len(tensor.dims) > 1
    )


def _require_floats(proto: ModelProto, kind: Kind) -> None:
    """InvalidInputError for a graph that somebody quantized: the converters take its 8-bit operators for others."""
    quantized = {node.op_type for node in graph.every_node(proto)} & _QUANTIZED
    if quantized and _narrow(proto, "int8"):
        raise InvalidInputError(
            f"the graph is quantized already ({', '.join(sorted(quantized))}), and is not converted to {kind}: give "
            f"the float32 model that it was made of, or serve it as it is"
        )


def _require_takers(proto: ModelProto, *, calibrated: bool) -> None:
    """InvalidInputError where no operator has weights that int8 takes; the converters say it in words of their own."""
    kinds = {node.op_type for node in graph.every_node(proto)}
    if kinds & _WEIGHTED or (calibrated and "Conv" in kinds):
        return
    calibrate = "; Conv needs calibration data (--calibration FILE.npz)" if "Conv" in kinds else ""
    raise _nothing(proto, "int8", f"the weights of {', '.join(sorted(_WEIGHTED))}{calibrate}")


def _nothing(proto: ModelProto, kind: Kind, takes: str) -> InvalidInputError:
    kinds = ", ".join(sorted({node.op_type for node in proto.graph.node}))
    return InvalidInputError(
        f"there is nothing in the graph to convert to {kind}, which takes {takes}; its operators: {kinds}"
    )


def _keep_used_domains(proto: ModelProto) -> None:
    """ONNX Runtime states every domain that it knows, in its newest version, which older ones refuse."""
    used = {node.domain for node in graph.every_node(proto)}
    kept = [o for o in proto.opset_import if o.domain in used or o.domain in ("", "ai.onnx")]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)


def _sort(g: Any) -> None:
    """Nodes after those that they depend on, as ONNX demands and the float16 converter leaves to its readers."""
    made = {name: i for i, node in enumerate(g.node) for name in node.output if name}
    needs = {i: {made[name] for name in _reads(node) if name in made} - {i} for i, node in enumerate(g.node)}
    nodes = [g.node[i] for i in TopologicalSorter(needs).static_order()]
    ordered = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del g.node[:]
    g.node.extend(ordered)


def _reads(node: Any) -> set[str]:
    """The names that a node reads, in its subgraphs too."""
    names = set(node.input)
    for inner in graph.inner_graphs(node):
        names.update(output.name for output in inner.output)
        names.update(*(_reads(part) for part in inner.node))
    return names
