"""ONNX files, read without their weights and written with them: these go from file to file, a piece at a time.

So a model may be larger than the memory. What is read is the *structure*: a ``ModelProto`` that says of each weight in
which file it lies. What is written is one file up to :data:`INLINE_LIMIT`, and above it a second one with the data.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.quiver.exporters.base import described
from gravswell.quiver.exporters.graph import tensors
from gravswell.quiver.exporters.weights import (
    LEAST,
    Span,
    bare,
    data_files,
    encoded,
    is_external,
    place,
    skim,
    span_of,
    whole,
)
from gravswell.quiver.manifest import MODEL_FILE

INLINE_LIMIT = 2**31 - 2**24
"""Bytes of tensors up to which a model is one file. protobuf ends at 2 GiB; the graph itself takes the rest."""

DATA_FILE = f"{MODEL_FILE}.data"

_PAGE = 4096
"""Where each tensor begins in a data file, a multiple of it: ONNX Runtime maps them from there, and copies others."""

_Message = TypeVar("_Message", ModelProto, GraphProto)


def load(path: Path) -> ModelProto:
    """Read the structure of an ONNX file; its tensors lie where :func:`~.weights.span_of` finds them.

    A data file outside the model's own folder is refused, and one that is not there or does not hold all of it.
    """
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder, and no SavedModel: name the model's file")
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    try:
        proto = skim(path)
    except Exception as error:  # noqa: BLE001 - protobuf's DecodeError, or whatever a damaged file provokes
        raise InvalidInputError(f"{path} is no ONNX model: {described(error)}") from None
    if not proto.graph.node and not proto.graph.output:
        raise InvalidInputError(f"{path} is no ONNX model: it holds no graph")
    size_of(proto, path)
    return proto


def size_of(proto: ModelProto, source: Path | None) -> int:
    """Bytes of all tensors, wherever they lie: in memory, or in files beside the model's own, ``source``."""
    return sum(span_of(t, source).length if is_external(t) else t.ByteSize() for t in tensors(proto))


def write(proto: ModelProto, folder: Path, source: Path | None, *, changed: bool = True) -> Path:
    """Write ``model.onnx`` into ``folder``, in one file below :data:`INLINE_LIMIT`, else with ``model.onnx.data`` too.

    ``source``: the file that ``proto`` was read from, which stays as it is; if it is the only one, and ``proto`` was
    not ``changed`` since, it is copied byte for byte. The same model gives the same bytes.
    """
    path = folder / MODEL_FILE
    if source is not None and not changed and all(location == source.name for _, location in data_files(proto)):
        shutil.copyfile(source, path)
        return path
    rest = _copy(proto, without="graph")
    rest.graph.CopyFrom(_copy(proto.graph, without="initializer"))
    weights = [_Weight.of(tensor, source) for tensor in proto.graph.initializer]
    if size_of(rest, source) + sum(weight.length for weight in weights) < INLINE_LIMIT:
        for tensor in tensors(rest):  # of nodes, of subgraphs and of functions: they are within what is in memory
            if is_external(tensor):
                tensor.CopyFrom(whole(tensor, source))
        with path.open("wb") as sink:
            _write_inline(rest, weights, sink)
    else:
        with (folder / DATA_FILE).open("wb") as sink:
            data = _Data(sink)
            for tensor in tensors(rest):
                if is_external(tensor):
                    data.put(tensor, span_of(tensor, source))
            rest.graph.initializer.extend(map(data.put_apart, weights))
        path.write_bytes(rest.SerializeToString(deterministic=True))
    return path


@dataclass(frozen=True, slots=True)
class _Weight:
    """One of the graph's own initializers."""

    tensor: TensorProto
    span: Span | None
    """Where its data is, if it is not in it."""
    length: int
    """Bytes of it as a message, with its data."""

    @classmethod
    def of(cls, tensor: TensorProto, source: Path | None) -> "_Weight":
        if not is_external(tensor):
            return cls(tensor, None, tensor.ByteSize())
        span = span_of(tensor, source)
        head = encoded(TensorProto.RAW_DATA_FIELD_NUMBER, span.length)
        return cls(tensor, span, bare(tensor).ByteSize() + len(head) + span.length)

    def serialized(self) -> Iterator[bytes]:
        """That message, a piece at a time."""
        if self.span is None:
            yield self.tensor.SerializeToString(deterministic=True)
            return
        yield bare(self.tensor).SerializeToString(deterministic=True)
        yield encoded(TensorProto.RAW_DATA_FIELD_NUMBER, self.span.length)
        yield from self.span.chunks()


def _copy(message: _Message, *, without: str) -> _Message:
    copy = type(message)()
    for field, value in message.ListFields():
        if field.name == without:
            continue
        if hasattr(value, "extend"):
            getattr(copy, field.name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(copy, field.name).CopyFrom(value)
        else:
            setattr(copy, field.name, value)
    return copy


def _write_inline(rest: ModelProto, weights: Sequence[_Weight], sink: BinaryIO) -> None:
    """The model as one message. The initializers come last in it, since their data need not be in memory."""
    graph = rest.graph.SerializeToString(deterministic=True)
    rest.ClearField("graph")
    heads = [encoded(GraphProto.INITIALIZER_FIELD_NUMBER, weight.length) for weight in weights]
    length = len(graph) + sum(map(len, heads)) + sum(weight.length for weight in weights)
    sink.write(rest.SerializeToString(deterministic=True))
    sink.write(encoded(ModelProto.GRAPH_FIELD_NUMBER, length))
    sink.write(graph)
    for head, weight in zip(heads, weights, strict=True):
        sink.write(head)
        sink.writelines(weight.serialized())


class _Data:
    """The data file that is being written."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._written: dict[Span, int] = {}

    def put(self, tensor: TensorProto, source: Span | bytes) -> None:
        """Write a tensor's data, or find what another one has written of the same, and state in it where that is."""
        length = source.length if isinstance(source, Span) else len(source)
        offset = self._written.get(source) if isinstance(source, Span) else None
        if offset is None:
            self._sink.write(bytes(-self._sink.tell() % _PAGE))
            offset = self._sink.tell()
            self._sink.writelines(source.chunks() if isinstance(source, Span) else [source])
        if isinstance(source, Span):
            self._written[source] = offset
        place(tensor, DATA_FILE, offset, length)

    def put_apart(self, weight: _Weight) -> TensorProto:
        """Another tensor that says where the data of this one is; the same one where that is text, or small."""
        tensor = weight.tensor
        if weight.span is None and (tensor.data_type == TensorProto.STRING or weight.length < LEAST):
            return tensor
        made = bare(tensor)
        self.put(
            made, weight.span or tensor.raw_data or numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
        )
        return made
