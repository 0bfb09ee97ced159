"""Where the data of tensors lies: in the graph, or in a file at an offset. It is named here, and read only when asked.

A model file is read without the weights in it (:func:`skim`): they are named as data in that very file, so that a model
of one file and one with data files beside it are the same to everybody else.
"""

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.quiver.exporters.graph import tensors
from gravswell.quiver.golden import Array

LEAST = 1 << 10
"""Bytes from which on a tensor's data is left in its file, and written into a data file: smaller ones are graph."""

_CHUNK = 1 << 20
_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
_LENGTH_DELIMITED = 2
_VARINT_BITS = 63
_INITIALIZERS = (ModelProto.GRAPH_FIELD_NUMBER, GraphProto.INITIALIZER_FIELD_NUMBER)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a file."""

    file: Path
    offset: int
    length: int

    def chunks(self) -> Iterator[bytes]:
        """Them, a piece at a time."""
        left = self.length
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            while left:
                chunk = stream.read(min(left, _CHUNK))
                if not chunk:
                    raise InvalidInputError(f"{self.file} became shorter while it was read: nothing was published")
                left -= len(chunk)
                yield chunk


def is_external(tensor: TensorProto) -> bool:
    """Whether its data lies in a file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def data_files(proto: ModelProto) -> list[tuple[str, str]]:
    """Name of each tensor whose data lies in a file, and that file, relative to the model's folder.

    Pairs: many tensors of nodes have no name.
    """
    return [(tensor.name, _stated(tensor).get("location", "")) for tensor in tensors(proto) if is_external(tensor)]


def faults(proto: ModelProto, model: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Tensors of the graph in the file ``model`` whose data lies outside its folder, and whose data is not there."""
    found = data_files(proto)
    outside = {tensor: location for tensor, location in found if _inside(location, model) is None}
    files = {location: _inside(location, model) for _, location in found}
    missing = {tensor: location for tensor, location in found if (file := files[location]) and not file.is_file()}
    return outside, missing


def _inside(location: str, model: Path) -> Path | None:
    """The data file of that name; None where it lies outside the folder of the file ``model``.

    Outside is an absolute path, one that climbs (``..``), and a link, wherever it leads: a crafted model would have
    whoever loads or publishes it read any file of that machine.
    """
    if location == model.name:
        return model  # which is being read, link or not
    target = model.parent.resolve() / location
    within = location and target.resolve() == target and ".." not in Path(location).parts
    return target if within and not Path(location).is_absolute() else None


def span_of(tensor: TensorProto, model: Path | None) -> Span:
    """The data of a tensor that is external to the file ``model``, or lies in it.

    InvalidInputError where it lies outside the model's folder, or the file does not hold it; NotFoundError where there
    is no such file.
    """
    stated = _stated(tensor)
    location = stated.get("location", "")
    if model is None:
        raise InvalidInputError(
            f"tensor {tensor.name!r} of the ModelProto keeps its data in {location!r}: "
            f"give the path of the model file instead, or load it with its external data"
        )
    file = _inside(location, model)
    if file is None:
        link = " (it is a link: copy the folder with cp -rL)" if (model.parent / location).is_symlink() else ""
        raise InvalidInputError(
            f"{model}: tensor {tensor.name!r} keeps its data in {location!r}, outside the model's folder; "
            f"save the model with its data beside it{link}"
        )
    if not file.is_file():
        raise NotFoundError(f"{model}: tensor {tensor.name!r} keeps its data in {location!r}, which is not there")
    size = file.stat().st_size
    try:
        offset = int(stated.get("offset", 0))
        length = int(stated["length"]) if "length" in stated else _size(tensor)
    except (KeyError, ValueError):  # no numbers, or of a type that has no size
        offset = length = -1
    if offset < 0 or length < 0 or offset + length > size:
        where = ", ".join(f"{key} {stated[key]}" for key in ("offset", "length") if key in stated) or "its beginning"
        raise InvalidInputError(
            f"{model}: tensor {tensor.name!r} keeps its data in {location!r} at {where}, and that has {size} bytes: it "
            f"was cut off or belongs to another model; save the model anew"
        )
    return Span(file, offset, length)


def array_of(tensor: TensorProto, model: Path) -> Array:
    """The tensor's values, read now and not kept."""
    return numpy_helper.to_array(whole(tensor, model) if is_external(tensor) else tensor)


def whole(tensor: TensorProto, model: Path | None) -> TensorProto:
    """A tensor that is external, with its data in it."""
    made = bare(tensor)
    made.raw_data = b"".join(span_of(tensor, model).chunks())
    return made


def bare(tensor: TensorProto) -> TensorProto:
    """The tensor without its data, and without where that is."""
    copy = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, doc_string=tensor.doc_string)
    copy.metadata_props.extend(tensor.metadata_props)
    return copy


def place(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """State where the data of the tensor lies."""
    del tensor.external_data[:]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def skim(path: Path) -> ModelProto:
    """Read a model file without its weights: initializers of :data:`LEAST` bytes or more are external, in that file.

    Raises whatever a damaged file provokes.
    """
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        kept = _skimmed(view, (0, len(view)), _INITIALIZERS, path.name)
    return ModelProto.FromString(bytes(kept))


def encoded(number: int, length: int) -> bytes:
    """What stands in a protobuf message before the ``length`` bytes of its field ``number``."""
    return _varint_bytes(number << 3 | _LENGTH_DELIMITED) + _varint_bytes(length)


def _stated(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _size(tensor: TensorProto) -> int:
    """Bytes of the tensor's data, by its type and shape."""
    name = TensorProto.DataType.Name(tensor.data_type)
    bits = _BITS.get(name) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return -(-math.prod(tensor.dims) * bits // 8)


def _skimmed(view: memoryview, within: tuple[int, int], way: tuple[int, ...], file: str) -> bytearray:
    """A message without the raw data of the tensors that lie along ``way``, the numbers of nested fields."""
    kept, last = bytearray(), b""
    at, end = within
    while at < end:
        start = at
        key, at = _varint(view, at)
        payload, stop = _extent(view, key & 7, at)
        if stop > end:
            raise ValueError(f"a field of the message ends {stop - end} bytes behind it")
        at = stop
        if key & 7 != _LENGTH_DELIMITED:
            kept += view[start:stop]
        elif way and key >> 3 == way[0]:
            inner = _skimmed(view, (payload, stop), way[1:], file)
            kept += encoded(way[0], len(inner))
            kept += inner
        elif not way and key >> 3 == TensorProto.RAW_DATA_FIELD_NUMBER and stop - payload >= LEAST:
            elsewhere = TensorProto()
            place(elsewhere, file, payload, stop - payload)
            # Messages that follow one another are merged, and the last one counts: some state that the data is here.
            last = elsewhere.SerializeToString()
        else:
            kept += view[start:stop]
    return kept + last


def _extent(view: memoryview, wire_type: int, at: int) -> tuple[int, int]:
    """Where a field's value begins and ends."""
    if wire_type == 0:
        return at, _varint(view, at)[1]
    if wire_type == _LENGTH_DELIMITED:
        length, at = _varint(view, at)
        return at, at + length
    if wire_type in (1, 5):
        return at, at + (8 if wire_type == 1 else 4)
    raise ValueError(f"wire type {wire_type} is not one of protobuf's")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A number, and where the next thing begins."""
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > _VARINT_BITS:
            raise ValueError("a number of the message does not end")


def _varint_bytes(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
