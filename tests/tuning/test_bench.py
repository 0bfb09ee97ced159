"""The batch that requests are made of."""

import numpy as np
import pytest

from gravswell.quiver.config import parse_config
from gravswell.quiver.exporters.sampling import with_rows
from gravswell.quiver.signature import tensors_of
from gravswell.tuning.bench import fixed_rows

ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)


def _fixed(*dims: str, inputs: dict[str, np.ndarray]) -> int | None:  # type: ignore[type-arg]
    text = "".join(
        f'input {{ name: "{name}" data_type: TYPE_FP32 dims: [{d}] }} ' for name, d in zip(inputs, dims, strict=True)
    )
    return fixed_rows(tensors_of(parse_config(text)), inputs)


def test_rows_come_over_and_over() -> None:
    assert with_rows({"x": ROWS}, 4)["x"][:, 0].tolist() == [0, 2, 4, 0]
    assert with_rows({"x": ROWS}, 1)["x"].tolist() == [[0, 1]]


def test_any_number_of_rows() -> None:
    assert _fixed("-1, 2", "-1", inputs={"x": ROWS, "y": np.ones(3)}) is None


@pytest.mark.parametrize("other", [np.ones(1), np.ones((5, 2)), np.ones(())])
def test_a_model_that_takes_no_other_number_gets_the_batch_as_it_is(other: np.ndarray) -> None:  # type: ignore[type-arg]
    """Such as a threshold beside the rows: it has none."""
    inputs = {"x": ROWS, "threshold": other}
    rows = _fixed("-1, 2", "1", inputs=inputs)
    assert rows is not None
    asked = with_rows(inputs, rows)
    assert {name: array.shape for name, array in asked.items()} == {n: a.shape for n, a in inputs.items()}
