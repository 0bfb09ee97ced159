"""What differs between two graphs: operators, nodes, notes, and each weight, of which one is in memory at a time."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from gravswell.errors import VerificationError
from gravswell.quiver.exporters.base import described
from gravswell.quiver.exporters.graph import graphs
from gravswell.quiver.exporters.weights import array_of, skim
from gravswell.quiver.golden import Array

_ELEMENTS = 1 << 20


@dataclass(frozen=True, slots=True)
class GraphDifference:
    """From the first graph to the second; empty and equal where nothing differs."""

    opsets: Mapping[str, tuple[int | None, int | None]]
    """By domain, where it differs; ONNX's own domain is ``ai.onnx``."""
    ir_version: tuple[int, int] | None
    operators: Mapping[str, tuple[int, int]]
    """How many nodes there are of each operator whose count differs."""
    nodes_added: tuple[str, ...]
    nodes_removed: tuple[str, ...]
    nodes_changed: tuple[str, ...]
    """Nodes of the same name with another operator, other inputs, outputs or attributes."""
    metadata: Mapping[str, tuple[str | None, str | None]]
    """The model's notes, and who produced it, where they differ."""


@dataclass(frozen=True, slots=True)
class WeightDifference:
    """One initializer. The differences are None where types or shapes differ, for text, and where not all is finite."""

    name: str
    state: Literal["equal", "changed", "added", "removed"]
    data_type: tuple[str | None, str | None]
    shape: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    max_abs: float | None = None
    """Largest absolute difference of an element."""
    relative: float | None = None
    """Euclidean norm of the difference over that of the first; None where that is 0."""


def compare_graphs(first: Path, second: Path) -> tuple[GraphDifference, list[WeightDifference]]:
    """Compare two ONNX files. VerificationError for one that cannot be read."""
    old, new = _load(first), _load(second)
    a, b = _nodes(old), _nodes(new)
    ops = [Counter(node.op_type for graph in graphs(proto) for node in graph.node) for proto in (old, new)]
    opsets = [{o.domain or "ai.onnx": int(o.version) for o in proto.opset_import} for proto in (old, new)]
    notes = [_notes(proto) for proto in (old, new)]
    difference = GraphDifference(
        opsets=_differing(*opsets),
        ir_version=None if old.ir_version == new.ir_version else (int(old.ir_version), int(new.ir_version)),
        operators={op: (ops[0][op], ops[1][op]) for op in sorted(ops[0] | ops[1]) if ops[0][op] != ops[1][op]},
        nodes_added=tuple(name for name in b if name not in a),
        nodes_removed=tuple(name for name in a if name not in b),
        nodes_changed=tuple(name for name in a if name in b and a[name] != b[name]),
        metadata=_differing(*notes),
    )
    return difference, _weights(old, new, first, second)


def no_difference() -> tuple[GraphDifference, list[WeightDifference]]:
    """Between what has no graph."""
    return GraphDifference({}, None, {}, (), (), (), {}), []


def _load(path: Path) -> ModelProto:
    try:
        return skim(path)
    except Exception as error:
        raise VerificationError(f"{path.name} is no ONNX model: {described(error)}") from error


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = sorted(old.keys() | new.keys())
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def _notes(proto: ModelProto) -> dict[str, str]:
    notes = {entry.key: entry.value for entry in proto.metadata_props}
    stated = {"producer": f"{proto.producer_name} {proto.producer_version}".strip(), "domain": proto.domain}
    return {**notes, **{key: value for key, value in stated.items() if value}}


def _nodes(proto: ModelProto) -> dict[str, bytes]:
    """Every node by its name, or what it makes, with its bytes but for notes."""
    found: dict[str, bytes] = {}
    for graph in graphs(proto):
        for node in graph.node:
            plain = onnx.NodeProto()
            plain.CopyFrom(node)
            plain.doc_string = ""
            del plain.metadata_props[:]
            made = next(iter(node.output), "")
            found[f"{node.op_type} {node.name or made}"] = plain.SerializeToString(deterministic=True)
    return found


def _weights(old: ModelProto, new: ModelProto, first: Path, second: Path) -> list[WeightDifference]:
    a = {tensor.name: tensor for tensor in old.graph.initializer}
    b = {tensor.name: tensor for tensor in new.graph.initializer}
    found = []
    for name in (*a, *(name for name in b if name not in a)):
        x, y = a.get(name), b.get(name)
        types = (_type(x), _type(y))
        shapes = (_shape(x), _shape(y))
        if x is None or y is None:
            found.append(WeightDifference(name, "added" if x is None else "removed", types, shapes))
        elif types[0] != types[1] or shapes[0] != shapes[1]:
            found.append(WeightDifference(name, "changed", types, shapes))
        else:
            found.append(_values(name, types, shapes, array_of(x, first), array_of(y, second)))
    return found


def _type(tensor: TensorProto | None) -> str | None:
    return None if tensor is None else str(TensorProto.DataType.Name(tensor.data_type))


def _shape(tensor: TensorProto | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.dims)


def _values(name: str, types: Any, shapes: Any, x: Array, y: Array) -> WeightDifference:
    if x.tobytes() == y.tobytes():
        return WeightDifference(name, "equal", types, shapes, 0.0, 0.0)
    if x.dtype.kind not in "fiub":
        return WeightDifference(name, "changed", types, shapes)
    a, b = x.ravel(), y.ravel()
    largest = squares = apart = 0.0
    for start in range(0, a.size, _ELEMENTS):  # in double precision, which a large tensor has no room for as a whole
        p, q = (part[start : start + _ELEMENTS].astype(np.float64) for part in (a, b))
        largest = float(np.maximum(largest, np.abs(q - p).max()))  # which keeps a NaN
        squares += float(np.square(p).sum())
        apart += float(np.square(q - p).sum())
    if not math.isfinite(largest):
        return WeightDifference(name, "changed", types, shapes)
    return WeightDifference(
        name, "changed", types, shapes, max_abs=largest, relative=math.sqrt(apart / squares) if squares else None
    )
