"""The one table of tensor types: Triton's names, ONNX Runtime's and numpy's."""

from typing import Any

import numpy as np

from gravswell.errors import InvalidInputError

# Triton name, ONNX Runtime name, numpy type of its values in Python
_TYPES: tuple[tuple[str, str, type[np.generic]], ...] = (
    ("TYPE_FP32", "tensor(float)", np.float32),
    ("TYPE_FP64", "tensor(double)", np.float64),
    ("TYPE_FP16", "tensor(float16)", np.float16),
    ("TYPE_INT64", "tensor(int64)", np.int64),
    ("TYPE_INT32", "tensor(int32)", np.int32),
    ("TYPE_INT16", "tensor(int16)", np.int16),
    ("TYPE_INT8", "tensor(int8)", np.int8),
    ("TYPE_UINT64", "tensor(uint64)", np.uint64),
    ("TYPE_UINT32", "tensor(uint32)", np.uint32),
    ("TYPE_UINT16", "tensor(uint16)", np.uint16),
    ("TYPE_UINT8", "tensor(uint8)", np.uint8),
    ("TYPE_BOOL", "tensor(bool)", np.bool_),
    ("TYPE_STRING", "tensor(string)", np.str_),
)
_NUMPY = {triton: np.dtype(numpy) for triton, _, numpy in _TYPES}
_FROM_RUNTIME = {runtime: triton for triton, runtime, _ in _TYPES}
_FROM_NUMPY = {np.dtype(numpy).name: triton for triton, _, numpy in _TYPES if numpy is not np.str_}


def numpy_type(triton: str) -> np.dtype[Any]:
    """numpy's type for ``TYPE_FP32``…"""
    return _NUMPY[triton]


def from_runtime(runtime: str) -> str | None:
    """Triton's name for ``tensor(float)``…; None for what no Triton tensor can hold here."""
    return _FROM_RUNTIME.get(runtime)


def parse_data_type(value: Any, *, tensor: str) -> str:
    """Triton's name for what a user writes: ``"int64"``, ``np.int64``, ``"TYPE_INT64"``, ``"INT64"``, ``"string"``."""
    for name in (value, f"TYPE_{value}") if isinstance(value, str) else ():
        if name in _NUMPY:
            return str(name)
    if value in ("string", "str", str, object):
        return "TYPE_STRING"
    try:
        name = np.dtype(value).name
    except TypeError:
        name = ""
    if name.startswith("str"):
        return "TYPE_STRING"
    if name not in _FROM_NUMPY:
        raise InvalidInputError(
            f"{value!r} is no type for tensor {tensor}: use one of {', '.join(_FROM_NUMPY)}, string"
        )
    return _FROM_NUMPY[name]
