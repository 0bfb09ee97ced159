import re
import sys
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest

from gravswell import quiver as qv
from gravswell.errors import ExportError, InvalidInputError, UnsupportedError, VerificationError
from gravswell.extras import install
from gravswell.quiver.exporters.trees import graph

from .boosting import BINARY, CATEGORY, NUMBER, POSITIVE, TERNARY, THREE, TWO, WHOLE, X, Y, exported, served
from .refusing import check_refusal

SMALL = {"n_estimators": 8, "num_leaves": 15, "min_child_samples": 5, "n_jobs": 1, "verbose": -1}
FOREST = {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}
WITH_ZEROS = np.where(np.random.default_rng(1).random(X.shape) < 0.3, 0, X)


def regressor(objective: str = "regression", **options: Any) -> Any:
    return lgb.LGBMRegressor(**SMALL, objective=objective, **options)


@pytest.mark.parametrize(
    ("model", "x", "y", "outputs"),
    [
        (lgb.LGBMClassifier(**SMALL), X, TWO, BINARY),
        (lgb.LGBMClassifier(**SMALL, sigmoid=2.0), X, TWO.astype(bool), BINARY),
        (lgb.LGBMClassifier(**SMALL), X, THREE + 5, TERNARY),
        (lgb.LGBMClassifier(**SMALL, objective="multiclassova"), X, THREE, TERNARY),
        (lgb.LGBMClassifier(**SMALL, **FOREST), X, THREE, TERNARY),
        (lgb.LGBMClassifier(**SMALL, boosting_type="dart", drop_rate=0.5), X, THREE, TERNARY),
        (regressor(**FOREST), X, Y, NUMBER),
        (regressor(boosting_type="dart", drop_rate=0.5), X, Y, NUMBER),
        (regressor(reg_sqrt=True), X, Y, NUMBER),
        (regressor(zero_as_missing=True), WITH_ZEROS, Y + 3 * (WITH_ZEROS == 0).sum(axis=1), NUMBER),
        (regressor(zero_as_missing=True), WHOLE, Y, NUMBER),
        (regressor(use_missing=False), X, Y, NUMBER),
        (regressor(), WHOLE, Y, NUMBER),
        (regressor(), X, Y + 1e6, NUMBER),
        (regressor(), X, np.zeros(len(X)), NUMBER),
        (regressor("regression_l1"), X, Y, NUMBER),
        (regressor("huber"), X, Y, NUMBER),
        (regressor("fair"), X, Y, NUMBER),
        (regressor("quantile", alpha=0.2), X, Y, NUMBER),
        (regressor("mape"), X, POSITIVE, NUMBER),
        (regressor("poisson"), X, POSITIVE, NUMBER),
        (regressor("gamma"), X, POSITIVE, NUMBER),
        (regressor("tweedie"), X, POSITIVE, NUMBER),
        (regressor("cross_entropy"), X, TWO, NUMBER),
        (regressor("cross_entropy_lambda"), X, TWO, NUMBER),
    ],
    ids=lambda v: f"{type(v).__name__}-{v.objective}-{v.boosting_type}" if hasattr(v, "fit") else "",
)
def test_estimators(entry: qv.Entry, model: Any, x: Any, y: Any, outputs: dict[str, Any]) -> None:
    model.fit(x, y)
    if model.booster_.num_trees() == 1:  # without a split, and so without a threshold to prove it at
        entry.export_version(model)
    else:
        assert exported(entry, model) == outputs
    assert entry.versions[-1].manifest.framework == f"lightgbm {lgb.__version__}"
    rounded = x.astype(np.float32)
    answers = served(entry, rounded)
    if "label" in outputs:
        assert (answers[0] == model.predict(rounded)).mean() > 0.98
        np.testing.assert_allclose(answers[1], model.predict_proba(rounded), atol=1e-5)
    else:
        np.testing.assert_allclose(answers[0][:, 0], model.predict(rounded), rtol=1e-4, atol=1e-5)


def test_text_labels(entry: qv.Entry) -> None:
    model = lgb.LGBMClassifier(**SMALL).fit(X, np.array(["no", "yes"])[TWO])
    assert exported(entry, model)["label"] == ("TYPE_STRING", (-1,))
    assert set(served(entry, X.astype(np.float32))[0]) == {"no", "yes"}


def test_names_and_shapes_of_one_s_own(entry: qv.Entry) -> None:
    model = lgb.LGBMClassifier(**SMALL).fit(X, THREE)
    entry.export_version(model, {"rows": (None, 6)}, ["class", "confidence"], max_batch_size=32)
    assert list(entry.inputs) == ["rows"]
    assert list(entry.outputs) == ["class", "confidence"]
    assert entry.config.max_batch_size == 32
    entry.export_version(model)
    assert entry.versions == [1, 2]


