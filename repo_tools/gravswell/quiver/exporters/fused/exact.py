"""The fusion is the single models: to the last bit, for the same rows, in one ONNX Runtime."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gravswell.errors import ExportError, VerificationError
from gravswell.quiver.exporters.base import Inputs, Outputs, described
from gravswell.quiver.exporters.fused.naming import Branch
from gravswell.quiver.exporters.proof import cpu_session, run
from gravswell.quiver.fusion import MODEL_ID
from gravswell.quiver.golden import Array


def check_exact(
    fused: Path,
    branches: Sequence[Branch],
    table: Sequence[int],
    batches: Sequence[Inputs],
    stage: Callable[[str], None],
) -> None:
    """VerificationError where the graph in the file ``fused`` answers rows otherwise than their models do alone.

    ``table``: the index of its branch for each id, from 1 on. A model gets the rows that name it as they stand in the
    batch, for a runtime may compute one row otherwise than several. Operators are computed as they are written, on both
    sides: how a runtime rearranges them is its own affair, and the ordinary proof allows for it.
    """
    try:
        session = cpu_session(str(fused), as_written=True)
    except Exception as error:  # ONNX Runtime's own errors share no base
        raise ExportError(f"ONNX Runtime does not load the fusion: {described(error)}") from error
    answers = [run(session, batch) for batch in batches]
    del session  # which holds every weight there is
    whose = np.array([-1, *table])
    for index, branch in enumerate(branches):
        stage(f"comparing with {branch.model.label}")
        single = cpu_session(str(branch.model.path), as_written=True)
        for batch, answer in zip(batches, answers, strict=True):
            rows = np.flatnonzero(whose[batch[MODEL_ID]] == index)
            if len(rows):
                alone = run(single, {t.own: batch[t.name][rows] for t in branch.model.inputs})
                _check_equal(branch, batch, alone, answer, rows)


def _check_equal(branch: Branch, batch: Inputs, alone: Outputs, answer: Outputs, rows: Array) -> None:
    for tensor in branch.model.outputs:
        if not _same_bits(alone[tensor.own], answer[tensor.name][rows]):
            ids = ", ".join(map(str, sorted(set(batch[MODEL_ID][rows].tolist()))))
            raise VerificationError(
                f"the fusion does not answer as {branch.model.label} alone does: output {tensor.name!r} of the rows of "
                f"{MODEL_ID} {ids} differs in a batch of {len(batch[MODEL_ID])}; nothing was published"
            )


def _same_bits(a: Array, b: Array) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return a.tolist() == b.tolist() if a.dtype.kind == "O" else a.tobytes() == b.tobytes()
