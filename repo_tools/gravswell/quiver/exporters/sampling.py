"""The batches that a model is proved with: the user's own, or random ones of the shapes that were declared."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gravswell.errors import InvalidInputError
from gravswell.quiver.datatypes import numpy_type, parse_data_type
from gravswell.quiver.exporters.base import ExportRequest, Inputs, InputSpec, as_arrays
from gravswell.quiver.golden import Array

BATCH_SIZES = (2, 1, 5)
"""Rows at which a dynamic first dim is proved. The first is what a model is traced with: tracers treat 1 specially."""

FAR_ROWS = 17
"""Rows of one batch more, for models that are traced: they may treat larger batches otherwise."""

FAR_SIZES = (257, 256, 129, 128)
"""Sizes of the dynamic dims behind the first in another one: the first of these that the model takes."""

FAR_VALUES = 1 << 19
"""Most values of such a batch."""

FAR_ANSWERS = 1 << 22
"""Most values of the answer to one: a language model gives a vocabulary's scores for each of its tokens."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How large the dynamic dims behind the first are, and how large random integers get."""

    sizes: tuple[int, int]
    below: int


PLANS = (Plan((32, 64), 100), Plan((32, 64), 2), Plan((64, 128), 2), Plan((8, 16), 2), Plan((1, 2), 2))
"""Tried in order until the model accepts one: small vocabularies, strided networks, short windows."""


def specs_of_samples(request: ExportRequest) -> tuple[InputSpec, ...]:
    """Inputs as the user's first batch has them, with any number of rows."""
    sample = as_arrays(request.samples[0]) if request.samples else {}
    return tuple(InputSpec(name, None, (None, *array.shape[1:])) for name, array in sample.items() if array.ndim)


def type_of_samples(request: ExportRequest, spec: InputSpec) -> str | None:
    """The type of an array of integers or booleans; floats and lists become what the model computes in."""
    given = request.samples[0].get(spec.name) if request.samples else None
    if not hasattr(given, "dtype"):
        return None
    dtype = np.asarray(given).dtype
    return parse_data_type(dtype, tensor=spec.name) if dtype.kind in "iub" else None


def is_batched(inputs: Sequence[InputSpec]) -> bool:
    """Whether every input leads with a dynamic dim."""
    return bool(inputs) and all(spec.shape[:1] == (None,) for spec in inputs)


def random_batches(inputs: Sequence[InputSpec], plan: Plan, below: Mapping[str, int] | None = None) -> list[Inputs]:
    """Three batches, always the same ones: sizes :data:`BATCH_SIZES` where the first dim is dynamic.

    ``below``: how large the integers of an input get, where that is known.
    """
    rng = np.random.default_rng(20151)
    limits = below or {}
    return [
        {spec.name: _random(spec, rows, plan.sizes[k % 2], limits.get(spec.name, plan.below), rng) for spec in inputs}
        for k, rows in enumerate(BATCH_SIZES)
    ]


def _random(spec: InputSpec, rows: int, size: int, below: int, rng: np.random.Generator) -> Array:
    shape = [(rows if i == 0 else size) if dim is None else dim for i, dim in enumerate(spec.shape)]
    dtype = numpy_type(spec.data_type or "TYPE_FP32")
    if dtype.kind == "f":
        return np.asarray(rng.standard_normal(shape)).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    if dtype.kind in "iu":
        return np.asarray(rng.integers(0, below, shape)).astype(dtype)
    return np.asarray(rng.integers(0, below, shape)).astype(np.str_)


