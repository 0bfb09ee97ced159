"""The fusion is the single models: to the last bit, for the same rows, in one ONNX Runtime."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from gravswell.errors import ExportError, VerificationError
from gravswell.quiver.exporters.base import Inputs, Outputs, described
from gravswell.quiver.exporters.fused.naming import Branch
from gravswell.quiver.exporters.proof import cpu_session, run
from gravswell.quiver.fusion import MODEL_ID
from gravswell.quiver.golden import Array


@dataclass(frozen=True, slots=True)
class Comparison:
    """A fusion's models, and the batches on which they are compared with it.

    A model gets the rows that name it as they stand in the batch, for a runtime may compute one row otherwise than
    several.
    """

    branches: Sequence[Branch]
    table: Sequence[int]
    """The index of its branch for each id, from 1 on."""
    batches: Sequence[Inputs]
    stage: Callable[[str], None]

    def check(self, fused: Path) -> None:
        """VerificationError where the graph in the file ``fused`` answers rows otherwise than their models do alone.

        Operators are computed as they are written, on both sides: how a runtime rearranges them is its own affair.
        """
        for _, what in self._differences(fused, as_written=True):
            raise VerificationError(
                f"the fusion does not answer as {what}; nothing was published. Leave that model out, and serve it as "
                f"an entry of its own"
            )

    def rearranged(self, fused: Path) -> set[int]:
        """The indexes of the branches that ONNX Runtime computes otherwise in ``fused`` than alone, as it optimizes."""
        return {index for index, _ in self._differences(fused, as_written=False)}

    def _differences(self, fused: Path, *, as_written: bool) -> Iterator[tuple[int, str]]:
        session = _opened(fused, as_written)
        answers = [run(session, batch) for batch in self.batches]
        del session  # which holds every weight there is
        whose = np.array([-1, *self.table])
        for index, branch in enumerate(self.branches):
            self.stage(f"comparing with {branch.model.label}")
            single = cpu_session(str(branch.model.path), as_written=as_written)
            for batch, answer in zip(self.batches, answers, strict=True):
                rows = np.flatnonzero(whose[batch[MODEL_ID]] == index)
                if not len(rows):
                    continue
                alone = run(single, {t.own: batch[t.name][rows] for t in branch.model.inputs})
                output = _differing(branch, alone, answer, rows)
                if output is not None:
                    ids = ", ".join(map(str, sorted(set(batch[MODEL_ID][rows].tolist()))))
                    yield (
                        index,
                        f"{branch.model.label} alone does: output {output!r} of the rows of {MODEL_ID} {ids} differs "
                        f"in a batch of {len(batch[MODEL_ID])}",
                    )
                    break


def _opened(fused: Path, as_written: bool) -> ort.InferenceSession:
    try:
        return cpu_session(str(fused), as_written=as_written)
    except Exception as error:  # ONNX Runtime's own errors share no base
        raise ExportError(f"ONNX Runtime does not load the fusion: {described(error)}") from error


def _differing(branch: Branch, alone: Outputs, answer: Outputs, rows: Array) -> str | None:
    """The first output of which a bit differs."""
    outputs = ((t.name, alone[t.own], answer[t.name][rows]) for t in branch.model.outputs)
    return next((name for name, a, b in outputs if not _same_bits(a, b)), None)


def _same_bits(a: Array, b: Array) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return a.tolist() == b.tolist() if a.dtype.kind == "O" else a.tobytes() == b.tobytes()
