"""What skl2onnx converts wrongly or not at all, and is converted here: held against scikit-learn on its own data."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from gravswell import quiver as qv
from gravswell.errors import ExportError, InvalidInputError
from gravswell.quiver.golden import load_golden

from .refusing import check_refusal

X, Y = load_iris(return_X_y=True)
TWO = load_breast_cancer(return_X_y=True)

_rng = np.random.default_rng(0)
CODES = np.stack([_rng.integers(0, 40, 400) * 3.0, _rng.random(400), _rng.integers(0, 5, 400)], axis=1)
CODES[::17, 0] = np.nan
TARGET = (np.nan_to_num(CODES[:, 0]) % 7 > 3) * 2.0 + CODES[:, 1] + CODES[:, 2]
UNKNOWN = np.array([[1.0, 0.5, 2.0], [3.5, 0.5, 9.0], [-3.0, 0.5, -1.0], [1e9, 0.5, 0.5], [np.nan, np.nan, np.nan]])


def _answers(path: str, x: Any) -> dict[str, Any]:
    session = ort.InferenceSession(path)
    kind = {"tensor(float)": np.float32, "tensor(double)": np.float64}[session.get_inputs()[0].type]
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": x.astype(kind)}), strict=True))


@pytest.mark.parametrize("data_type", ["float32", "float64"])
def test_categories_of_a_histogram_and_values_that_are_none(entry: qv.Entry, data_type: str) -> None:
    model = HistGradientBoostingRegressor(categorical_features=[0, 2], max_iter=10).fit(CODES, TARGET)
    assert any(tree.nodes["is_categorical"].any() for (tree,) in model._predictors)
    path = entry.export_version(model, {"x": (None, 3)}, input_types={"x": data_type})
    x = np.concatenate([CODES, UNKNOWN]).astype(data_type)
    (y,) = _answers(path, x).values()
    np.testing.assert_allclose(y[:, 0], model.predict(x), rtol=1e-5, atol=1e-5)
    rows = np.concatenate([sample.inputs["x"] for sample in load_golden(Path(path).parent / ".golden.npz")])
    assert set(CODES[:5, 0]) & set(rows[:, 0]), "proved at categories"
    assert any(0 < value < 3 for value in rows[:, 0]), "and between them"


@pytest.mark.parametrize(
    "model",
    [
        HistGradientBoostingClassifier(categorical_features=[0], max_iter=5).fit(CODES, np.digitize(TARGET, [1.5, 4])),
        HistGradientBoostingClassifier(categorical_features=[2], max_iter=5).fit(CODES, TARGET > 3),
        HistGradientBoostingRegressor(loss="poisson", max_iter=5).fit(CODES, TARGET),
        HistGradientBoostingRegressor(loss="gamma", max_iter=5).fit(CODES, TARGET + 1),
    ],
    ids=["three classes", "two classes", "poisson", "gamma"],
)
def test_what_a_histogram_makes_of_its_sums(entry: qv.Entry, model: Any) -> None:
    x = CODES.astype(np.float32)
    answers = _answers(entry.export_version(model), x)
    wanted = model.predict_proba(x) if hasattr(model, "classes_") else model.predict(x)[:, None]
    got = answers["probabilities"] if hasattr(model, "classes_") else answers["variable"]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("estimator", "data"),
    [
        (LogisticRegression(max_iter=500), (X, Y)),
        (make_pipeline(StandardScaler(), LogisticRegression()), TWO),
        (LinearSVC(), (X, Y)),
        (RandomForestClassifier(5, random_state=0), (X, Y)),
        (HistGradientBoostingClassifier(max_iter=5), (X, Y)),
    ],
    ids=["logistic", "pipeline", "support vectors", "forest", "histogram"],
)
def test_isotonic_calibration_is_interpolated(entry: qv.Entry, estimator: Any, data: tuple[Any, Any]) -> None:
    model = CalibratedClassifierCV(estimator, method="isotonic", cv=3).fit(*data)
    answers = _answers(entry.export_version(model), data[0])
    far = np.abs(answers["probabilities"] - model.predict_proba(data[0].astype(np.float32))).max(axis=1)
    assert (far < 1e-4).mean() > 0.95, "all but rows on a step, where float32 rounds to its other side"


@pytest.mark.parametrize("first", ["passthrough", None])
def test_steps_that_pass_everything_through(entry: qv.Entry, first: str | None) -> None:
    steps = [("first", first), ("scale", StandardScaler()), ("then", "passthrough"), ("last", LogisticRegression())]
    model = Pipeline(steps).fit(X, Y)
    answers = _answers(entry.export_version(model), X)
    assert (answers["label"] == model.predict(X)).all()
    assert model.steps == steps


@pytest.mark.parametrize(
    ("model", "error", "fact"),
    [
        (
            CalibratedClassifierCV(LogisticRegression(max_iter=500), method="temperature", cv=2).fit(X, Y),
            ExportError,
            "calibration by 'temperature' has no converter: .*'isotonic'",
        ),
        (
            HistGradientBoostingRegressor(categorical_features="from_dtype", max_iter=2).fit(
                pd.DataFrame({"town": pd.Categorical(["a", "b"] * 20), "x": range(40)}), range(40)
            ),
            ExportError,
            "categories of column 0 are texts.*OrdinalEncoder",
        ),
        (HistGradientBoostingRegressor(), InvalidInputError, "fit it first"),
        (Pipeline([("nothing", "passthrough")]).fit(X, Y), InvalidInputError, "number of features"),
    ],
)
def test_refuses(entry: qv.Entry, root: Path, model: Any, error: type[Exception], fact: str) -> None:
    check_refusal(entry, root, model, {}, error, fact)
