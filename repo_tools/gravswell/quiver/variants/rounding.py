"""What a float16 graph answers where it is computed in float16.

ONNX Runtime's CPU computes such a graph in float32 and leaves out the casts in between, so that only the weights'
rounding would be measured, and a value beyond 65504 would go unseen until a GPU answers with infinities. Here every
operator's result is rounded to float16, as a GPU's kernels do that add up in float32.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper

from gravswell.errors import ExportError
from gravswell.quiver.exporters import files
from gravswell.quiver.exporters.base import described
from gravswell.quiver.exporters.proof import cpu_session


def rounding_session(
    proto: ModelProto, converted: ModelProto, folder: Path, exempt: Collection[str]
) -> ort.InferenceSession:
    """A session of ``proto`` with the weights of ``converted`` and every float32 result rounded to float16.

    ``proto``: with the types of its values, and changed for this.
    ``exempt``: operators that stay in float32. The file that it needs goes into ``folder``. ExportError where it
    cannot be made.
    """
    halves = {t.name: t for t in converted.graph.initializer if t.data_type == TensorProto.FLOAT16}
    for tensor in proto.graph.initializer:
        if tensor.name in halves and tensor.data_type == TensorProto.FLOAT:
            rounded = numpy_helper.to_array(halves[tensor.name]).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    stated = (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)
    floats = {info.name for info in stated if info.type.tensor_type.elem_type == TensorProto.FLOAT}
    nodes: list[Any] = []
    taken = {}
    for info in proto.graph.input:
        if info.name in floats:
            taken[info.name] = f"{info.name}/rounded"
            nodes += _rounded(info.name, taken[info.name])
    for node in proto.graph.node:
        node.input[:] = [taken.get(name, name) for name in node.input]
        results = [name for name in node.output if name in floats and node.op_type not in exempt]
        node.output[:] = [f"{name}/exact" if name in results else name for name in node.output]
        nodes.append(node)
        for name in results:
            nodes += _rounded(f"{name}/exact", name)
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    path = files.write(proto, folder, None)
    try:
        return cpu_session(str(path), as_written=True)  # or the casts would be left out
    except Exception as error:  # ONNX Runtime's own errors share no base
        raise ExportError(
            f"ONNX Runtime {ort.__version__} does not run the graph rounded to float16 ({described(error)}), so its "
            f"error cannot be measured: serve it as it is"
        ) from error


def _rounded(name: str, to: str) -> list[Any]:
    half = f"{to}/half"
    return [
        helper.make_node("Cast", [name], [half], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [to], to=TensorProto.FLOAT),
    ]
