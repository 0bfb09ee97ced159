"""What a user gives as batches."""

from typing import Any

import numpy as np
import pytest

from gravswell.errors import InvalidInputError
from gravswell.quiver.request import batches_of

ROWS = np.zeros((4, 3), np.float32)


@pytest.mark.parametrize("given", [{"x": ROWS}, [{"x": ROWS}], ({"x": ROWS},)])
def test_one_batch_or_several(given: Any) -> None:
    assert [list(batch) for batch in batches_of(given)] == [["x"]]
    assert batches_of(None) == ()


@pytest.mark.parametrize("given", [ROWS, [ROWS], np.float32(1), 5, "x.npz", [], {}, [{}]])
def test_what_is_no_batch(given: Any) -> None:
    """An array without a name is what one gives first."""
    with pytest.raises(InvalidInputError, match="calibration is a batch by input name"):
        batches_of(given, "calibration")
