from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from gravswell import quiver as qv
from gravswell.errors import ExportError, InvalidInputError, VerificationError
from gravswell.quiver.exporters import run
from gravswell.quiver.golden import compare, load_golden

from .refusing import check_refusal

X, Y = load_digits(return_X_y=True)
X, Y = X[:400], Y[:400]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        (LogisticRegression(max_iter=20), {"label": ("TYPE_INT64", (-1,)), "probabilities": ("TYPE_FP32", (-1, 10))}),
        (
            make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=5)),
            {"label": ("TYPE_INT64", (-1,)), "probabilities": ("TYPE_FP32", (-1, 10))},
        ),
        (
            RandomForestClassifier(5, random_state=0),
            {"label": ("TYPE_INT64", (-1,)), "probabilities": ("TYPE_FP32", (-1, 10))},
        ),
        (LinearSVC(max_iter=50), {"label": ("TYPE_INT64", (-1,)), "probabilities": ("TYPE_FP32", (-1, 10))}),
        (LinearRegression(), {"variable": ("TYPE_FP32", (-1, 1))}),
        (GradientBoostingRegressor(n_estimators=5), {"variable": ("TYPE_FP32", (-1, 1))}),
        (StandardScaler(), {"variable": ("TYPE_FP32", (-1, 64))}),
        (KMeans(5, n_init=1, random_state=0), {"label": ("TYPE_INT64", (-1,)), "scores": ("TYPE_FP32", (-1, 5))}),
        (
            IsolationForest(n_estimators=5, random_state=0),
            {"label": ("TYPE_INT64", (-1, 1)), "scores": ("TYPE_FP32", (-1, 1))},
        ),
        (FeatureUnion([("scaled", StandardScaler()), ("few", PCA(2))]), {"union": ("TYPE_FP32", (-1, 66))}),
        (GaussianProcessRegressor(10 * RBF(20)), {"GPmean": ("TYPE_FP32", (-1, 1))}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseEstimator) else "",
)
def test_exports_without_being_told_anything(entry: qv.Entry, model: Any, outputs: dict[str, Any]) -> None:
    entry.export_version(model.fit(X, Y))
    assert {n: (r.data_type, r.dims) for n, r in entry.inputs.items()} == {"x": ("TYPE_FP32", (-1, 64))}
    assert {n: (r.data_type, r.dims) for n, r in entry.outputs.items()} == outputs
    entry.export_version(model)
    assert entry.versions == [1, 2]
    assert entry.versions[-1].manifest.framework.startswith("scikit-learn ")


@pytest.mark.parametrize(
    "model",
    [
        SVC(),
        LinearSVC(max_iter=50),
        RidgeClassifier(),
        SGDClassifier(random_state=0),
        make_pipeline(StandardScaler(), SVC()),
        make_pipeline(StandardScaler(), LinearSVC(max_iter=50)),
        make_pipeline(StandardScaler(), RidgeClassifier()),
        GridSearchCV(SVC(), {"C": [1, 2]}, cv=2),
        LogisticRegression(max_iter=20),
    ],
    ids=repr,
)
def test_two_classes_have_a_column_each(entry: qv.Entry, model: Any) -> None:
    few = Y < 2
    model.fit(X[few], Y[few])
    path = entry.export_version(model)
    label, scores = ort.InferenceSession(path).run(None, {"x": X[few].astype(np.float32)})
    assert scores.shape == (few.sum(), 2)
    assert (label == model.predict(X[few])).all()
    assert (scores.argmax(1) == label).all()


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(20, random_state=0),
        GradientBoostingRegressor(n_estimators=20),
        HistGradientBoostingRegressor(max_iter=20),
        HistGradientBoostingClassifier(max_iter=4),
        DecisionTreeClassifier(),
        GridSearchCV(DecisionTreeClassifier(), {"max_depth": [5, 7]}, cv=2),
        BaggingClassifier(DecisionTreeClassifier(), 5, max_features=0.5, random_state=0),
    ],
    ids=repr,
)
def test_the_proof_reaches_thresholds_of_thousands(entry: qv.Entry, model: Any) -> None:
    """Features of several units: all the trees' thresholds lie far from where random numbers are."""
    x = X * np.geomspace(1, 10_000, X.shape[1]) + 500
    path = Path(entry.export_version(model.fit(x, Y)))
    proto = onnx.load(path)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "nodes_values":
                wrong = [value * 3 if value > 1_000 else value for value in attribute.floats]
                assert wrong != list(attribute.floats)
                attribute.ClearField("floats")
                attribute.floats.extend(wrong)
    session = ort.InferenceSession(proto.SerializeToString())
    largest = load_golden(path.parent / ".golden.npz")[-1]
    with pytest.raises(VerificationError):
        compare(largest.outputs, run(session, largest.inputs))


