"""The graph at sizes at which it may be wrong: where what its converter took for granted of them does not hold."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gravswell.errors import ExportError, VerificationError
from gravswell.quiver.exporters.base import Assumption, Inputs, Outputs, Shapes, described
from gravswell.quiver.exporters.sampling import resized

MOST_ANSWERS = 1 << 26
"""Values of an answer from which on nobody is asked for it: it is in memory, and the graph's own beside it."""


class Beyond:
    """The framework's model and its graph, asked for the same inputs."""

    def __init__(
        self,
        reference: Callable[[Inputs], Outputs],
        run: Callable[[Inputs], Outputs],
        agree: Callable[[Outputs, Outputs], object],
        batches: Sequence[Inputs],
        answer: Outputs,
        *,
        given: bool,
    ) -> None:
        """``agree``: raises VerificationError where the second outputs are not the first. ``batches``: what the inputs
        are made of, ``given`` by the user or not; ``answer``: to the first of them.
        """
        self._reference = reference
        self._run = run
        self._agree = agree
        self._batches = batches
        self._given = given
        self._answers_to_value = _values(answer) / max(1, _values(batches[0]))
        self._asked: dict[tuple[tuple[int, ...], ...], bool] = {}

    def proves(self, assumption: Assumption) -> bool:
        """Whether the graph is right there too, or the model takes nothing there; False where neither is known.

        A refusal proves little: the model may want a multiple of something. ExportError where the graph is wrong.
        """
        answered = [self._is_right(assumption.condition, shapes) for shapes in assumption.shapes]
        others = (self._is_right(assumption.condition, shapes) for shapes in assumption.further)
        return any(answered) or any(others) or assumption.every

    def _is_right(self, condition: str, shapes: Shapes) -> bool:
        """Whether the model takes such inputs, and the graph answers them alike."""
        key = tuple(shapes.values())
        if key not in self._asked:
            self._asked[key] = self._ask(condition, shapes)
        return self._asked[key]

    def _ask(self, condition: str, shapes: Shapes) -> bool:
        if self._answers_to_value * sum(map(math.prod, shapes.values())) > MOST_ANSWERS:
            return False
        batch = resized(self._batches, shapes, given=self._given)
        try:
            expected = self._reference(batch)
        except Exception:  # noqa: BLE001 - whatever the user's model raises
            return False
        try:
            self._agree(expected, self._run(batch))
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's own errors share no base
            why = str(error) if isinstance(error, VerificationError) else f"it does not run: {described(error)}"
            sizes = ", ".join(f"{name} {list(array.shape)}" for name, array in batch.items())
            raise ExportError(
                f"the exported graph is right only while {condition}, and the model takes {sizes} too ({why}): it was "
                f"exported as it computes for the sizes of one example; declare a number in place of None where the "
                f"size never changes, or choose between the computations with torch.cond"
            ) from None
        return True


def _values(arrays: Mapping[str, Any]) -> int:
    return sum(np.size(array) for array in arrays.values())
