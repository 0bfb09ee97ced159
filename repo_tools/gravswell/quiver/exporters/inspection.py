"""What a graph file says of itself and how ONNX Runtime sees it, of files that anybody may have written."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnxruntime as ort

from gravswell.errors import ExportError
from gravswell.quiver.datatypes import from_runtime
from gravswell.quiver.exporters.base import described
from gravswell.quiver.exporters.proof import as_record, open_session
from gravswell.quiver.exporters.weights import faults, skim
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
        proto = skim(path)
    except Exception as error:  # noqa: BLE001 - protobuf's DecodeError, or whatever a damaged file provokes
        return GraphFacts(error=described(error))
    outside, missing = faults(proto, path)
    facts = GraphFacts(
        opsets={"" if o.domain == "ai.onnx" else o.domain: int(o.version) for o in proto.opset_import},
        ir_version=int(proto.ir_version),
        outside=outside,
        missing=missing,
    )
    if outside or missing:
        return facts
    try:
        session = open_session(path, mapped=True)
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


def _records(nodes: list[ort.NodeArg]) -> tuple[TensorRecord, ...]:
    return tuple(record for node in nodes if (record := as_record(node)) is not None)