def test_ties_between_two_classes_prove_nothing(entry: qv.Entry) -> None:
    """An even number of trees often votes half and half, and then rounding decides the label."""
    few = Y < 2
    noisy = (Y[few] + np.random.default_rng(0).integers(0, 2, few.sum())) % 2
    entry.export_version(RandomForestClassifier(4, max_depth=9, random_state=0).fit(X[few], noisy))
    golden = load_golden(Path(entry.versions[-1].location).parent / ".golden.npz")
    rows = np.concatenate([sample.outputs["probabilities"] for sample in golden])
    assert (np.abs(rows[:, 0] - 0.5) > 1e-4).all()


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler(), RobustScaler()], ids=repr)
def test_scaled_inputs_are_drawn_around_what_was_fitted(entry: qv.Entry, scaler: Any) -> None:
    x = X[:, 20:30] + np.geomspace(1, 10_000, 10)
    path = Path(entry.export_version(make_pipeline(scaler, LogisticRegression(max_iter=20)).fit(x, Y)))
    rows = np.concatenate([sample.inputs["x"] for sample in load_golden(path.parent / ".golden.npz")])
    assert (np.abs(rows.mean(0) - x.mean(0)) < 40).all()
    assert len(np.unique(rows, axis=0)) > 20
    assert entry.versions[-1].manifest.verification.inputs == "random"
    entry.export_version(make_pipeline(scaler, LogisticRegression(max_iter=20)).fit(x, Y), sample_inputs={"x": x[:4]})
    assert entry.versions[-1].manifest.verification.inputs == "given"


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler(), RobustScaler()], ids=repr)
def test_timestamps_are_proved_where_they_were_fitted(entry: qv.Entry, scaler: Any) -> None:
    """float32 numbers are 128 apart there: with scales of a thousand the graph of that type is far off."""
    x = np.hstack([1.7e9 + 1000 * np.random.default_rng(0).random((400, 1)), X[:, 20:22]])
    model = make_pipeline(scaler, LogisticRegression()).fit(x, (x[:, 0] > 1.7e9 + 500).astype(int))
    way_out = r'Column 0 of x .* are 128 apart: take float64, input_types={"x": "float64"} \(--input-type x=float64\)'
    with pytest.raises(VerificationError, match=way_out):
        entry.export_version(model)
    assert entry.versions == []
    path = Path(entry.export_version(model, input_types={"x": "float64"}))
    _, probabilities = ort.InferenceSession(path).run(None, {"x": x})
    assert np.abs(probabilities - model.predict_proba(x)).max() < 1e-4
    rows = np.concatenate([sample.inputs["x"][:, 0] for sample in load_golden(path.parent / ".golden.npz")])
    assert (np.abs(rows - x[:, 0].mean()) < 3000).all()
    assert len(np.unique(rows)) > 10


def test_a_range_that_is_one_number_in_float32_has_its_neighbours(entry: qv.Entry) -> None:
    path = Path(entry.export_version(StandardScaler().fit([[2.0**30 - 1, 5], [2.0**30 + 1, 5]])))
    rows = np.concatenate([sample.inputs["x"] for sample in load_golden(path.parent / ".golden.npz")])
    assert len(np.unique(rows[:, 0])) == 3
    assert np.abs(rows[:, 0] - 2.0**30).max() <= 128


def test_a_type_without_a_shape(entry: qv.Entry) -> None:
    with pytest.raises(InvalidInputError, match="input_types names y, which is no input; the model takes x"):
        entry.export_version(LinearRegression().fit(X, Y), input_types={"y": "float64"})
    entry.export_version(LinearRegression().fit(X, Y), input_types={"x": "float64"})
    assert {n: (r.data_type, r.dims) for n, r in entry.inputs.items()} == {"x": ("TYPE_FP64", (-1, 64))}


def test_names_and_shapes_of_one_s_own(entry: qv.Entry) -> None:
    model = LogisticRegression(max_iter=20).fit(X, Y)
    path = entry.export_version(model, {"pixels": (None, 64)}, ["digit", "confidence"], max_batch_size=32)
    assert list(entry.outputs) == ["digit", "confidence"]
    assert entry.config.max_batch_size == 32
    digit, _ = ort.InferenceSession(path).run(["digit", "confidence"], {"pixels": X.astype(np.float32)})
    assert (digit == model.predict(X)).mean() > 0.99


def test_text_labels(entry: qv.Entry) -> None:
    entry.export_version(LogisticRegression(max_iter=20).fit(X, [f"nr {y}" for y in Y]))
    assert entry.outputs["label"].data_type == "TYPE_STRING"


