"""What the workers of a fusion do beside one another."""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from gravswell.fusion import assigned, planned, predict
from gravswell.quiver.manifest import FusedModel

ROWS = 30


def test_an_error_of_one_worker_ends_the_others() -> None:
    models = [FusedModel(id=number, name="m", inputs=("x",), outputs=("y",)) for number in (1, 2)]
    inputs = {"x": np.zeros((ROWS, 1), np.float32)}
    plan = planned(inputs, models, assigned(2, models))
    assert plan.rows == 2 * ROWS
    failing, failed_on, answered = threading.Event(), threading.current_thread(), 0

    def answer(batch: Mapping[str, Any]) -> Mapping[str, Any]:
        nonlocal answered, failed_on
        if batch["model_id"][0] == 2:
            failed_on = threading.current_thread()
            failing.set()
            raise ValueError("no")
        assert failing.wait(60)
        failed_on.join(60)  # it ends once all are told to
        assert not failed_on.is_alive()
        answered += 1
        return {"y": batch["x"]}

    with pytest.raises(ValueError, match="no"):
        predict(answer, plan, inputs)
    assert answered == 1, "the other worker went on after the call that it was in"
