"""Models that others made, for the tests of this folder."""

import pytest

from .carrying import Carried, carried_by


@pytest.fixture(scope="session")
def carried() -> Carried:
    """``carried("package==1.0", {"package/model.onnx": sha256})``: the folder that it is in."""
    return carried_by
