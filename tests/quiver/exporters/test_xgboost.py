import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from gravswell import quiver as qv
from gravswell.errors import ExportError, InvalidInputError, UnsupportedError, VerificationError
from gravswell.extras import install
from gravswell.quiver.exporters.trees import boosted, xgboost_reader

from .boosting import BINARY, CATEGORY, NUMBER, POSITIVE, TERNARY, THREE, TWO, WHOLE, X, Y, exported, served
from .refusing import check_refusal

SMALL = {"n_estimators": 8, "max_depth": 4, "n_jobs": 1}
PAIRS = {"label": ("TYPE_INT64", (-1, 2)), "probabilities": ("TYPE_FP32", (-1, 2))}
TWO_NUMBERS = {"variable": ("TYPE_FP32", (-1, 2))}
CATEGORIES = {"enable_categorical": True, "feature_types": ["c" if k == CATEGORY else "q" for k in range(X.shape[1])]}


def regressor(objective: str, **options: Any) -> Any:
    return xgb.XGBRegressor(**SMALL, objective=objective, **options)


@pytest.mark.parametrize(
    ("model", "y", "outputs"),
    [
        (xgb.XGBClassifier(**SMALL), TWO, BINARY),
        (xgb.XGBClassifier(**SMALL), THREE, TERNARY),
        (xgb.XGBClassifier(**SMALL), np.stack([TWO, THREE > 1], axis=1), PAIRS),
        (xgb.XGBClassifier(**SMALL, objective="multi:softmax"), THREE, TERNARY),
        (xgb.XGBClassifier(**SMALL, objective="binary:hinge"), TWO, BINARY),
        (xgb.XGBClassifier(**SMALL, booster="dart", rate_drop=0.4, one_drop=1), THREE, TERNARY),
        (xgb.XGBClassifier(n_estimators=8, booster="gblinear"), THREE, TERNARY),
        (xgb.XGBRFClassifier(n_estimators=8), THREE, TERNARY),
        (xgb.XGBClassifier(**SMALL, **CATEGORIES, max_cat_to_onehot=1), THREE, TERNARY),
        (xgb.XGBClassifier(**SMALL, **CATEGORIES, max_cat_to_onehot=99), THREE, TERNARY),
        (xgb.XGBRFRegressor(n_estimators=8), Y, NUMBER),
        (regressor("reg:squarederror", base_score=7.5), Y, NUMBER),
        (regressor("reg:squarederror", booster="dart", rate_drop=0.4, one_drop=1), Y, NUMBER),
        (regressor("reg:squarederror"), np.stack([Y, POSITIVE], axis=1), TWO_NUMBERS),
        (regressor("reg:squaredlogerror"), POSITIVE, NUMBER),
        (regressor("reg:pseudohubererror"), Y, NUMBER),
        (regressor("reg:absoluteerror"), Y, NUMBER),
        (regressor("reg:logistic"), TWO, NUMBER),
        (regressor("reg:quantileerror", quantile_alpha=[0.2, 0.8]), Y, TWO_NUMBERS),
        (regressor("count:poisson"), POSITIVE, NUMBER),
        (regressor("reg:gamma"), POSITIVE, NUMBER),
        (regressor("reg:tweedie"), POSITIVE, NUMBER),
        (regressor("survival:cox"), POSITIVE, NUMBER),
    ],
    ids=lambda value: f"{type(value).__name__}-{value.objective}-{value.booster}" if hasattr(value, "fit") else "",
)
def test_estimators(entry: qv.Entry, model: Any, y: Any, outputs: dict[str, Any]) -> None:
    model.fit(X if model.booster != "gblinear" else WHOLE, y)
    if model.booster == "gblinear":  # which has no thresholds to be proved at
        entry.export_version(model)
        assert {n: (r.data_type, r.dims) for n, r in entry.outputs.items()} == outputs
    else:
        assert exported(entry, model) == outputs
    manifest = entry.versions[-1].manifest
    assert manifest.framework == f"xgboost {xgb.__version__}"
    assert manifest.exporter.startswith("gravswell ")
    answers = served(entry, X.astype(np.float32))
    if "label" in outputs:
        assert (answers[0] == model.predict(X)).mean() > 0.98
        np.testing.assert_allclose(answers[1], model.predict_proba(X), atol=1e-5)
    else:
        np.testing.assert_allclose(answers[0], model.predict(X).reshape(len(X), -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "y", "outputs"),
    [
        ({"objective": "binary:logistic"}, TWO, NUMBER),
        ({"objective": "binary:logitraw"}, TWO, NUMBER),
        ({"objective": "multi:softprob", "num_class": 3}, THREE, {"variable": ("TYPE_FP32", (-1, 3))}),
        ({"objective": "multi:softmax", "num_class": 3}, THREE, NUMBER),
        ({"objective": "reg:squarederror", "base_score": 3}, Y, NUMBER),
    ],
    ids=repr,
)
def test_a_booster_answers_as_its_predict(entry: qv.Entry, parameters: Any, y: Any, outputs: dict[str, Any]) -> None:
    frame = pd.DataFrame(X, columns=["a b", "b", "c", "d", "e", "f"])
    booster = xgb.train({**parameters, "nthread": 1}, xgb.DMatrix(frame, y), 5)
    assert exported(entry, booster) == outputs
    (answer,) = served(entry, X.astype(np.float32))
    wanted = booster.predict(xgb.DMatrix(frame)).reshape(len(X), -1)
    assert np.isclose(answer, wanted, rtol=1e-4, atol=1e-5).mean() > 0.99


