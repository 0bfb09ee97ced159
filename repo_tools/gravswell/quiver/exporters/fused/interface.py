"""What a fusion takes and gives: the inputs and outputs of all its models, where they fit into one tensor each.

A row has one model, and a tensor holds rows of several: so what has one name has one type and one shape. Everything
that does not is refused here, before anything is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gravswell.errors import InvalidInputError
from gravswell.quiver.datatypes import numpy_type
from gravswell.quiver.exporters.fused.singles import Dim, Single, Tensor
from gravswell.quiver.fusion import MODEL_ID
from gravswell.quiver.golden import Array
from gravswell.quiver.manifest import TensorRecord

Size = int | tuple[str, int] | None
"""Of an output behind its batch: a number; the input, and its axis, that it is as long as; or nothing that is known."""


@dataclass(frozen=True, slots=True)
class FusedInput:
    """An input of the fusion."""

    name: str
    data_type: str
    dims: tuple[int | None, ...]
    """None where it takes any size; the first is the batch."""
    optional: bool
    """Some model does not take it: a request without rows of those that do leaves it out."""

    @property
    def record(self) -> TensorRecord:
        """As a version's signature says it."""
        dims = tuple(-1 if dim is None else dim for dim in self.dims)
        return TensorRecord(name=self.name, data_type=self.data_type, dims=dims, optional=self.optional)


@dataclass(frozen=True, slots=True)
class FusedOutput:
    """An output of the fusion."""

    name: str
    data_type: str
    tail: tuple[Size, ...]
    """The sizes behind the batch."""
    absent: Array | None
    """What the rows of models hold that do not have it; None where every model has."""


@dataclass(frozen=True, slots=True)
class Interface:
    """What goes in beside ``model_id``, and what comes out."""

    inputs: tuple[FusedInput, ...]
    outputs: tuple[FusedOutput, ...]


def interface_of(models: Sequence[Single]) -> Interface:
    """The one interface of ``models``, which are no copies of each other.

    InvalidInputError names the models, the tensor, and what each of them has there.
    """
    inputs = {name: _input(name, models) for name in _names(models, "inputs")}
    outputs = {name: _output(name, models) for name in _names(models, "outputs")}
    for name in (MODEL_ID, *outputs):
        if name in inputs or (name == MODEL_ID and name in outputs):
            whose = next(m for m in models if name in {t.name for t in (*m.inputs, *m.outputs)})
            what = "the fusion's own input" if name == MODEL_ID else "an output of another model"
            raise InvalidInputError(
                f"{whose.label} has a tensor {name!r}, which is the name of {what}: call its input something else with "
                f"rename={{{name!r}: …}}, or its output with output_names"
            )
    return Interface(tuple(inputs.values()), tuple(outputs.values()))


def _names(models: Sequence[Single], side: str) -> list[str]:
    return list(dict.fromkeys(tensor.name for model in models for tensor in getattr(model, side)))


def _having(name: str, models: Sequence[Single], side: str) -> list[tuple[Single, Tensor]]:
    return [(model, tensor) for model in models for tensor in getattr(model, side) if tensor.name == name]


def _input(name: str, models: Sequence[Single]) -> FusedInput:
    having = _having(name, models, "inputs")
    clash = partial(_clash, f"input {name!r}", having, f"rename={{{name!r}: …}}")
    if len({tensor.data_type for _, tensor in having}) > 1 or len({len(tensor.dims) for _, tensor in having}) > 1:
        raise clash()
    dims: list[int | None] = []
    for sizes in zip(*(tensor.dims for _, tensor in having), strict=True):
        numbers = {size for size in sizes if isinstance(size, int)}
        if len(numbers) > 1:
            raise clash()
        open_ = any(not isinstance(size, int) for size in sizes)
        dims.append(None if open_ or not numbers else numbers.pop())
    return FusedInput(name, having[0][1].data_type, tuple(dims), optional=len(having) < len(models))


def _output(name: str, models: Sequence[Single]) -> FusedOutput:
    having = _having(name, models, "outputs")
    clash = partial(_clash, f"output {name!r}", having, "output_names")
    if len({tensor.data_type for _, tensor in having}) > 1 or len({len(tensor.dims) for _, tensor in having}) > 1:
        raise clash()
    tails = {_tail(model, tensor) for model, tensor in having}
    data_type = having[0][1].data_type
    if len(models) == 1:
        return FusedOutput(name, data_type, tails.pop(), None)
    if len(tails) > 1:
        raise clash()
    tail = tails.pop()
    if None in tail:
        raise InvalidInputError(
            f"output {name!r} of {having[0][0].label} has a size that no input of it has and its graph does not state: "
            f"rows of several models cannot stand in it; give the model an output of a fixed size there"
        )
    if len(having) == len(models):
        return FusedOutput(name, data_type, tail, None)
    absent = absent_value(data_type)
    lacking = next(model for model in models if name not in {tensor.name for tensor in model.outputs})
    if absent is None or not all(isinstance(size, int) for size in tail):
        why = f"a {data_type}, which has no value that says so" if absent is None else "of no fixed size"
        raise InvalidInputError(
            f"{having[0][0].label} gives an output {name!r} and {lacking.label} does not: the rows of that would have "
            f"to say that they hold nothing, and {name!r} is {why}; leave it out of the one, or give both one of that "
            f"name with output_names"
        )
    return FusedOutput(name, data_type, tail, absent)


def absent_value(data_type: str) -> Array | None:
    """What says that a row has no such output: NaN, the lowest integer, an empty text. None where nothing can."""
    dtype = numpy_type(data_type)
    if dtype.kind == "f":
        return np.array(np.nan, dtype)
    if dtype.kind == "i":
        return np.array(np.iinfo(dtype).min, dtype)
    return np.array("", np.str_) if dtype.kind == "U" else None


def _tail(model: Single, tensor: Tensor) -> tuple[Size, ...]:
    """The sizes of an output behind the batch, by what is known of them."""
    named: dict[str, tuple[str, int]] = {}
    for taken in model.inputs:
        for axis, dim in enumerate(taken.dims):
            if axis and isinstance(dim, str):
                named.setdefault(dim, (taken.name, axis))
    seen = {sample.outputs[tensor.own].shape[1:] for sample in model.samples if tensor.own in sample.outputs}
    fixed = all(isinstance(dim, int) for taken in model.inputs for dim in taken.dims[1:]) and len(seen) == 1
    observed = next(iter(seen)) if fixed else ()
    return tuple(
        dim if isinstance(dim, int) else observed[k] if fixed else _named(dim, named)
        for k, dim in enumerate(tensor.dims[1:])
    )


def _named(dim: Dim, named: Mapping[str, tuple[str, int]]) -> Size:
    return named.get(dim) if isinstance(dim, str) else None


def _clash(what: str, having: Sequence[tuple[Single, Tensor]], way_out: str) -> InvalidInputError:
    """The first two models that differ in it."""
    first, tensor = having[0]
    other, theirs = next(((m, t) for m, t in having[1:] if _told(t) != _told(tensor)), having[-1])
    return InvalidInputError(
        f"{what} is {_told(tensor)} in {first.label} and {_told(theirs)} in {other.label}: rows of both cannot stand "
        f"in one tensor; give it another name in one of them with {way_out}, or export them alike"
    )


def _told(tensor: Tensor) -> str:
    return f"{tensor.data_type} {[dim if isinstance(dim, int) else -1 for dim in tensor.dims]}"
