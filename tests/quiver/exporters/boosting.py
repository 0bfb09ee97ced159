"""Rows with missing values, zeros and categories, and what is to be learned of them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from gravswell import quiver as qv
from gravswell.quiver.golden import load_golden

_RNG = np.random.default_rng(0)

CATEGORY = 5
"""Which column holds categories, 0 to 39."""

WHOLE = _RNG.normal(size=(400, 6)) * [1, 10, 1000, 1, 1, 0] + [0, 0, 5000, 0, 0, 0]
WHOLE[:, CATEGORY] = _RNG.integers(0, 40, len(WHOLE))
Y = WHOLE[:, 0] + WHOLE[:, 1] / 10 + (WHOLE[:, 2] > 5000) + 1.5 * (WHOLE[:, CATEGORY] % 3) + _RNG.normal(size=400) / 10
POSITIVE = np.exp(Y / 4)
TWO = (np.median(Y) < Y).astype(int)
THREE = np.digitize(Y, np.quantile(Y, [0.33, 0.66]))
X = np.where(_RNG.random(WHOLE.shape) < 0.1, np.nan, WHOLE)
"""With every tenth value missing."""

BINARY = {"label": ("TYPE_INT64", (-1,)), "probabilities": ("TYPE_FP32", (-1, 2))}
TERNARY = {"label": ("TYPE_INT64", (-1,)), "probabilities": ("TYPE_FP32", (-1, 3))}
NUMBER = {"variable": ("TYPE_FP32", (-1, 1))}


def exported(entry: qv.Entry, model: Any, **arguments: Any) -> dict[str, Any]:
    """Export, check the input and that the proof reached missing values, and return the outputs by name."""
    path = Path(entry.export_version(model, **arguments))
    assert {n: r.dims for n, r in entry.inputs.items()} == {"x": (-1, X.shape[1])}
    rows = np.concatenate([sample.inputs["x"] for sample in load_golden(path.parent / ".golden.npz")])
    assert len(rows) > 250
    assert np.isnan(rows).any() == (rows.dtype.kind == "f")
    return {n: (r.data_type, r.dims) for n, r in entry.outputs.items()}


def served(entry: qv.Entry, x: Any) -> list[Any]:
    """What the entry's newest version answers in ONNX Runtime."""
    found: list[Any] = ort.InferenceSession(entry.versions[-1].location).run(None, {"x": x})
    return found
