"""What a model takes, as its server tells, and whether given arrays are that: checked before anything is sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np

from gravswell.errors import InvalidInputError
from gravswell.serving.client.wire import Array, numpy_type

AUTO_BYTES, AUTO_ROWS = 1 << 18, 1024
"""Of a request whose size is ours to choose: enough that its overhead no longer matters, and no more."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or an output: ``datatype`` is Triton's (``FP32``…), a size of -1 in ``shape`` stands for any."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class Model:
    """A model as its server describes it. Shapes include the batch, where the model has one."""

    name: str
    versions: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_size: int | None
    """Rows that one request may have; None where the server sets no limit."""

    @property
    def rows_fixed(self) -> int | None:
        """The rows that every request must have; None where that is free."""
        return max((t.shape[0] for t in self.inputs if t.shape and t.shape[0] > 0), default=None)

    def datatypes(self) -> dict[str, str]:
        """Triton's types of the inputs, by name."""
        return {tensor.name: tensor.datatype for tensor in self.inputs}

    def batch_size(self, wanted: int | None, row_bytes: int) -> int:
        """The rows of a request: ``wanted``, if the model takes that; for None a good number for rows of that size."""
        fixed, most = self.rows_fixed, self.max_batch_size
        if wanted is None:
            return fixed or max(1, min(most or AUTO_ROWS, AUTO_ROWS, AUTO_BYTES // max(1, row_bytes)))
        if not isinstance(wanted, Integral) or wanted < 1:
            raise InvalidInputError(f"batch_size is a whole number of at least 1, or None, and not {wanted!r}")
        if fixed is not None and wanted != fixed:
            raise InvalidInputError(f"model '{self.name}' takes exactly {fixed} rows a request, not {wanted}")
        if most is not None and wanted > most:
            raise InvalidInputError(
                f"model '{self.name}' takes up to {most} rows a request (its max_batch_size), not {wanted}"
            )
        return int(wanted)

    def named(self, inputs: Any) -> Mapping[str, Any]:
        """``inputs`` by name: as they are, or a single array under the name of the one input."""
        if isinstance(inputs, Mapping):
            return inputs
        names = [t.name for t in self.inputs if not t.optional] or [t.name for t in self.inputs]
        if len(names) != 1:
            raise InvalidInputError(f"model '{self.name}' has inputs {', '.join(names)}: give each its array, by name")
        return {names[0]: inputs}

    def tensors(self, inputs: Any) -> dict[str, Array]:
        """``inputs`` as arrays of the model's types. InvalidInputError for a name, type or shape that is not its."""
        given, known = self.named(inputs), self._by_name
        for name in given:
            if name not in known:
                raise InvalidInputError(f"model '{self.name}' has no input '{name}'; its inputs: {', '.join(known)}")
        for name, tensor in known.items():
            if name not in given and not tensor.optional:
                raise InvalidInputError(f"model '{self.name}' needs input '{name}', {_described(tensor)}")
        return {name: self._array(value, known[name]) for name, value in given.items()}

    def rows(self, inputs: Any) -> tuple[dict[str, Array], int]:
        """:meth:`tensors`, which have the rows along their first axes, and how many rows they are."""
        arrays = self.tensors(inputs)
        sizes = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        rows = next(iter(sizes.values()), 0)
        if any(size != rows for size in sizes.values()):
            told = f"the inputs of model '{self.name}' differ in their number of rows: {sizes}"
            raise InvalidInputError(f"{told}; request() takes tensors that have none")
        return arrays, rows

    def check_outputs(self, wanted: Sequence[str] | None) -> None:
        """InvalidInputError for the name of an output that the model does not have."""
        known = [tensor.name for tensor in self.outputs]
        for name in wanted or ():
            if name not in known:
                raise InvalidInputError(f"model '{self.name}' has no output '{name}'; its outputs: {', '.join(known)}")

    @cached_property
    def _by_name(self) -> dict[str, Tensor]:
        return {tensor.name: tensor for tensor in self.inputs}

    def _array(self, value: Any, tensor: Tensor) -> Array:
        wanted = numpy_type(tensor.datatype)
        where = f"input '{tensor.name}' of model '{self.name}'"
        if wanted is None:
            raise InvalidInputError(f"{where} is {tensor.datatype}, which this client does not know")
        if type(value) is np.ndarray and value.dtype == wanted and wanted.kind != "O" and _fits(value, tensor):
            return value  # as nearly always in a stream, where the rest would be a quarter of what a batch costs
        try:
            array = np.asarray(value)
            numbers = isinstance(value, list | tuple) and array.dtype.kind in "biuf" and tensor.datatype != "BYTES"
            if numbers and np.can_cast(array.dtype, wanted, "same_kind"):
                array = np.asarray(value, wanted)  # Python's numbers have no size: they take the model's, if they fit
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            # rows of different lengths, a number that is too large, a tensor of a GPU
            told = f"{where}: a {type(value).__name__} that is no array of {tensor.datatype}: {error}"
            raise InvalidInputError(f"{told}{_way_for_batches(value, tensor)}") from None
        if tensor.datatype == "BYTES":
            others = set() if array.dtype.kind in "OSUT" else {str(array.dtype)}
            if array.dtype.kind in "OT":  # a missing value among them, as of a pandas column, would go as "nan"
                others = {type(value).__name__ for value in array.flat if not isinstance(value, str | bytes)}
            if others:
                told = f"{where} is text (BYTES), and the array is of {', '.join(sorted(others))}"
                raise InvalidInputError(f"{told}: use str or bytes")
        elif array.dtype.newbyteorder("<") != wanted and not (tensor.datatype == "BF16" and array.dtype == np.float32):
            raise InvalidInputError(
                f"{where} is {tensor.datatype}, and the array is of {array.dtype}: send array.astype(np.{wanted.name})"
            )
        if not _fits(array, tensor):
            raise InvalidInputError(
                f"{where} has shape {list(tensor.shape)}, its rows first, and the array has {list(array.shape)}"
                f"{_way_for_batches(value, tensor)}"
            )
        return array


def described(name: str, metadata: Mapping[str, Any], config: Mapping[str, Any] | None) -> Model:
    """The model, of the documents that Triton gives: its metadata, and its config where the server tells it."""
    optional = {one["name"] for one in (config or {}).get("input", ()) if one.get("optional")}
    most = int((config or {}).get("max_batch_size", 0))

    def tensors(side: str) -> tuple[Tensor, ...]:
        return tuple(
            Tensor(t["name"], t["datatype"], tuple(int(size) for size in t["shape"]), t["name"] in optional)
            for t in metadata.get(side, ())
        )

    versions = tuple(str(version) for version in metadata.get("versions", ()))
    return Model(name, versions, tensors("inputs"), tensors("outputs"), most or None)


def _fits(array: Array, tensor: Tensor) -> bool:
    """Whether the shape is the tensor's, whatever number of rows it has."""
    got, wanted = array.shape[1:], tensor.shape[1:]
    if array.ndim != len(tensor.shape):
        return False
    return got == wanted or all(size in (-1, n) for size, n in zip(wanted, got, strict=True))


def _way_for_batches(value: Any, tensor: Tensor) -> str:
    """What to say to whoever gave batches in a list, which is one array."""
    listed = isinstance(value, list | tuple) and value and getattr(value[0], "ndim", 0) == len(tensor.shape)
    return "; a list is one array: give its batches as iter(list)" if listed else ""


def _described(tensor: Tensor) -> str:
    return f"{tensor.datatype} of shape {list(tensor.shape)}"
