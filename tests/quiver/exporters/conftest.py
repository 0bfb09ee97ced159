"""What every export by torch's default exporter begins with, made once for all of these tests."""

from collections.abc import Iterator
from functools import cache

import pytest
import triton  # noqa: F401 - torch's own, which aborts the process where it is loaded after TensorFlow
from torch.onnx._internal.exporter._registration import ONNXRegistry

_registry = staticmethod(cache(ONNXRegistry.from_torchlib))


@pytest.fixture(scope="module", autouse=True)
def one_table_of_operators() -> Iterator[None]:
    """torch parses its five hundred operators anew for each export, two thirds of the time of a small one.

    The table depends on nothing but the opset, and only custom operators, of which we have none, would change it.
    Exports of the notebook and of the command line are tested without this.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", _registry)
        yield
