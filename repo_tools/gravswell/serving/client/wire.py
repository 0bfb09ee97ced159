"""The bytes of Triton's HTTP protocol with binary tensors: those of a request, and the arrays of an answer.

Its law: bytes and arrays only, no socket and no clock. What comes before a request's tensors depends on their shapes
alone, so it is made once for all requests of the same shapes; an answer's JSON is the same for all of them too, and is
read once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor, triton_to_np_dtype

Array = NDArray[Any]
Arrays = Mapping[str, Array]

MANY_LAYOUTS = 256
"""Answers with text differ in the length of it, each with a JSON of its own: remembered up to here."""


class Answer(NamedTuple):
    """What a model answered to one request."""

    outputs: dict[str, Array]
    """By tensor name; text is an array of ``bytes`` objects, BF16 comes as float32."""
    version: str
    """The version of the model that answered."""


@cache
def numpy_type(datatype: str) -> np.dtype[Any] | None:
    """numpy's type for Triton's ``FP32``…, laid out as it is sent; None for a name that is not Triton's."""
    found = ml_dtypes.bfloat16 if datatype == "BF16" else triton_to_np_dtype(datatype)
    return None if found is None else np.dtype(found).newbyteorder("<")


def encode(array: Array, datatype: str) -> bytes | memoryview:
    """The bytes of ``array`` as a tensor: its own memory where that is laid out as they are."""
    if datatype == "BYTES":
        return bytes(serialize_byte_tensor(array.astype(object)).item()) if array.size else b""
    return np.ascontiguousarray(array, numpy_type(datatype)).reshape(-1).view(np.uint8).data


class Packer:
    """Makes the requests of one call to one model.

    :param datatypes: Triton's, of the inputs.
    :param outputs: the names of those that are asked for; None for all.
    """

    def __init__(self, datatypes: Mapping[str, str], outputs: Sequence[str] | None) -> None:
        self._datatypes = datatypes
        self._outputs = outputs
        self._heads: dict[tuple[object, ...], bytes] = {}

    def pack(self, arrays: Arrays) -> tuple[bytes, list[bytes | memoryview]]:
        """The rest of the HTTP head with the JSON that follows it, and the tensors."""
        payload = [encode(array, self._datatypes[name]) for name, array in arrays.items()]
        key = tuple((name, array.shape, len(data)) for (name, array), data in zip(arrays.items(), payload, strict=True))
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= MANY_LAYOUTS:
                self._heads.clear()
            head = self._heads[key] = self._head(arrays, list(map(len, payload)))
        return head, payload

    def memory(self, name: str, array: Array) -> memoryview | None:
        """The bytes of an input where they lie, if that is how they are sent; None where they have to be made."""
        if self._datatypes[name] == "BYTES" or array.dtype != numpy_type(self._datatypes[name]):
            return None
        return array.reshape(-1).view(np.uint8).data if array.flags.c_contiguous else None

    def _head(self, arrays: Arrays, sizes: list[int]) -> bytes:
        inputs = [
            {
                "name": name,
                "datatype": self._datatypes[name],
                "shape": list(array.shape),
                "parameters": {"binary_data_size": size},
            }
            for (name, array), size in zip(arrays.items(), sizes, strict=True)
        ]
        told: dict[str, Any] = {"inputs": inputs}
        if self._outputs is None:
            told["parameters"] = {"binary_data_output": True}
        else:
            told["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in self._outputs]
        document = json.dumps(told, separators=(",", ":")).encode()
        lines = (
            "Content-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {len(document)}\r\n"
            f"Content-Length: {len(document) + sum(sizes)}\r\n\r\n"
        )
        return lines.encode() + document


@dataclass(frozen=True, slots=True)
class _Output:
    name: str
    datatype: str
    dtype: np.dtype[Any] | None
    """None where the bytes are not the array's own."""
    shape: tuple[int, ...]
    start: int
    stop: int

    def read(self, body: bytes, begin: int) -> Array:
        """The array, where the tensors begin at ``begin``."""
        if self.dtype is not None:
            count = (self.stop - self.start) // self.dtype.itemsize
            return np.frombuffer(body, self.dtype, count, begin + self.start).reshape(self.shape)
        data = body[begin + self.start : begin + self.stop]
        if self.datatype == "BYTES":
            texts: Array = deserialize_bytes_tensor(data)
            return texts.reshape(self.shape)
        return np.frombuffer(data, numpy_type(self.datatype)).astype(np.float32).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class _Layout:
    version: str
    outputs: tuple[_Output, ...]
    size: int


class Layouts:
    """Reads the answers of one model."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Layout] = {}

    def read(self, body: bytes, json_size: int | None) -> Answer:
        """The answer in a response's body, whose first ``json_size`` bytes are JSON.

        None: all of it, which Triton answers where every output is empty. ValueError, with what is wrong, where it is
        no such answer.
        """
        if json_size is None:
            json_size = len(body)
        told = body[:json_size]
        layout = self._known.get(told)
        if layout is None:
            if len(self._known) >= MANY_LAYOUTS:
                self._known.clear()
            layout = self._known[told] = _layout(told)
        if json_size + layout.size != len(body):
            raise ValueError(f"its tensors have {len(body) - json_size} bytes where its header says {layout.size}")
        return Answer({one.name: one.read(body, json_size) for one in layout.outputs}, layout.version)


def _layout(told: bytes) -> _Layout:
    try:
        document = json.loads(told)
        outputs, start = [], 0
        for one in document["outputs"]:
            stop = start + int(one["parameters"]["binary_data_size"])
            datatype = one["datatype"]
            if (dtype := numpy_type(datatype)) is None:
                raise ValueError(f"output '{one['name']}' is {datatype}, which this client does not know")
            if datatype in {"BYTES", "BF16"}:
                dtype = None
            outputs.append(_Output(one["name"], datatype, dtype, tuple(one["shape"]), start, stop))
            start = stop
        return _Layout(str(document.get("model_version", "")), tuple(outputs), start)
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = f"it has no binary tensors as Triton sends them ({error!r}): is another server there?"
        raise ValueError(reason) from None
