"""Boosted trees inside scikit-learn's estimators, and both frameworks' on the server."""

from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
from skl2onnx import _parse, _supported_operators
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import StackingClassifier, VotingClassifier, VotingRegressor
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from gravswell import quiver as qv
from gravswell.errors import VerificationError
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving.triton import EmbeddedTriton
from gravswell.serving.verification import verify_served

from .boosting import BINARY, CATEGORY, NUMBER, TERNARY, THREE, TWO, WHOLE, X, Y

_OPTIONS: dict[str, dict[str, Any]] = {
    "xgboost": {"n_estimators": 6, "max_depth": 3, "n_jobs": 1},
    "lightgbm": {"n_estimators": 6, "num_leaves": 7, "n_jobs": 1, "verbose": -1},
}
LABELS = np.array(["low", "middle", "high"])[THREE]


@pytest.fixture(params=["xgboost", "lightgbm"])
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def classifier(framework: str) -> Any:
    return (xgb.XGBClassifier if framework == "xgboost" else lgb.LGBMClassifier)(**_OPTIONS[framework])


def regressor(framework: str) -> Any:
    return (xgb.XGBRegressor if framework == "xgboost" else lgb.LGBMRegressor)(**_OPTIONS[framework])


CLASSIFIERS = {
    "scaled": lambda own: make_pipeline(StandardScaler(), own),
    "searched": lambda own: GridSearchCV(own, {"learning_rate": [0.1, 0.2]}, cv=2),
    "searched pipeline": lambda own: GridSearchCV(
        make_pipeline(SimpleImputer(), own), {"simpleimputer__strategy": ["mean", "median"]}, cv=2
    ),
    "calibrated": lambda own: CalibratedClassifierCV(own, cv=2),
    "soft vote": lambda own: VotingClassifier([("a", own), ("b", GaussianNB())], voting="soft"),
    "hard vote": lambda own: VotingClassifier(
        [("a", own), ("b", GaussianNB()), ("c", DecisionTreeClassifier(max_depth=3))]
    ),
    "stack": lambda own: StackingClassifier([("a", own), ("b", DecisionTreeClassifier(max_depth=3))], cv=2),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_inside_a_classifier(entry: qv.Entry, framework: str, name: str) -> None:
    model = CLASSIFIERS[name](classifier(framework)).fit(WHOLE, THREE)
    entry.export_version(model)
    assert {n: (r.data_type, r.dims) for n, r in entry.outputs.items()} == TERNARY
    assert entry.versions[-1].manifest.framework.startswith("scikit-learn ")


def test_two_classes_and_float64(entry: qv.Entry, framework: str) -> None:
    model = make_pipeline(StandardScaler(), classifier(framework)).fit(X, TWO)
    entry.export_version(model, input_types={"x": "float64"})
    wide = {**BINARY, "probabilities": ("TYPE_FP64", (-1, 2))}
    assert {n: (r.data_type, r.dims) for n, r in entry.outputs.items()} == wide


def test_scaled_rows_that_lie_on_thresholds(entry: qv.Entry) -> None:
    """XGBoost's thresholds are values that it was trained on."""
    x = WHOLE.astype(np.float32) + 7
    model = make_pipeline(StandardScaler(), xgb.XGBRegressor(n_estimators=60, n_jobs=1)).fit(x, Y)
    with pytest.raises(VerificationError, match=r"on a threshold of the XGBRegressor .*: take float64, input_types="):
        entry.export_version(model, sample_inputs={"x": x})
    entry.export_version(model, sample_inputs={"x": x}, input_types={"x": "float64"})


def test_inside_a_regressor(entry: qv.Entry, framework: str) -> None:
    own = regressor(framework)
    for model in (make_pipeline(SimpleImputer(), own).fit(X, Y), VotingRegressor([("a", own), ("b", own)]).fit(X, Y)):
        entry.export_version(model)
        assert {n: (r.data_type, r.dims) for n, r in entry.outputs.items()} == NUMBER


def test_one_for_each_output(entry: qv.Entry, framework: str) -> None:
    entry.export_version(MultiOutputRegressor(regressor(framework)).fit(WHOLE, np.stack([Y, -Y], axis=1)))
    assert entry.outputs["variable"].dims == (-1, 2)


def test_behind_columns_of_several_types(entry: qv.Entry, framework: str) -> None:
    frame = pd.DataFrame(WHOLE, columns=list("abcdef"))
    frame["f"] = [f"town {int(code) % 7}" for code in WHOLE[:, CATEGORY]]
    columns = make_column_transformer((OneHotEncoder(), ["f"]), (StandardScaler(), ["a", "b"]), remainder="passthrough")
    entry.export_version(make_pipeline(columns, classifier(framework)).fit(frame, THREE))
    assert {n: r.data_type for n, r in entry.inputs.items()} == {
        **dict.fromkeys("abcde", "TYPE_FP32"),
        "f": "TYPE_STRING",
    }


def test_converters_of_others_stay(entry: qv.Entry, framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxmltools registers its own, for whoever converts by hand."""
    own = classifier(framework)
    monkeypatch.setitem(_supported_operators.sklearn_operator_name_map, type(own), "Theirs")
    monkeypatch.delitem(_parse.sklearn_parsers_map, type(own), raising=False)
    entry.export_version(make_pipeline(StandardScaler(), own).fit(WHOLE, THREE))
    assert _supported_operators.get_model_alias(type(own)) == "Theirs"
    assert type(own) not in _parse.sklearn_parsers_map


async def test_on_the_server(repo: qv.ModelRepository, root: Path) -> None:
    models = {
        "xgboost": xgb.XGBClassifier(**_OPTIONS["xgboost"]).fit(X, THREE),
        "lightgbm": lgb.LGBMClassifier(**_OPTIONS["lightgbm"]).fit(X, LABELS, categorical_feature=[CATEGORY]),
        "pipeline": make_pipeline(StandardScaler(), classifier("xgboost")).fit(X, THREE),
    }
    for name, model in models.items():
        repo.add(name, platform=qv.Platform.ONNX).export_version(model, max_batch_size=128)

    with EmbeddedTriton(root) as server:
        rows = [row async for row in verify_served(RepositoryReader(root), server.http_address, list(models))]
    assert [(row.entry, row.result, row.message) for row in rows] == [(name, "verified", "") for name in models]
