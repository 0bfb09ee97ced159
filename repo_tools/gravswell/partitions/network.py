"""A graph as whoever cuts it has to see it: what its nodes read and make, which tensors are weights, and their types.

The weights stay in their file: they are named here, and read only when one of them is cut.
"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, inliner

from gravswell.errors import ExportError
from gravswell.quiver.exporters import files, graph
from gravswell.quiver.exporters.base import Inputs
from gravswell.quiver.exporters.proof import as_record, cpu_session
from gravswell.quiver.exporters.weights import array_of, is_external, span_of
from gravswell.quiver.golden import Array
from gravswell.quiver.manifest import TensorRecord

LARGE_NODE = 1 << 10
"""Bytes from which on a node has weights of its own, in its attributes or in graphs inside it."""

_PROBE = ".probe.onnx"

_SEEN = 3
"""Batches, the smallest ones, with which is seen what the graph does not state."""

_HELD = "tensor("
"""What ONNX Runtime's name of a tensor's type begins with; sequences, maps and optionals have others."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type, as ONNX numbers them, and dims: a size, the name of one that differs, or None."""

    element: int
    dims: tuple[int | str | None, ...]

    def info(self, name: str) -> ValueInfoProto:
        """How a graph states it of its input or output ``name``."""
        return helper.make_tensor_value_info(name, self.element, self.dims)

    def size(self, axis: int) -> int | None:
        """The size along ``axis``, counted from the last one as -1; None where there is no such axis, or any size."""
        dim = self.dims[axis] if -len(self.dims) <= axis < 0 else None
        return dim if isinstance(dim, int) else None

    def resized(self, axis: int, size: int) -> "TensorType":
        """The same with another size along ``axis``."""
        dims = list(self.dims)
        dims[axis] = size
        return TensorType(self.element, tuple(dims))


class Network:
    """The graph in a file. ``batches`` are some that it takes: what comes out of each node is seen, not guessed.

    Raises ExportError for a graph that holds what cannot be taken apart.
    """

    def __init__(self, path: Path, batches: Sequence[Inputs]) -> None:
        proto = files.load(path)
        self.source = path
        self.proto: ModelProto = _plain(inliner.inline_local_functions(proto) if proto.functions else proto)
        held = self.proto.graph
        if held.sparse_initializer:
            raise ExportError(
                f"the graph keeps {held.sparse_initializer[0].values.name!r} as a sparse tensor, which is not cut: "
                f"store its weights densely"
            )
        self.nodes: list[NodeProto] = list(held.node)
        self.weights: dict[str, TensorProto] = {tensor.name: tensor for tensor in held.initializer}
        self.inputs = tuple(value.name for value in held.input if value.name not in self.weights)
        self.outputs = tuple(value.name for value in held.output)
        self.maker = {name: at for at, node in enumerate(self.nodes) for name in node.output if name}
        known = self.maker.keys() | self.weights.keys() | set(self.inputs)
        self.reads = [tuple(dict.fromkeys(_read(node, known))) for node in self.nodes]
        self.readers: dict[str, list[int]] = {}
        for at, names in enumerate(self.reads):
            for name in names:
                self.readers.setdefault(name, []).append(at)
                if self.maker.get(name, -1) >= at:
                    raise ExportError(
                        f"{told(self.nodes[at])} reads {name!r} before it is made: sort the graph, as onnx.checker asks"
                    )
        for name in self.outputs:
            if name in self.inputs:
                raise ExportError(f"output {name!r} is an input of the graph: leave it out, the client has it")
        self.constant = self._constants()
        self.types = self._seen(batches)

    def bytes_of(self, weight: str) -> int:
        """Bytes of a weight, wherever they lie."""
        tensor = self.weights[weight]
        return span_of(tensor, self.source).length if is_external(tensor) else tensor.ByteSize()

    def held_by(self, at: int) -> set[str]:
        """The weights that node ``at`` computes with, also where other constants are made of them first."""
        found: set[str] = set()
        pending, seen = [at], {at}
        while pending:
            for name in self.reads[pending.pop()]:
                if name in self.weights:
                    found.add(name)
                elif name in self.constant and (maker := self.maker[name]) not in seen:
                    seen.add(maker)
                    pending.append(maker)
        return found

    def value(self, name: str) -> Array | None:
        """The values of a weight; None of a tensor that is computed."""
        return array_of(self.weights[name], self.source) if name in self.weights else None

    def _constants(self) -> set[str]:
        """The tensors that no input changes: every part makes its own of them."""
        constant: set[str] = set()
        for node, names in zip(self.nodes, self.reads, strict=True):
            if all(name in self.weights or name in constant for name in names):
                constant.update(name for name in node.output if name)
        return constant

    def _seen(self, batches: Sequence[Inputs]) -> dict[str, TensorType]:
        """The types of all tensors but weights, as ONNX Runtime has them. Those that are no tensors are left out."""
        probe = ModelProto()
        probe.CopyFrom(self.proto)
        declared = set(self.outputs)
        inner = [name for name in self.maker if name not in declared and name not in self.constant]
        probe.graph.output.extend(ValueInfoProto(name=name) for name in inner)
        file = self.source.with_name(_PROBE)  # beside the file that its weights lie in
        file.write_bytes(probe.SerializeToString())
        try:
            session = cpu_session(str(file), as_written=True)
            unstated = [node.name for node in session.get_outputs() if node.type.startswith(_HELD) and not node.shape]
            shapes: dict[str, list[tuple[int, ...]]] = {}
            for batch in sorted(batches, key=values_of)[:_SEEN] if unstated else ():
                answers = session.run(unstated, {node.name: batch[node.name] for node in session.get_inputs()})
                for name, array in zip(unstated, answers, strict=True):
                    shapes.setdefault(name, []).append(array.shape)
        finally:
            file.unlink(missing_ok=True)
        types = {
            node.name: _typed(node, shapes.get(node.name, []))
            for node in (*session.get_inputs(), *session.get_outputs())
        }
        return {name: held for name, held in types.items() if held is not None}


