"""Two models on one device that have the same weights: held once, where that is asked for."""

import gc
import re
from pathlib import Path

import numpy as np
import pytest

from gravswell.errors import UnsupportedError
from gravswell.partitions.rank import Device, Rank, give_back, inputs_of
from gravswell.quiver.golden import compare

from .graphs import mlp

WIDTH = 2048
WEIGHTS = 2 * 4 * WIDTH * WIDTH
"""Bytes of the matrices that both models have: 32 MiB."""


def anonymous() -> int:
    """Bytes of this process that no file backs."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_weights_are_held_once(tmp_path: Path) -> None:
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for path, columns in zip(paths, (4, 8), strict=True):
        path.write_bytes(mlp(WIDTH, WIDTH, WIDTH, columns).SerializeToString())
    cpu = Device.of("cpu", None, 0)
    Rank(paths[:1], cpu)  # what ONNX Runtime takes by itself
    gc.collect()  # what tests before this one left would go at some moment of it
    give_back()
    before = anonymous()
    shared = Rank(paths, cpu, share_weights=True)
    once = anonymous() - before
    apart = Rank(paths, cpu)
    twice = anonymous() - before - once
    assert shared.shared_bytes >= WEIGHTS
    assert 0.8 * WEIGHTS < once < 1.5 * WEIGHTS < twice
    batches = [inputs_of(session, None, 3) for session in shared.sessions]
    for one, other in zip(shared.predict(batches)[0], apart.predict(batches)[0], strict=True):
        compare(other, one)


def test_a_device_that_takes_no_shared_weights(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="CUDAExecutionProvider takes no weights that are in another's memory"):
        Rank([tmp_path], Device("gpu", 0, "CUDAExecutionProvider"), share_weights=True)


def test_ones_for_whatever_a_model_takes(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(mlp(16, 8, 4).SerializeToString())
    rank = Rank([path], Device.of("cpu", "cpu", 0))
    [batch] = [inputs_of(session, None, 5) for session in rank.sessions]
    np.testing.assert_array_equal(batch["x"], np.ones((5, 16), np.float32))
    answers, timing = rank.predict([batch], repeat=4)
    assert (answers[0]["y"].shape, timing.runs) == ((5, 4), 4)
    assert 0 < timing.best <= timing.first + timing.best
