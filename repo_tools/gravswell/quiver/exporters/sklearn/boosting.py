"""Boosted trees inside scikit-learn's pipelines, searches, votes, stacks: of XGBoost, of LightGBM, and its own."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from onnx import TensorProto, helper

from gravswell.quiver.exporters.base import class_names
from gravswell.quiver.exporters.sklearn import histogram
from gravswell.quiver.exporters.trees import lightgbm_reader, xgboost_reader
from gravswell.quiver.exporters.trees.boosted import Boosted
from gravswell.quiver.exporters.trees.graph import Pieces, build, served_labels

CLASSES = xgboost_reader.CLASSES | lightgbm_reader.CLASSES | histogram.CLASSES
"""Bases of all models, also of those that are no estimators."""

_ESTIMATORS = {
    "xgboost": ("XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor"),
    "lightgbm": ("LGBMClassifier", "LGBMRegressor", "LGBMRanker"),
    "sklearn.ensemble": ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"),
}

_lock = threading.RLock()


def read(model: Any) -> Boosted | None:
    """The trees of a fitted estimator; None for one of another kind."""
    names = class_names(model)
    if names & xgboost_reader.CLASSES:
        return xgboost_reader.read(model)
    if names & lightgbm_reader.CLASSES:
        return lightgbm_reader.read(model)
    return histogram.read(model) if names & histogram.CLASSES else None


@contextmanager
def registered() -> Iterator[None]:
    """While the context is open skl2onnx converts the estimators of those frameworks that are imported.

    No others are met. Its tables are the process's own: afterwards they say what they said before, such as somebody's
    own converters. One thread at a time is in it.
    """
    from skl2onnx import _parse, _supported_operators  # noqa: PLC0415 - a framework is imported only when it is used

    tables: tuple[dict[Any, Any], ...] = (_supported_operators.sklearn_operator_name_map, _parse.sklearn_parsers_map)
    kinds = [
        getattr(sys.modules[module], name)
        for module, names in _ESTIMATORS.items()
        if module in sys.modules
        for name in names
    ]
    with _lock:
        before = [{kind: table[kind] for kind in kinds if kind in table} for table in tables]
        try:
            for kind in kinds:
                _register(kind)
            yield
        finally:
            for table, known in zip(tables, before, strict=True):
                for kind in kinds:
                    table.pop(kind, None)
                table.update(known)


def _register(kind: Any) -> None:
    from skl2onnx import update_registered_converter  # noqa: PLC0415 - a framework is imported only when it is used

    options = {"zipmap": [True, False]} if "Classifier" in kind.__name__ else {}
    if hasattr(kind, "decision_function"):  # which calibration then goes by
        options["raw_scores"] = [True, False]
    update_registered_converter(kind, f"Gravswell{kind.__name__}", _shapes, _convert, options=options or None)


def _shapes(operator: Any) -> None:
    from skl2onnx.common import data_types  # noqa: PLC0415 - a framework is imported only when it is used

    boosted: Any = read(operator.raw_operator)
    operator.boosted = boosted
    rows = operator.inputs[0].get_first_dimension()
    if boosted.classes is not None:
        text = served_labels(boosted.classes).dtype.kind == "U"
        label = data_types.StringTensorType if text else data_types.Int64TensorType
        operator.outputs[0].set_type(label([rows, boosted.targets] if boosted.several_labels else [rows]))
    numbers = operator.outputs[-1].type
    wide = (
        data_types.DoubleTensorType if isinstance(numbers, data_types.DoubleTensorType) else data_types.FloatTensorType
    )
    operator.outputs[-1].set_type(wide([rows, boosted.width]))


def _convert(scope: Any, operator: Any, container: Any) -> None:
    from skl2onnx.common.data_types import guess_proto_type  # noqa: PLC0415 - a framework is imported only when it is used

    (x,) = operator.inputs
    pieces = Pieces(scope.get_unique_variable_name)
    *labels, numbers = (output.full_name for output in operator.outputs)
    double = guess_proto_type(operator.outputs[-1].type) == TensorProto.DOUBLE
    answer = pieces.fresh("answer") if double else numbers
    raw = bool((scope.get_options(operator.raw_operator, {}, fail=False) or {}).get("raw_scores"))
    build(operator.boosted, x.full_name, guess_proto_type(x.type), [*labels, answer], pieces, raw=raw)
    if double:
        pieces.add("Cast", answer, output=numbers, to=TensorProto.DOUBLE)
    container.initializers.extend(pieces.constants)
    for node in pieces.nodes:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        container.add_node(
            node.op_type, list(node.input), list(node.output), op_domain=node.domain, name=node.name, **attributes
        )