@pytest.mark.parametrize(
    ("parameters", "y", "width"),
    [({"objective": "binary"}, TWO, 1), ({"objective": "multiclass", "num_class": 3}, THREE, 3)],
)
def test_a_booster_answers_as_its_predict(entry: qv.Entry, parameters: Any, y: Any, width: int) -> None:
    booster = lgb.train({**parameters, "verbose": -1, "num_threads": 1}, lgb.Dataset(X, y), 5)
    loaded = lgb.Booster(model_str=booster.model_to_string())
    for model in (booster, loaded):
        assert exported(entry, model) == {"variable": ("TYPE_FP32", (-1, width))}
        wanted = booster.predict(X.astype(np.float32)).reshape(len(X), -1)
        np.testing.assert_allclose(served(entry, X.astype(np.float32))[0], wanted, atol=1e-5)


def test_a_ranker(entry: qv.Entry) -> None:
    assert exported(entry, lgb.LGBMRanker(**SMALL).fit(X, THREE, group=[100] * 4)) == NUMBER


def test_the_best_iteration_answers(entry: qv.Entry) -> None:
    data = lgb.Dataset(X, Y)
    booster = lgb.train({"verbose": -1, "num_threads": 1, "learning_rate": 0.5}, data, 9)
    booster.best_iteration = 4  # as early stopping leaves it
    exported(entry, booster)
    rows = X.astype(np.float32)
    np.testing.assert_allclose(served(entry, rows)[0][:, 0], booster.predict(rows, num_iteration=4), atol=1e-5)


@pytest.mark.parametrize("one_by_one", [1, 99])
def test_categories(entry: qv.Entry, one_by_one: int) -> None:
    model = lgb.LGBMClassifier(**SMALL, cat_smooth=1, min_data_per_group=2, max_cat_to_onehot=one_by_one)
    model.fit(X, THREE, categorical_feature=[CATEGORY])
    assert "num_cat=1" in model.booster_.model_to_string()
    assert exported(entry, model) == TERNARY
    rows = X.astype(np.float32)
    rows[:50, CATEGORY] = np.linspace(-3, 60, 50)  # between categories, and beyond them all
    np.testing.assert_allclose(served(entry, rows)[1], model.predict_proba(rows), atol=1e-5)


def test_categories_of_a_frame_are_given_as_codes(entry: qv.Entry) -> None:
    frame = pd.DataFrame(X, columns=list("abcdef")).astype(np.float32)
    frame["f"] = pd.Categorical([f"town {int(code):02}" for code in WHOLE[:, CATEGORY]])
    model = lgb.LGBMClassifier(**SMALL).fit(frame, THREE)
    exported(entry, model)
    coded = frame.assign(f=frame["f"].cat.codes).to_numpy(np.float32)
    np.testing.assert_allclose(served(entry, coded)[1], model.predict_proba(frame), atol=1e-5)


TIMES = 1.7e9 + 40 * np.random.default_rng(2).random((400, 6))
"""Where float32 numbers are 128 apart."""


def test_inputs_in_float64_are_compared_with_the_thresholds_themselves(entry: qv.Entry) -> None:
    model = regressor().fit(TIMES, TIMES[:, 0] - 1.7e9)
    assert exported(entry, model, input_types={"x": "float64"}) == NUMBER
    np.testing.assert_allclose(served(entry, TIMES)[0][:, 0], model.predict(TIMES), rtol=1e-5)


@pytest.mark.parametrize("data_type", ["float16", "int64"])
def test_inputs_of_other_types_are_rounded_as_lightgbm_does(entry: qv.Entry, data_type: str) -> None:
    exported(entry, regressor().fit(X, Y), input_types={"x": data_type})


def test_the_proof_sees_thresholds_that_are_rounded_up(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the nearest float32, as converters do: what lies on one goes the other way."""
    monkeypatch.setattr(graph, "rounded_down", lambda values: values.astype(np.float32))
    with pytest.raises(VerificationError, match="does not answer as lightgbm"):
        entry.export_version(regressor().fit(X, Y))


@pytest.mark.parametrize(
    ("model", "arguments", "error", "fact"),
    [
        (lgb.LGBMRegressor(), {}, InvalidInputError, "LGBMRegressor cannot be read: .*fit"),
        (regressor().fit(X, Y), {"input_shapes": {"x": (None, 5)}}, InvalidInputError, "fitted on .*: Column_0, "),
        (regressor(linear_tree=True).fit(WHOLE, Y), {}, ExportError, "linear_tree=false"),
        (
            lgb.LGBMClassifier(**SMALL, objective=lambda y, margin: (margin - y, np.ones_like(y))).fit(X, TWO),
            {},
            ExportError,
            "a custom objective has no probabilities .*booster_",
        ),
        (lgb.LGBMClassifier(**SMALL, objective="poisson").fit(X, TWO), {}, ExportError, "'poisson' has no prob"),
    ],
)
def test_refuses(
    entry: qv.Entry, root: Path, model: Any, arguments: dict[str, Any], error: type[Exception], fact: str
) -> None:
    check_refusal(entry, root, model, arguments, error, fact)


def test_a_custom_objective_of_a_regressor(entry: qv.Entry) -> None:
    model = lgb.LGBMRegressor(**SMALL, objective=lambda y, margin: (margin - y, np.ones_like(y))).fit(X, Y)
    assert exported(entry, model) == NUMBER


def test_without_lightgbm_the_message_names_the_extra(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    model = regressor().fit(X, Y)
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(UnsupportedError, match=re.escape(install("lightgbm"))):
        entry.export_version(model)
