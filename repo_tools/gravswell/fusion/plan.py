"""Which rows each worker of a fusion asks of which model, and whether they can be asked at all.

It needs no answers: so whatever is wrong with the rows is told before a fusion is published, or anything is asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gravswell.errors import InvalidInputError
from gravswell.fusion.workers import Worker
from gravswell.quiver.datatypes import numpy_type
from gravswell.quiver.fusion import MODEL_ID
from gravswell.quiver.golden import Array
from gravswell.quiver.manifest import FusedModel, TensorRecord


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be asked."""

    batches: dict[int, list[tuple[FusedModel, Array]]]
    """By worker: the model of each call, and the rows of the inputs, from 0 on."""
    dropped: int
    """Rows at the end that make no whole batch, over all models."""

    @property
    def rows(self) -> int:
        """Rows that are asked, over all models."""
        return sum(len(rows) for batches in self.batches.values() for _, rows in batches)


def planned(
    inputs: Mapping[str, Array],
    models: Sequence[FusedModel],
    workers: Sequence[Worker],
    *,
    batch_size: int = 1,
    drop_remainder: bool = False,
    tensors: Sequence[TensorRecord] = (),
) -> Plan:
    """Each model's rows, dealt out in batches among the workers that ask it.

    Each model is asked for every row; with ``model_id`` in ``inputs`` each row is for that model alone. A model reads
    the inputs that its row in the table of ids names, and needs no others.

    :param batch_size: rows of one call.
    :param drop_remainder: leave out the rows at the end that make no whole batch, of each model.
    :param tensors: the fusion's inputs, as far as the types and shapes of ``inputs`` are to be held to them.
    :raises InvalidInputError: an input is missing or not as the fusion takes it, an id is unknown or of a model that
        no worker asks, or there is nothing to ask.
    """
    if batch_size < 1:
        raise InvalidInputError(f"batch_size={batch_size}: use 1 or more")
    check_ids(inputs, models, workers)
    asked = {model.id: model for model in models if any(worker.model_id == model.id for worker in workers)}
    rows = _rows(inputs, asked, tensors)
    ids = np.asarray(inputs[MODEL_ID]).reshape(-1) if MODEL_ID in inputs else None
    if ids is not None and len(ids) != rows:
        raise InvalidInputError(f"{MODEL_ID} has {len(ids)} values for {rows} rows: write one for each row")
    batches: dict[int, list[tuple[FusedModel, Array]]] = {worker.worker: [] for worker in workers}
    dropped = 0
    for model in asked.values():
        own = np.arange(rows) if ids is None else np.flatnonzero(ids == model.id)
        kept = len(own) - len(own) % batch_size if drop_remainder else len(own)
        dropped += len(own) - kept
        its = [worker.worker for worker in workers if worker.model_id == model.id]
        for k, start in enumerate(range(0, kept, batch_size)):
            batches[its[k % len(its)]].append((model, own[start : min(start + batch_size, kept)]))
    if not any(batches.values()):
        raise InvalidInputError(
            f"there is nothing to ask: {rows} rows make no whole batch of {batch_size} for any model"
        )
    return Plan(batches, dropped)


def check_ids(inputs: Mapping[str, Array], models: Sequence[FusedModel], workers: Sequence[Worker]) -> None:
    """InvalidInputError where a row names no model, or one that no worker asks. Of ``models`` ids and names count."""
    if MODEL_ID not in inputs:
        return
    ids = np.asarray(inputs[MODEL_ID])
    if ids.dtype.kind not in "iu":
        raise InvalidInputError(f"{MODEL_ID} is {ids.dtype}: write whole numbers, one of 1 to {len(models)} a row")
    named = set(ids.reshape(-1).tolist())
    unknown = sorted(named - {model.id for model in models})
    if unknown:
        raise InvalidInputError(f"{MODEL_ID} is {unknown[0]} for a row: write one of 1 to {len(models)} for each row")
    idle = [model for model in models if model.id in named - {worker.model_id for worker in workers}]
    if idle:
        raise InvalidInputError(
            f"rows name model {idle[0].id} ({idle[0].name}), which none of {len(workers)} workers asks: have "
            f"{idle[-1].id} workers or more (--workers), or one for each model"
        )


def _rows(inputs: Mapping[str, Array], asked: Mapping[int, FusedModel], tensors: Sequence[TensorRecord]) -> int:
    taken = {tensor.name: tensor for tensor in tensors}
    lengths: dict[str, int] = {}
    for model in asked.values():
        for name in model.inputs:
            if name not in inputs:
                raise InvalidInputError(
                    f"model {model.id} ({model.name}) reads {', '.join(model.inputs)}, and there is no {name}; "
                    f"there are: {', '.join(inputs) or 'none'}"
                )
            if name in taken:
                _check_fits(np.asarray(inputs[name]), taken[name], model)
            lengths[name] = len(inputs[name]) if np.ndim(inputs[name]) else 0
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InvalidInputError(f"the inputs have different numbers of rows: {told}")
    return next(iter(lengths.values()))


def _check_fits(array: Array, tensor: TensorRecord, model: FusedModel) -> None:
    """Nothing is converted: what a type cannot hold would be another question than was meant."""
    dtype = numpy_type(tensor.data_type)
    texts = dtype.kind == "U"
    fits = len(array.shape) == len(tensor.dims) and all(
        dim in (-1, size) for size, dim in zip(array.shape, tensor.dims, strict=True)
    )
    if fits and (array.dtype.kind in "USO" if texts else array.dtype == dtype):
        return
    way_out = f"convert it with .astype({'str' if texts else dtype.name!r})" if fits else "give it that shape"
    raise InvalidInputError(
        f"input {tensor.name!r} is {array.dtype} {list(array.shape)}, and model {model.id} ({model.name}) takes "
        f"{tensor.data_type} {list(tensor.dims)}: {way_out}"
    )
