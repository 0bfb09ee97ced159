"""Calibration as scikit-learn computes it: of a pipeline by its scores, isotonic by straight lines between its points.

skl2onnx 1.20 takes a pipeline's probabilities where it has scores, and answers with the value of the nearest point.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from onnx import TensorProto

from gravswell.errors import ExportError
from gravswell.quiver.exporters.sklearn.scale import last_step, parts

_lock = threading.RLock()


def calibrated_by_scores(model: Any) -> list[Any]:
    """What gives the answer of each pipeline in the model that is calibrated, where that has scores."""
    calibrated = [inner.estimator for part in parts(model) for inner in getattr(part, "calibrated_classifiers_", ())]
    found = [last_step(estimator) for estimator in calibrated if hasattr(estimator, "steps")]
    return [classifier for classifier in found if hasattr(classifier, "decision_function")]


@contextmanager
def interpolated() -> Iterator[None]:
    """While the context is open skl2onnx converts isotonic calibration so. One thread at a time is in it."""
    from skl2onnx.operator_converters import calibrated_classifier_cv as converter  # noqa: PLC0415 - only when used

    with _lock:
        before = converter._transform_isotonic
        converter._transform_isotonic = _transform
        try:
            yield
        finally:
            converter._transform_isotonic = before


def _transform(  # noqa: PLR0917 - in the place of one that is called so
    scope: Any, container: Any, model: Any, scores: str, k: int, dtype: Any, proto_type: int
) -> str:
    """Nodes from the scores of one class, shape (rows, 1), to their calibrated probabilities, of the same shape."""
    if model.method != "isotonic":
        raise ExportError(
            f"calibration by {model.method!r} has no converter: calibrate with method='sigmoid' or 'isotonic'"
        )
    calibrator = model.calibrators[k]
    wide = TensorProto.DOUBLE if proto_type == TensorProto.DOUBLE else TensorProto.FLOAT
    x, y = (np.asarray(points, dtype=np.float64) for points in (calibrator.X_thresholds_, calibrator.y_thresholds_))
    if len(x) == 1:
        x, y = np.repeat(x, 2), np.repeat(y, 2)
    gaps = np.diff(x)
    slopes = np.divide(np.diff(y), gaps, out=np.zeros_like(gaps), where=gaps > 0)

    def constant(what: str, values: Any, kind: int = wide) -> str:
        name = scope.get_unique_variable_name(what)
        array = np.asarray(values, dtype=np.int64 if kind == TensorProto.INT64 else dtype)
        container.add_initializer(name, kind, list(array.shape), array.ravel().tolist())
        return str(name)

    def node(kind: str, *inputs: str, **attributes: Any) -> str:
        name = scope.get_unique_variable_name(f"isotonic_{kind.lower()}")
        operator = scope.get_unique_operator_name(kind)
        container.add_node(kind, list(inputs), name, op_domain="", name=operator, **attributes)
        return str(name)

    column = node("Reshape", scores, constant("column", [-1, 1], TensorProto.INT64))
    within = node("Max", node("Min", column, constant("last", [x[-1]])), constant("first", [x[0]]))
    inner = x[1:-1] if len(x) > 2 else [np.inf]  # of a single line every score is behind no point
    behind = node("Not", node("Less", within, constant("points", inner)))
    lines = node("ReduceSum", node("Cast", behind, to=TensorProto.INT64), constant("axis", [1], TensorProto.INT64))
    starts, heights, rises = (
        node("Gather", constant(what, values), lines)
        for what, values in (("x", x[:-1]), ("y", y[:-1]), ("slopes", slopes))
    )
    return node("Add", heights, node("Mul", node("Sub", within, starts), rises))