def record_of(name: str, held: TensorType) -> TensorRecord:
    """A tensor as Triton names its type; ExportError for one that no Triton tensor can hold."""
    record = as_record(_Stated(name, held))
    if record is None:
        raise ExportError(
            f"tensor {name!r} would go from one part to the next, and is {_runtime_name(held.element)}, which no "
            f"Triton tensor can hold: cut the graph elsewhere, with other ranks"
        )
    return record


def values_of(batch: Inputs) -> int:
    """How many values a batch has, to compare batches by."""
    return sum(array.size for array in batch.values())


def _plain(proto: ModelProto) -> ModelProto:
    """The model without nodes that no output needs, and its constants as weights, whichever of two forms they have."""
    plain = ModelProto()
    plain.CopyFrom(proto)
    del plain.graph.node[:]
    known = {name for node in proto.graph.node for name in node.output if name}
    wanted = {value.name for value in proto.graph.output}
    needed: list[NodeProto] = []
    for node in reversed(proto.graph.node):
        if wanted.intersection(node.output):
            needed.append(node)
            wanted.update(_read(node, known))
    for node in reversed(needed):
        value = stated(node).get("value") if node.op_type == "Constant" else None
        if value is None:
            plain.graph.node.append(node)
        else:
            weight = plain.graph.initializer.add()
            weight.CopyFrom(value)
            weight.name = node.output[0]
    return plain


def told(node: NodeProto) -> str:
    """A node in a message: what it computes, and its name or else its output's."""
    return f"{node.op_type} {name_of(node)!r}"


def name_of(node: NodeProto) -> str:
    """Its name, or else its first output's."""
    return node.name or next(name for name in node.output if name)


def stated(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


@dataclass(frozen=True, slots=True)
class _Stated:
    """A tensor in the form in which ONNX Runtime tells of one."""

    name: str
    held: TensorType

    @property
    def type(self) -> str:
        return _runtime_name(self.held.element)

    @property
    def shape(self) -> list[int | str | None]:
        return list(self.held.dims)


def _runtime_name(element: int) -> str:
    return f"{_HELD}{TensorProto.DataType.Name(element).lower()})"


def _typed(node: Any, shapes: Sequence[tuple[int, ...]]) -> TensorType | None:
    """What a session says of a tensor, or shows where it does not say it; None where it is no tensor to hand over."""
    if not node.type.startswith(_HELD) or len({len(shape) for shape in shapes}) > 1:
        return None
    dims: tuple[int | str | None, ...] = tuple(dim or None if isinstance(dim, str) else dim for dim in node.shape)
    if not dims and shapes and shapes[0]:  # an unknown shape shows as an empty one
        columns = zip(*shapes, strict=True)
        dims = tuple(column[0] if len(shapes) > 1 and len(set(column)) == 1 else None for column in columns)
    return TensorType(TensorProto.DataType.Value(node.type[len(_HELD) : -1].upper()), dims)


def _read(node: NodeProto, known: Container[str]) -> Iterator[str]:
    """What a node reads: its inputs, and what the graphs in it take from around it."""
    yield from (name for name in node.input if name)
    for inner in graph.inner_graphs(node):
        for part in inner.node:
            yield from (name for name in _read(part, known) if name in known)
        yield from (value.name for value in inner.output if value.name in known)