@pytest.mark.parametrize("labels", [Y > 4, Y.astype(float)], ids=["bool", "float"])
@pytest.mark.parametrize("model", [LogisticRegression(max_iter=20), DecisionTreeClassifier()], ids=repr)
def test_labels_that_are_whole_numbers_become_integers(entry: qv.Entry, model: Any, labels: Any) -> None:
    label, _ = ort.InferenceSession(entry.export_version(model.fit(X, labels))).run(None, {"x": X.astype(np.float32)})
    assert entry.outputs["label"].data_type == "TYPE_INT64"
    assert (label == model.predict(X)).all()


def test_text_features_are_drawn_from_the_categories(entry: qv.Entry) -> None:
    model = OneHotEncoder(sparse_output=True).fit(np.array([["a", "x"], ["b", "y"], ["c", "x"]], object))
    entry.export_version(model, {"x": (None, 2)}, input_types={"x": "string"})
    sample = {"x": np.array([["a", "y"], ["c", "x"]])}
    entry.export_version(model, {"x": (None, 2)}, input_types={"x": "string"}, sample_inputs=sample)
    assert entry.inputs["x"].data_type == "TYPE_STRING"


@pytest.mark.parametrize("data_type", ["float32", "int64"])
@pytest.mark.parametrize(
    "model",
    [
        OneHotEncoder(sparse_output=False),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
        OrdinalEncoder(),
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), [0]), (StandardScaler(), [1])),
    ],
    ids=repr,
)
def test_numbers_that_are_categories_are_drawn_as_they_are(entry: qv.Entry, model: Any, data_type: str) -> None:
    """Between them an encoder refuses, or answers otherwise than the graph, which never happens to real rows."""
    codes = np.array([[1000, 3], [1001, 7], [1005, 7], [1009, 9]])
    path = Path(
        entry.export_version(
            make_pipeline(model, LinearRegression()).fit(codes, range(4)), input_types={"x": data_type}
        )
    )
    rows = np.concatenate([sample.inputs["x"] for sample in load_golden(path.parent / ".golden.npz")])
    assert rows.dtype == data_type
    assert set(rows[:, 0]) == {1000, 1001, 1005, 1009}


def test_a_graph_that_is_right_for_real_rows_alone(entry: qv.Entry) -> None:
    """The converter's encoder rounds what is no category."""
    model = make_pipeline(FunctionTransformer(), OneHotEncoder(handle_unknown="ignore"), LinearRegression())
    model.fit(np.arange(4.0).reshape(-1, 1), [3, 1, 4, 1])
    with pytest.raises(VerificationError, match="prove it with real ones, as sample_inputs"):
        entry.export_version(model)
    entry.export_version(model, sample_inputs={"x": np.arange(4.0).reshape(-1, 1)})


class Own(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    def fit(self, x: Any, y: Any = None) -> "Own":
        self.n_features_in_ = x.shape[1]
        return self

    def predict(self, x: Any) -> Any:
        return x.sum(1)


@pytest.mark.parametrize(
    ("model", "arguments", "error", "fact"),
    [
        (LogisticRegression(), {}, InvalidInputError, "fit it first"),
        (LogisticRegression(), {"input_shapes": {"x": (None, 64)}}, ExportError, "not fitted|fails"),
        (LinearRegression().fit(X, Y), {"input_shapes": {"x": (None, 63)}}, InvalidInputError, "fitted on"),
        (LinearRegression().fit(X, Y), {"input_shapes": {"a": (None, 1), "b": (None, 63)}}, ExportError, "one input"),
        (LinearRegression().fit(X, Y), {"output_names": ["a", "b"]}, InvalidInputError, "2 output_names"),
        (LinearRegression().fit(X, Y), {"output_names": ["x"]}, InvalidInputError, "taken"),
        (
            make_column_transformer((OneHotEncoder(), [0]), (StandardScaler(), [1])).fit(
                np.array([["a", 1.0], ["b", 2.0]], object)
            ),
            {"input_shapes": {"x": (None, 2)}, "input_types": {"x": "string"}},
            ExportError,
            "columns of several types .*: fit it on a DataFrame",
        ),
        (
            LinearRegression().fit(X, Y),
            {"sample_inputs": {"x": np.full((1, 64), np.nan)}},
            ExportError,
            r"the model itself fails on x float32 \[2, 64\] \(ValueError.*as sample_inputs",
        ),
        (Own().fit(X), {}, ExportError, "skl2onnx .* cannot convert Own"),
    ],
)
def test_refuses(
    entry: qv.Entry, root: Path, model: Any, arguments: dict[str, Any], error: type[Exception], fact: str
) -> None:
    check_refusal(entry, root, model, arguments, error, fact)
