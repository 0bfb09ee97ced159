"""What a graph file says of itself and how ONNX Runtime sees it, of files that anybody may have written."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import TensorProto

from gravswell.errors import ExportError
from gravswell.quiver.datatypes import from_runtime
from gravswell.quiver.exporters.base import described
from gravswell.quiver.exporters.graph import tensors
from gravswell.quiver.exporters.proof import open_session
from gravswell.quiver.manifest import TensorRecord


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """A graph's own account of itself. Without tensors where it could not be loaded, for one of the last three."""

    inputs: tuple[TensorRecord, ...] = ()
    outputs: tuple[TensorRecord, ...] = ()
    optional: frozenset[str] = frozenset()
    """Inputs with a value of their own, which a request may leave out."""
    opsets: Mapping[str, int] = field(default_factory=dict)
    """Opset by domain; ONNX's own domain is ``""``."""
    ir_version: int = 0
    unservable: Mapping[str, str] = field(default_factory=dict)
    """Tensors that no Triton tensor can hold, and their types."""
    outside: Mapping[str, str] = field(default_factory=dict)
    """Tensors whose data lies outside the version's folder, and where."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Tensors whose data file is not there, and its name."""
    error: str | None = None
    """Why ONNX Runtime, or ONNX, does not read it."""


def inspect_graph(path: Path) -> GraphFacts:
    """Look at the ONNX file ``path``. Nothing is raised for what is wrong with it: that is told in the facts."""
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # noqa: BLE001 - protobuf's DecodeError, or whatever a damaged file provokes
        return GraphFacts(error=described(error))
    outside, missing = external_data(proto, path)
    facts = GraphFacts(
        opsets={"" if o.domain == "ai.onnx" else o.domain: int(o.version) for o in proto.opset_import},
        ir_version=int(proto.ir_version),
        outside=outside,
        missing=missing,
    )
    if outside or missing:
        return facts
    try:
        session = open_session(path)
    except ExportError as error:
        return replace(facts, error=described(error))
    initializers = session.get_overridable_initializers()
    inputs, outputs = [*session.get_inputs(), *initializers], session.get_outputs()
    return replace(
        facts,
        inputs=_records(inputs),
        outputs=_records(outputs),
        optional=frozenset(node.name for node in initializers),
        unservable={node.name: node.type for node in (*inputs, *outputs) if from_runtime(node.type) is None},
    )


def external_data(proto: onnx.ModelProto, path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Tensors of the graph in the file ``path`` whose data lies outside its folder, and whose data is not there.

    Outside is an absolute path, one that climbs (``..``), and a link, wherever it leads: a crafted model would have
    whoever loads or publishes it read any file of that machine.
    """
    outside: dict[str, str] = {}
    missing: dict[str, str] = {}
    folder = path.parent.resolve()
    for tensor in tensors(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        parts = Path(location).parts
        target = folder / location
        if not location or target.resolve() != target or ".." in parts or Path(location).is_absolute():
            outside[tensor.name] = location
        elif not target.is_file():
            missing[tensor.name] = location
    return outside, missing


def data_files(path: Path) -> set[str]:
    """The files, relative to the folder of the ONNX file ``path``, in which it keeps data of its tensors."""
    proto = onnx.load(str(path), load_external_data=False)
    return {
        Path(entry.value).as_posix()
        for tensor in tensors(proto)
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _records(nodes: list[ort.NodeArg]) -> tuple[TensorRecord, ...]:
    return tuple(
        TensorRecord(
            name=node.name,
            data_type=data_type,
            dims=tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape),
        )
        for node in nodes
        if (data_type := from_runtime(node.type)) is not None
    )
