"""Votes, of whose defaults scikit-learn's converter knows nothing, and missing values in histograms."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, StackingClassifier, VotingClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from gravswell import quiver as qv
from gravswell.errors import ExportError
from gravswell.quiver.golden import load_golden

X, Y = load_iris(return_X_y=True)
LABELS = np.array(["setosa", "versicolor", "virginica"])[Y]


def vote(**options: Any) -> Any:
    members = [("a", GaussianNB()), ("b", DecisionTreeClassifier(max_depth=2)), ("c", DecisionTreeClassifier())]
    return VotingClassifier(members, **options)


@pytest.mark.parametrize("y", [Y, LABELS], ids=["numbers", "text"])
@pytest.mark.parametrize(
    "model",
    [
        vote(),
        vote(weights=[1, 2.5, 1]),
        vote(weights=[1, 7, 2]).set_params(b="drop"),
        vote(voting="soft", weights=[1, 2, 1]),
        make_pipeline(StandardScaler(), vote()),
        GridSearchCV(vote(), {"b__max_depth": [1, 2]}, cv=2),
    ],
    ids=["defaults", "weights", "dropped", "soft", "pipeline", "searched"],
)
def test_a_vote_and_its_shares(entry: qv.Entry, model: Any, y: Any) -> None:
    path = entry.export_version(model.fit(X, y))
    label, shares = ort.InferenceSession(path).run(None, {"x": X.astype(np.float32)})
    assert (label == model.predict(X)).mean() > 0.98
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)


def test_the_shares_of_a_hard_vote_are_those_of_its_members(entry: qv.Entry) -> None:
    model = vote(weights=[1, 2, 1]).fit(X, LABELS)
    _, shares = ort.InferenceSession(entry.export_version(model)).run(None, {"x": X.astype(np.float32)})
    of_each = np.stack([member.predict(X) for member in model.estimators_])
    wanted = np.stack([np.average(of_each == k, axis=0, weights=[1, 2, 1]) for k in range(3)], axis=1)
    assert np.isclose(shares, wanted).mean() > 0.98


@pytest.mark.parametrize(
    "model",
    [
        CalibratedClassifierCV(vote(voting="soft", weights=[1, 2, 1]), cv=2),
        StackingClassifier([("a", GaussianNB())], vote(voting="soft", weights=[1, 2, 1]), cv=2),
    ],
    ids=["calibrated", "stacked"],
)
def test_a_vote_inside_another_estimator(entry: qv.Entry, model: Any) -> None:
    path = entry.export_version(model.fit(X, Y))
    label, _ = ort.InferenceSession(path).run(None, {"x": X.astype(np.float32)})
    assert (label == model.predict(X)).mean() > 0.98


def test_the_vote_is_left_as_it_was(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vote(weights=[1, 2, 1]).fit(X, Y)
    entry.export_version(model)
    assert (model.flatten_transform, model.weights) == (True, [1, 2, 1])
    monkeypatch.setattr("skl2onnx.to_onnx", lambda *_, **__: 1 / 0)
    with pytest.raises(ExportError, match="cannot convert VotingClassifier"):
        entry.export_version(model)
    assert (model.flatten_transform, model.weights) == (True, [1, 2, 1])


def test_missing_values_of_a_histogram_are_proved(entry: qv.Entry) -> None:
    gaps = np.where(np.random.default_rng(0).random(X.shape) < 0.2, np.nan, X)
    path = Path(entry.export_version(HistGradientBoostingClassifier(max_iter=5).fit(gaps, Y)))
    rows = np.concatenate([sample.inputs["x"] for sample in load_golden(path.parent / ".golden.npz")])
    assert np.isnan(rows).any(axis=0).all()