def test_survival_times(entry: qv.Entry) -> None:
    data = xgb.DMatrix(X)
    data.set_float_info("label_lower_bound", POSITIVE)
    data.set_float_info("label_upper_bound", POSITIVE * 2)
    assert exported(entry, xgb.train({"objective": "survival:aft", "nthread": 1}, data, 5)) == NUMBER


def test_a_ranker(entry: qv.Entry) -> None:
    assert exported(entry, xgb.XGBRanker(**SMALL).fit(X, THREE, group=[100] * 4)) == NUMBER


@pytest.mark.parametrize("parallel", [1, 3])
def test_early_stopping(entry: qv.Entry, parallel: int) -> None:
    model = xgb.XGBClassifier(
        n_estimators=200, learning_rate=0.5, num_parallel_tree=parallel, early_stopping_rounds=2, n_jobs=1
    )
    model.fit(X[100:], THREE[100:], eval_set=[(X[:100], THREE[:100])], verbose=False)
    booster = model.get_booster()
    assert 0 < model.best_iteration < booster.num_boosted_rounds() - 1
    exported(entry, model)
    _, probabilities = served(entry, X.astype(np.float32))
    np.testing.assert_allclose(probabilities, model.predict_proba(X), atol=1e-5)


def test_an_early_stopped_booster(repo: qv.ModelRepository) -> None:
    data, watched = xgb.DMatrix(X[100:], Y[100:]), xgb.DMatrix(X[:100], Y[:100])
    parameters = {"learning_rate": 0.3, "max_depth": 3, "nthread": 1}
    booster = xgb.train(
        parameters, data, 200, evals=[(watched, "watched")], early_stopping_rounds=2, verbose_eval=False
    )
    best = booster.best_iteration + 1
    assert 1 < best < booster.num_boosted_rounds()
    for name, part in {"all": booster, "slice": booster[:2]}.items():
        entry = repo.add(name, platform=qv.Platform.ONNX)
        exported(entry, part)
        (answer,) = served(entry, X.astype(np.float32))
        rounds = best if name == "all" else 2
        wanted = booster.predict(xgb.DMatrix(X), iteration_range=(0, rounds))
        np.testing.assert_allclose(answer[:, 0], wanted, rtol=1e-4, atol=1e-5)


def test_another_value_that_means_missing(entry: qv.Entry) -> None:
    filled = np.nan_to_num(X, nan=-999)
    model = xgb.XGBRegressor(**SMALL, missing=-999).fit(filled, Y)
    exported(entry, model)
    for x in (filled, X):
        np.testing.assert_allclose(served(entry, x.astype(np.float32))[0][:, 0], model.predict(x), atol=1e-4)


def test_categories_of_a_frame_are_given_as_codes(entry: qv.Entry) -> None:
    frame = pd.DataFrame(X, columns=list("abcdef"))
    frame["f"] = pd.Categorical([f"town {int(code):02}" for code in WHOLE[:, CATEGORY]])
    model = xgb.XGBRegressor(**SMALL, enable_categorical=True).fit(frame, Y)
    exported(entry, model)
    coded = frame.assign(f=frame["f"].cat.codes).to_numpy(np.float32)
    np.testing.assert_allclose(served(entry, coded)[0][:, 0], model.predict(frame), atol=1e-4)


