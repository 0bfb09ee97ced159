"""What the workers of a fusion are answered, and the file that it is kept in."""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gravswell.errors import InvalidInputError, UnavailableError
from gravswell.fusion.plan import planned
from gravswell.fusion.workers import Worker
from gravswell.quiver.disk import replace_file, told
from gravswell.quiver.fusion import MODEL_ID
from gravswell.quiver.golden import Array
from gravswell.quiver.manifest import FusedModel, TensorRecord

Answer = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""A fusion: from a batch to its outputs."""


_TAKEN = (MODEL_ID, "worker", "row", "arr_0", "file", "allow_pickle")
"""What predictions have beside the outputs, and what ``np.savez`` calls its own arguments."""


def check_outputs(names: Iterable[str]) -> None:
    """InvalidInputError for an output whose name is that of something else in a file of predictions."""
    clash = next((name for name in names if name in _TAKEN), None)
    if clash is not None:
        raise InvalidInputError(
            f"an output is called {clash!r}, and predictions have something else of that name: give it another one "
            f"with output_names"
        )


@dataclass(frozen=True, slots=True)
class Predictions:
    """Answers, a row for each row of the inputs and each model that was asked: by model, and by row within one."""

    outputs: dict[str, Array]
    """The fusion's outputs."""
    model_id: Array
    worker: Array
    row: Array
    """Which row of the inputs it was, from 0 on."""
    dropped: int
    """Rows at the end that made no whole batch, over all models."""

    def arrays(self) -> dict[str, Array]:
        """All of it by name. InvalidInputError as of :func:`check_outputs`."""
        check_outputs(self.outputs)
        return {**self.outputs, MODEL_ID: self.model_id, "worker": self.worker, "row": self.row}

    def save(self, path: Path) -> None:
        """Write ``path``: the first output as ``arr_0``, and all arrays by name; nothing in it needs pickle."""
        named = self.arrays()
        whole: dict[str, Any] = {name: _storable(array) for name, array in named.items()}
        data = io.BytesIO()
        np.savez(data, whole[next(iter(self.outputs))], allow_pickle=False, **whole)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, data.getvalue())
        except OSError as error:
            raise UnavailableError(f"{path}: {told(error)}") from error


def predict(
    answer: Answer,
    models: Sequence[FusedModel],
    workers: Sequence[Worker],
    inputs: Mapping[str, Array],
    *,
    batch_size: int = 1,
    drop_remainder: bool = False,
    tensors: Sequence[TensorRecord] = (),
    on_rows: Callable[[int], None] = lambda _: None,
) -> Predictions:
    """Have ``workers``, each on a thread of its own, ask their models for the rows of ``inputs``.

    Each model is asked for every row; where several workers have the same model, its batches are dealt out among them.
    With ``model_id`` in ``inputs`` each row is for that model alone. A model reads the inputs that its row in the table
    of ids names, and needs no others.

    :param batch_size: rows of one call.
    :param drop_remainder: leave out the rows at the end that make no whole batch, of each model.
    :param tensors: the fusion's inputs, which its version's signature says: types and shapes are held to them first.
    :param on_rows: called with the rows that were answered, for a progress display.
    :raises InvalidInputError: as of :func:`planned`, and before anything is asked.
    """
    plan = planned(inputs, models, workers, batch_size=batch_size, drop_remainder=drop_remainder, tensors=tensors)
    pool = ThreadPoolExecutor(len(plan.batches))
    try:
        streams = [
            pool.submit(list, _stream(answer, inputs, worker, batches, on_rows))
            for worker, batches in plan.batches.items()
        ]
        parts = [part for stream in streams for part in stream.result()]
    finally:
        pool.shutdown(cancel_futures=True)
    return _together(parts, plan.dropped)


@dataclass(frozen=True, slots=True)
class _Part:
    """What one call was answered."""

    worker: int
    model_id: int
    rows: Array
    outputs: Mapping[str, Array]


def _stream(
    answer: Answer,
    inputs: Mapping[str, Array],
    worker: int,
    batches: Sequence[tuple[FusedModel, Array]],
    on_rows: Callable[[int], None],
) -> Iterator[_Part]:
    for model, rows in batches:
        batch = {name: np.asarray(inputs[name])[rows] for name in model.inputs}
        batch[MODEL_ID] = np.full(len(rows), model.id, np.int64)
        yield _Part(worker, model.id, rows, answer(batch))
        on_rows(len(rows))


def _together(parts: Sequence[_Part], dropped: int) -> Predictions:
    ids = np.concatenate([np.full(len(part.rows), part.model_id, np.int64) for part in parts])
    workers = np.concatenate([np.full(len(part.rows), part.worker, np.int64) for part in parts])
    rows = np.concatenate([part.rows for part in parts])
    order = np.lexsort((rows, ids))
    names = parts[0].outputs
    try:
        outputs = {name: np.concatenate([part.outputs[name] for part in parts])[order] for name in names}
    except ValueError as error:
        raise InvalidInputError(f"the answers to different rows have different shapes ({error})") from None
    return Predictions(outputs, ids[order], workers[order], rows[order], dropped)


def _storable(array: Array) -> Array:
    """Text as fixed-width strings, so that no reader has to unpickle anything."""
    if array.dtype.kind != "O":
        return array
    texts = [text.decode() if isinstance(text, bytes) else str(text) for text in array.ravel().tolist()]
    return np.array(texts, np.str_).reshape(array.shape)
