"""What a scikit-learn estimator says itself where the converter's graph has an output."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gravswell.errors import ExportError
from gravswell.quiver.exporters.base import Outputs
from gravswell.quiver.exporters.sklearn.voting import shares
from gravswell.quiver.golden import Array

_TIE = 1e-3
"""Scores of two classes that are no further apart are as good as equal: far above rounding in float32."""

_LABELS, _PROBABILITIES, _VALUES, _SCORES = (
    ("label", "output_label"),
    ("probabilities", "output_probability"),
    ("variable", "transformed_column"),
    "scores",
)
_KNOWN = {*_LABELS, *_PROBABILITIES, *_VALUES, _SCORES}
"""What skl2onnx 1.20 calls its outputs; test_sklearn.py exports an estimator of each kind and states what it has."""


def settled(model: Any, x: Any) -> Array:
    """The rows whose label is not a tie: between two equal classes rounding decides, here as in the graph."""
    names = ("predict_proba", "decision_function") if hasattr(model, "classes_") else ()
    method = next((m for m in (getattr(model, name, None) for name in names) if callable(m)), None)
    votes = shares(model, x) if method is None and names else None
    scores: Array = np.asarray(method(x)) if method is not None else np.zeros(0) if votes is None else votes
    if scores.ndim == 1 and len(scores):
        scores = np.stack([-scores, scores], axis=1)
    if scores.ndim != 2 or scores.shape[1] < 2:
        return np.ones(len(x), bool)
    ordered = np.sort(scores, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2] > _TIE * np.maximum(1.0, np.abs(ordered[:, -1])))


def named(answer: Callable[[str], Array], own: list[str], proto: Any) -> Outputs:
    """The estimator's answers under the graph's names, as columns where the converter makes columns of them."""
    found: Outputs = {}
    for output, node in zip(own, proto.graph.output, strict=True):
        # a converter may call the one thing that there is to say as it likes: GPmean, union
        values = answer(output if len(own) > 1 or output in _KNOWN else "variable")
        rank = len(node.type.tensor_type.shape.dim)
        found[node.name] = values.reshape(-1, 1) if values.ndim == 1 and rank == 2 else values
    return found


def own_answer(model: Any, output: str, x: Array) -> Array:
    """What the estimator itself says where the converter's graph has ``output``."""
    if output in _LABELS:
        labels = np.asarray(model.predict(x))
        # the converter writes true, false and the whole floats that scikit-learn takes for classes as integers
        return labels.astype(np.int64) if labels.dtype.kind in "bf" else labels
    if output in _PROBABILITIES:
        return _probabilities(model, x)
    if output in _VALUES:
        method = model.predict if callable(getattr(model, "predict", None)) else model.transform
        values = method(x)
        return np.asarray(values.toarray() if hasattr(values, "toarray") else values)
    if output == _SCORES:
        is_outlier = callable(getattr(model, "decision_function", None))
        return np.asarray(model.decision_function(x) if is_outlier else model.transform(x))
    raise ExportError(
        f"{type(model).__name__} has no answer of its own to compare the graph's output {output!r} with: "
        f"convert it yourself and export the ONNX model"
    )


def _probabilities(model: Any, x: Array) -> Array:
    if callable(getattr(model, "predict_proba", None)):
        return np.asarray(model.predict_proba(x))
    votes = shares(model, x)
    if votes is not None:
        return votes
    scores = np.asarray(model.decision_function(x))
    return np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
