"""What the workers of a fusion are answered, and the file that it is kept in."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gravswell.errors import InvalidInputError, UnavailableError
from gravswell.fusion.plan import Plan
from gravswell.quiver.arrays import write_arrays
from gravswell.quiver.disk import told
from gravswell.quiver.fusion import MODEL_ID
from gravswell.quiver.golden import Array
from gravswell.quiver.manifest import FusedModel

Answer = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""A fusion: from a batch to its outputs."""


_TAKEN = (MODEL_ID, "worker", "row", "arr_0")
"""What predictions have beside the outputs."""


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
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnavailableError(f"{path.parent}: {told(error)}") from error
        write_arrays(path, {"arr_0": named[next(iter(self.outputs))], **named})


def predict(
    answer: Answer, plan: Plan, inputs: Mapping[str, Array], *, on_rows: Callable[[int], None] = lambda _: None
) -> Predictions:
    """Have the workers of ``plan``, each on a thread of its own, ask their models for the rows of ``inputs``.

    After an error, or an interrupt, every worker ends with the call that it is in.

    :param on_rows: called with the rows that were answered, for a progress display, by the workers' threads.
    """
    pool, ended = ThreadPoolExecutor(len(plan.batches)), threading.Event()

    def asked(worker: int, batches: Sequence[tuple[FusedModel, Array]]) -> list[_Part]:
        parts: list[_Part] = []
        for part in _stream(answer, inputs, worker, batches):
            parts.append(part)
            on_rows(len(part.rows))
            if ended.is_set():
                break
        return parts

    try:
        streams = [pool.submit(asked, worker, batches) for worker, batches in plan.batches.items()]
        parts = [part for stream in as_completed(streams) for part in stream.result()]
    finally:
        ended.set()
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
) -> Iterator[_Part]:
    for model, rows in batches:
        batch = {name: np.asarray(inputs[name])[rows] for name in model.inputs}
        batch[MODEL_ID] = np.full(len(rows), model.id, np.int64)
        yield _Part(worker, model.id, rows, answer(batch))


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
