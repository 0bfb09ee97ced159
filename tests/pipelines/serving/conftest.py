"""A repository of small models and pipelines over them, and one real Triton that serves it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gravswell import quiver as qv
from gravswell.serving.triton import EmbeddedTriton

from ...serving.triton.conftest import graph, scale
from . import functions

RANKS = 8

TABLE = np.arange(12, dtype=np.float32).reshape(3, 4)


def picking() -> onnx.ModelProto:
    """``y = TABLE[row]``; ONNX Runtime refuses a row that is not there."""
    return graph(
        [helper.make_node("Gather", ["table", "row"], ["y"], axis=0)],
        [("row", TensorProto.INT64, ["n"])],
        [("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(TABLE, "table")],
    )


def _rank() -> onnx.ModelProto:
    """Twelve of the 96 rows of a matrix of 0.5."""
    return graph(
        [helper.make_node("MatMul", ["part", "weight"], ["product"])],
        [("part", TensorProto.FLOAT, ["n", 96 // RANKS])],
        [("product", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(np.full((96 // RANKS, 16), 0.5, np.float32), "weight")],
    )


@pytest.fixture(scope="package")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``double`` has a second version, which is another function and no pipeline's."""
    root = tmp_path_factory.mktemp("pipelines") / "r"
    repository = qv.ModelRepository(root)
    for name, factor in {"double": 2.0, "triple": 3.0}.items():
        repository.add(name).export_version(scale(factor))
    repository.add("batched").export_version(scale(5.0), max_batch_size=8)
    waiting = repository.add("waiting")
    waiting.export_version(scale(5.0), max_batch_size=16)
    # As many rows as two calls of one row have, or of the five with which it is verified: it waits for a second call.
    waiting.config.dynamic_batching.preferred_batch_size.extend([2, 10])
    waiting.config.dynamic_batching.max_queue_delay_microseconds = 60_000_000
    repository.add("together", qv.Platform.PIPELINE).export_version(functions.together)
    samples = {"row": np.array([0, 2], np.int64)}
    repository.add("pick").export_version(picking(), sample_inputs=samples)
    for name in ("power", "four", "eight", "telling", "rows", "packaged", "pinned"):
        how = {"max_batch_size": 8} if name == "rows" else {}
        repository.add(name, qv.Platform.PIPELINE).export_version(getattr(functions, name), **how)
    repository.add("looking", qv.Platform.PIPELINE).export_version(functions.looking, sample_inputs=samples)
    samples = {"x": np.ones((2, 4), np.float32), "steps": np.array([3])}
    repository.add("unrolled", qv.Platform.PIPELINE).export_version(functions.unrolled, sample_inputs=samples)
    for k in range(RANKS):
        repository.add(f"rank{k}").export_version(_rank())
    ranks = {f"rank{k}": f"rank{k}" for k in range(RANKS)}
    samples = dict.fromkeys("xy", np.ones((128, 96), np.float32))
    oracle = qv.Pipeline(
        functions.predict,
        inputs=dict.fromkeys("xy", ("FP32", (None, 96))),
        output_names=["x", "z"],
        members=ranks,
        compile_to="python",
    )
    repository.add("predict", qv.Platform.PIPELINE).export_version(oracle, sample_inputs=samples)
    repository.models["double"].export_version(scale(-2.0))
    return root


@pytest.fixture(scope="package")
def server(root: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(root, start_timeout=400) as server:
        yield server
