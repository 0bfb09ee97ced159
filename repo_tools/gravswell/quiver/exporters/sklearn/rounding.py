"""Where float32 is too coarse for an estimator, and how exact the graph's answers are."""

import shlex
from typing import Any

import numpy as np
from onnx import TensorProto

from gravswell.quiver.exporters.base import InputSpec
from gravswell.quiver.exporters.sklearn import boosting
from gravswell.quiver.exporters.sklearn.frame import fitted_columns, takes_columns
from gravswell.quiver.exporters.sklearn.scale import coarse_range, first_step, last_step


def too_coarse(model: Any, specs: tuple[InputSpec, ...]) -> str:
    """The end of a message, where float32 may be why the graph answers otherwise; empty where it is not.

    It tells timestamps badly apart; and XGBoost's thresholds are values of the training data, so that of a row that was
    trained on, scaled in float32, it may not tell on which side it is.
    """
    names = [spec.name for spec in specs if spec.data_type == "TYPE_FP32"]
    types = ", ".join(f'"{name}": "float64"' for name in names)
    flags = " ".join(f"--input-type {shlex.quote(f'{name}=float64')}" for name in names)
    way_out = f"take float64, input_types={{{types}}} ({flags})"
    fitted = fitted_columns(model) or [] if takes_columns(model, [spec.name for spec in specs]) else None
    if fitted is not None:
        columns = {fitted.index(name): repr(name) for name in names}
    else:
        columns = {k: f"{k} of {name}" for name in names for k in range(specs[0].shape[1] or 0)}
    coarse = coarse_range(model, list(columns))
    if coarse is not None:
        column, low, high, apart = coarse
        return (
            f". Column {columns[column]} was fitted on about {low:.10g} to {high:.10g}, where float32 numbers are "
            f"{apart:.3g} apart: {way_out}, or subtract an offset before fitting"
        )
    last = last_step(model)
    if names and last is not first_step(model) and boosting.read(last) is not None:
        return (
            f". Rows that lie on a threshold of the {type(last).__name__} fall on either side of it, as the steps "
            f"before it round in float32: {way_out}"
        )
    return ""


def width_of_answers(proto: Any) -> np.dtype[Any] | None:
    """The type in which the answers are computed, where they are given in a wider one: trees' sums are float32."""
    wide = any(output.type.tensor_type.elem_type == TensorProto.DOUBLE for output in proto.graph.output)
    trees = any(node.op_type.startswith("TreeEnsemble") for node in proto.graph.node)
    return np.dtype(np.float32) if wide and trees else None