def far_shapes(inputs: Sequence[InputSpec], batch: Inputs, answered: int) -> Iterator[list[dict[str, tuple[int, ...]]]]:
    """Shapes far from those of ``batch``: more rows, then longer ones; the first of each that the model takes is meant.

    None is of more than :data:`FAR_VALUES` values, nor likely to be answered with more than :data:`FAR_ANSWERS`, where
    ``batch`` is answered with that many: what is proved is in memory, and kept with the version.
    """
    values = max(1, sum(array.size for array in batch.values()))
    batched = is_batched(inputs)
    rows = [{spec.name: (FAR_ROWS, *batch[spec.name].shape[1:]) for spec in inputs}] if batched else []
    lengths = [
        {
            spec.name: tuple(
                far if dim is None and (axis or not batched) else have
                for axis, (dim, have) in enumerate(zip(spec.shape, batch[spec.name].shape, strict=True))
            )
            for spec in inputs
        }
        for far in FAR_SIZES
    ]
    for alternatives in (rows, lengths):
        yield [
            shapes
            for shapes in alternatives
            if any(shape != batch[name].shape for name, shape in shapes.items())
            and sum(map(math.prod, shapes.values())) <= min(FAR_VALUES, values * FAR_ANSWERS // max(1, answered))
        ]


def resized(batches: Sequence[Inputs], shapes: Mapping[str, tuple[int, ...]], *, given: bool) -> Inputs:
    """A batch of those shapes out of the values of ``batches``, always the same one.

    ``given``: they are the user's, whose rows and columns mean something, so that whole ones are repeated.
    """
    rng = np.random.default_rng(20151)
    batch: Inputs = {}
    for name, shape in shapes.items():
        if given:
            array = batches[0][name]
            for axis, size in enumerate(shape):
                if size != array.shape[axis]:
                    array = np.take(array, rng.integers(0, array.shape[axis], size), axis)
            batch[name] = array
        else:
            batch[name] = rng.choice(np.concatenate([batch[name].ravel() for batch in batches]), shape)
    return batch


def given_batches(inputs: Sequence[InputSpec], samples: Sequence[Mapping[str, Any]]) -> list[Inputs]:
    """The user's batches in the declared types, and where the first dim is dynamic the first one at every size too."""
    batches = [_checked(inputs, sample, k) for k, sample in enumerate(samples)]
    if not is_batched(inputs):
        return batches
    present = {rows_of(batch) for batch in batches}
    return [with_rows(batches[0], rows) for rows in BATCH_SIZES if rows not in present] + batches


def rows_of(batch: Inputs) -> int:
    """How many rows a batch has: 1 where nothing in it has any."""
    return next((len(array) for array in batch.values() if array.ndim), 1)


def with_rows(batch: Inputs, rows: int) -> Inputs:
    """So many rows of the batch, over and over from its first one; the batch itself where it has as many."""
    if rows == rows_of(batch):  # of a model that takes no other number, some inputs may have no rows at all
        return batch
    return {name: np.take(array, np.arange(rows) % len(array), axis=0) for name, array in batch.items()}


def _checked(inputs: Sequence[InputSpec], sample: Mapping[str, Any], k: int) -> Inputs:
    names = [spec.name for spec in inputs]
    if sorted(names) != sorted(sample):
        raise InvalidInputError(
            f"sample {k} has inputs {', '.join(sorted(sample))}; the model takes {', '.join(names)}"
        )
    batch: Inputs = {}
    for spec in inputs:
        array = np.asarray(sample[spec.name])
        if not spec.admits(array.shape) or 0 in array.shape:
            raise InvalidInputError(f"sample {k}: {spec.name} has shape {list(array.shape)}, which is no {spec.dims}")
        converted = _converted(array, numpy_type(spec.data_type or "TYPE_FP32"))
        if converted is None:
            raise InvalidInputError(
                f"sample {k}: {spec.name} holds {array.dtype} values that are no {spec.data_type}: "
                f"give them in that type, or declare the input's own as its type"
            )
        batch[spec.name] = converted
    return batch


def _converted(array: Array, dtype: np.dtype[Any]) -> Array | None:
    """``array`` in that type; None where that would change what it says, beyond the rounding of floats."""
    if dtype.kind == "U":
        texts = [x.decode(errors="replace") if isinstance(x, bytes) else x for x in array.ravel().tolist()]
        return np.array(texts, np.str_).reshape(array.shape) if all(isinstance(x, str) for x in texts) else None
    if array.dtype.kind not in {"f": "fiub", "b": "b"}.get(dtype.kind, "iub"):
        return None
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    exact = dtype.kind == "f" or np.array_equal(converted, array)
    return converted if exact and np.array_equal(np.isfinite(converted), np.isfinite(array)) else None