@pytest.mark.parametrize("data_type", ["float64", "float16", "int64"])
def test_inputs_of_other_types_are_rounded_as_xgboost_does(entry: qv.Entry, data_type: str) -> None:
    exported(entry, xgb.XGBRegressor(**SMALL).fit(X, Y), input_types={"x": data_type})
    assert (
        entry.inputs["x"].data_type
        == {"float64": "TYPE_FP64", "float16": "TYPE_FP16", "int64": "TYPE_INT64"}[data_type]
    )


def test_thresholds_beyond_the_input_s_type(entry: qv.Entry) -> None:
    """They are infinite in it, which XGBoost refuses."""
    exported(entry, xgb.XGBRegressor(**SMALL).fit(X * 1e3, Y), input_types={"x": "float16"})


@pytest.mark.parametrize("tree_method", ["exact", "hist"])
def test_branches_that_were_pruned(entry: qv.Entry, tree_method: str) -> None:
    model = xgb.XGBRegressor(**SMALL, tree_method=tree_method, gamma=5.0).fit(X, Y)
    exported(entry, model)
    np.testing.assert_allclose(served(entry, X.astype(np.float32))[0][:, 0], model.predict(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["missing_yes", "threshold", "value"])
def test_the_proof_sees_one_wrong_number(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A graph whose missing values go the other way, or with a threshold one step off, or with one leaf of another."""
    model = xgb.XGBRegressor(n_estimators=2, max_depth=3, n_jobs=1).fit(X[:, :1], Y)
    finish = boosted.Boosted.__init__

    def damaged(self: Any, *arguments: Any, **options: Any) -> None:
        tree = options["trees"][0]
        node = next(k for k, child in enumerate(tree.yes) if (child >= 0) == (name != "value"))
        if name == "missing_yes":
            tree.missing_yes[node] = not tree.missing_yes[node]
        elif name == "threshold":
            tree.threshold[node] = float(np.nextafter(np.float32(tree.threshold[node]), np.float32(np.inf)))
        else:
            tree.value[node] += 0.01
        finish(self, *arguments, **options)

    monkeypatch.setattr(boosted.Boosted, "__init__", damaged)
    with pytest.raises(VerificationError, match=r"does not answer as xgboost.*--sample-inputs .*--atol, --rtol"):
        entry.export_version(model)
    assert entry.versions == []


@pytest.mark.parametrize(
    ("model", "arguments", "error", "fact"),
    [
        (xgb.XGBRegressor(), {}, InvalidInputError, "XGBRegressor cannot be read: .*fit"),
        (regressor("reg:squarederror").fit(X, Y), {"input_shapes": {"x": (None, 5)}}, InvalidInputError, "fitted on"),
        (
            regressor("reg:squarederror").fit(X, Y),
            {"input_shapes": {"a": (None, 5), "b": (None, 1)}},
            InvalidInputError,
            "one tensor of all its 6 features, not a, b",
        ),
        (regressor("reg:squarederror").fit(X, Y), {"output_names": ["a", "b"]}, InvalidInputError, "2 output_names"),
        (regressor("reg:squarederror").fit(X, Y), {"output_names": ["x"]}, InvalidInputError, "name of its own"),
        (regressor("reg:squarederror").fit(X, Y), {"input_types": {"x": "string"}}, InvalidInputError, "take numbers"),
        (regressor("reg:squarederror").fit(X, Y), {"opset": 12}, InvalidInputError, "need opset 13"),
        (
            regressor("reg:squarederror", multi_strategy="multi_output_tree").fit(X, np.stack([Y, Y], axis=1)),
            {},
            ExportError,
            "one_output_per_tree",
        ),
        (
            xgb.XGBClassifier(**SMALL, objective="binary:logitraw").fit(X, TWO),
            {},
            ExportError,
            "'binary:logitraw' has no probabilities .*get_booster",
        ),
    ],
)
def test_refuses(
    entry: qv.Entry, root: Path, model: Any, arguments: dict[str, Any], error: type[Exception], fact: str
) -> None:
    check_refusal(entry, root, model, arguments, error, fact)


def test_an_objective_that_nobody_here_knows(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(xgboost_reader._LINKS, "reg:gamma")
    with pytest.raises(ExportError, match="under the objective 'reg:gamma' is not known here; known: binary:logistic,"):
        entry.export_version(regressor("reg:gamma").fit(X, POSITIVE))


def test_without_xgboost_the_message_names_the_extra(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    model = xgb.XGBRegressor(**SMALL).fit(X, Y)
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(UnsupportedError, match=re.escape(install("xgboost"))):
        entry.export_version(model)
