"""The batches that prove a fusion: each id alone, and all of them mixed, with the single models' own answers."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gravswell.quiver.exporters.base import Inputs, Outputs
from gravswell.quiver.exporters.fused.interface import FusedOutput, Interface
from gravswell.quiver.exporters.fused.singles import Single
from gravswell.quiver.exporters.sampling import BATCH_SIZES
from gravswell.quiver.fusion import MODEL_ID
from gravswell.quiver.golden import Array, Sample

FEW = 16
"""Ids up to which each is proved alone at every size of a batch; of more, each at one of them. Mixed likewise."""

_Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One row for a model: which, and whence."""

    number: int
    """The id."""
    model: Single
    sample: Sample
    at: int


def batches_of(models: Sequence[Single], interface: Interface) -> list[tuple[Inputs, Outputs]]:
    """``models``: the model of each id, from 1 on. The batches are the same each time, the smallest first: of
    large ones not all are kept with the version.
    """
    found = [_batch(rows, interface) for rows in _mixed(models)] if len(models) > 1 else []
    sizes = itertools.cycle(BATCH_SIZES)
    for number, model in enumerate(models, 1):
        for size in BATCH_SIZES if len(models) <= FEW else (next(sizes),):
            found += [_batch(_some(number, model, sample, size), interface) for sample in _apart(model)]
    return sorted(found, key=lambda batch: sum(array.nbytes for side in batch for array in side.values()))


def _apart(model: Single) -> list[Sample]:
    """One of its samples of each shape behind the batch."""
    return list({_shapes(model, sample): sample for sample in model.samples}.values())


def _shapes(model: Single, sample: Sample) -> _Shapes:
    return tuple(sorted((t.name, sample.inputs[t.own].shape[1:]) for t in model.inputs))


def _some(number: int, model: Single, sample: Sample, size: int, skip: int = 0) -> list[Row]:
    rows = len(next(iter(sample.inputs.values())))
    return [Row(number, model, sample, (skip + k) % rows) for k in range(size)]


def _mixed(models: Sequence[Single]) -> Iterator[list[Row]]:
    """Rows of all ids in one batch, at several sizes; of those only whose samples have one shape in what they share."""
    fitting: list[list[tuple[int, Single, Sample]]] = []
    for number, model in enumerate(models, 1):
        for sample in _apart(model):
            place = next((g for g in fitting if _together(g, number, model, sample)), None)
            if place is None:
                fitting.append(place := [])
            place.append((number, model, sample))
    rng = np.random.default_rng(20151)
    for group in fitting:
        if len({number for number, _, _ in group}) > 1:
            for size in (1, 3) if len(models) <= FEW else (1,):
                rows = [row for k, (n, m, s) in enumerate(group) for row in _some(n, m, s, size, skip=k)]
                yield [rows[int(k)] for k in rng.permutation(len(rows))]


def _together(group: Sequence[tuple[int, Single, Sample]], number: int, model: Single, sample: Sample) -> bool:
    """Whether the sample has the sizes of those that are in the group, where it shares a tensor with them."""
    if any(n == number for n, _, _ in group):
        return False
    mine = dict(_shapes(model, sample))
    return all(mine.get(name, shape) == shape for _, other, s in group for name, shape in _shapes(other, s))


def _batch(rows: Sequence[Row], interface: Interface) -> tuple[Inputs, Outputs]:
    inputs: Inputs = {MODEL_ID: np.array([row.number for row in rows], np.int64)}
    for taken in interface.inputs:
        values = [_taken(row, taken.name) for row in rows]
        if any(value is not None for value in values):  # others are left out: all that may be are optional
            inputs[taken.name] = _stacked(values)
    return inputs, {o.name: _stacked(_given(row, o) for row in rows) for o in interface.outputs if _is_told(rows, o)}


def _taken(row: Row, name: str) -> Array | None:
    own = next((t.own for t in row.model.inputs if t.name == name), None)
    return None if own is None else row.sample.inputs[own][row.at]


def _is_told(rows: Sequence[Row], output: FusedOutput) -> bool:
    """Whether every row's model says in its sample what it gives there, or gives nothing there."""
    told = [(row.sample.outputs, _own(row, output)) for row in rows]
    return all(own is None or own in outputs for outputs, own in told)


def _own(row: Row, output: FusedOutput) -> str | None:
    return next((t.own for t in row.model.outputs if t.name == output.name), None)


def _given(row: Row, output: FusedOutput) -> Array:
    own = _own(row, output)
    if own is not None:
        return np.asarray(row.sample.outputs[own][row.at])
    assert output.absent is not None, "refused by the interface"
    return np.full([size for size in output.tail if isinstance(size, int)], output.absent)


def _stacked(values: Iterable[Array | None]) -> Array:
    """Rows as one array; those whose model takes no such input hold zeros, which nothing reads."""
    listed = list(values)
    like = next(value for value in listed if value is not None)
    return np.stack([np.zeros_like(like) if value is None else value for value in listed])
