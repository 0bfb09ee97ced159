"""Estimators that were fitted on a DataFrame, or on texts: an input for each column, proved on the framework's rows."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from gravswell import quiver as qv
from gravswell.errors import ExportError, InvalidInputError, UnsupportedError, VerificationError
from gravswell.quiver.golden import load_golden
from gravswell.serving import Client
from gravswell.serving.triton import EmbeddedTriton

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

_RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "unused": _RNG.normal(size=200),
        "age (y)": _RNG.normal(4000, 1000, 200).round(1),
        "rooms": _RNG.integers(0, 5, 200),
        "city/x": _RNG.choice(["Ulm", "Köln", "Rom"], 200),
        "text": _RNG.choice(["A big DOG", "the cat, sat", "some dog!", "Big", "ÄRGER im Köln-Haus"], 200),
    }
)
LABELS = (FRAME["age (y)"] > 4000).astype(int) + (FRAME["city/x"] == "Ulm") + FRAME["text"].str.contains("dog")

AGE, ROOMS, FLOAT_ROOMS = ("TYPE_FP32", (-1, 1)), ("TYPE_INT64", (-1, 1)), ("TYPE_FP32", (-1, 1))
CITY = TEXT = ("TYPE_STRING", (-1, 1))
USED = ["age (y)", "rooms", "city/x"]


def scaled() -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler())


def pipeline(*parts: Any, **options: Any) -> Any:
    transformer = make_column_transformer(*parts, **options)
    return make_pipeline(transformer, LogisticRegression(max_iter=500))


def feeds(frame: pd.DataFrame, session: ort.InferenceSession) -> dict[str, Any]:
    types = {
        "tensor(float)": np.float32,
        "tensor(double)": np.float64,
        "tensor(int64)": np.int64,
        "tensor(string)": object,
    }
    return {node.name: frame[[node.name]].to_numpy().astype(types[node.type]) for node in session.get_inputs()}


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        pytest.param(
            pipeline((scaled(), ["age (y)", "rooms"]), (OneHotEncoder(), ["city/x"])),
            {"age (y)": AGE, "rooms": FLOAT_ROOMS, "city/x": CITY},
            id="by name",
        ),
        pytest.param(
            pipeline((scaled(), slice(1, 3)), (OneHotEncoder(), [3])),
            {"age (y)": AGE, "rooms": FLOAT_ROOMS, "city/x": CITY},
            id="by position, behind a column that is dropped",
        ),
        pytest.param(
            pipeline(
                (OrdinalEncoder(), make_column_selector("city|rooms")), (MinMaxScaler(), make_column_selector("age"))
            ),
            {"age (y)": AGE, "rooms": ROOMS, "city/x": CITY},
            id="categories that are integers",
        ),
        pytest.param(
            pipeline((OneHotEncoder(), ["city/x"]), ("drop", ["text", "unused"]), remainder="passthrough"),
            {"age (y)": AGE, "rooms": FLOAT_ROOMS, "city/x": CITY},
            id="what remains is passed through",
        ),
        pytest.param(
            GridSearchCV(
                make_pipeline(
                    ColumnTransformer(
                        [("one", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), ["rooms"])]
                    ),
                    DecisionTreeClassifier(random_state=0),
                ),
                {"decisiontreeclassifier__max_depth": [2, 3]},
                cv=2,
            ),
            {"rooms": ROOMS},
            id="one column, in a search",
        ),
    ],
)
def test_each_column_is_an_input(entry: qv.Entry, model: Any, inputs: dict[str, Any]) -> None:
    model.fit(FRAME, LABELS)
    session = ort.InferenceSession(entry.export_version(model))
    assert {n: (r.data_type, r.dims) for n, r in entry.inputs.items()} == inputs
    label, probabilities = session.run(None, feeds(FRAME, session))
    assert (label == model.predict(FRAME)).mean() > 0.98
    assert np.abs(probabilities - model.predict_proba(FRAME)).max() < 1e-3
    entry.export_version(model)
    assert entry.versions == [1, 2]
    assert entry.versions[-1].manifest.verification.inputs == "random"


def test_a_column_of_timestamps_is_taken_in_float64(entry: qv.Entry) -> None:
    frame = FRAME.assign(time=1.7e9 + 1000 * np.random.default_rng(1).random(len(FRAME)))
    model = pipeline(
        (OneHotEncoder(handle_unknown="ignore"), ["rooms", "city/x"]), (StandardScaler(), ["age (y)", "time"])
    )
    model.fit(frame, (frame["time"] > 1.7e9 + 500).astype(int))
    with pytest.raises(VerificationError, match=r"Column 'time' was fitted on .*\"time\": \"float64\"} .*time=float64"):
        entry.export_version(model)
    double = {"age (y)": "float64", "time": "float64"}
    session = ort.InferenceSession(entry.export_version(model, input_types=double))
    assert {n: r.data_type for n, r in entry.inputs.items()} == {
        "age (y)": "TYPE_FP64",
        "rooms": "TYPE_INT64",
        "city/x": "TYPE_STRING",
        "time": "TYPE_FP64",
    }
    _, probabilities = session.run(None, feeds(frame, session))
    assert np.abs(probabilities - model.predict_proba(frame)).max() < 1e-4


def test_rows_are_drawn_from_what_was_fitted(entry: qv.Entry) -> None:
    model = pipeline((scaled(), ["age (y)"]), (OneHotEncoder(), ["city/x", "rooms"])).fit(FRAME, LABELS)
    path = Path(entry.export_version(model))
    rows = load_golden(path.parent / ".golden.npz")[-1].inputs
    assert set(rows["city/x"].ravel()) == {"Ulm", "Köln", "Rom"}
    assert set(rows["rooms"].ravel()) <= set(range(5))
    assert 3000 < rows["age (y)"].mean() < 5000


def test_the_transformer_alone(entry: qv.Entry) -> None:
    transformer = make_column_transformer((scaled(), ["age (y)"]), (OneHotEncoder(), ["city/x"])).fit(FRAME)
    session = ort.InferenceSession(entry.export_version(transformer, output_names=["features"]))
    (features,) = session.run(None, feeds(FRAME, session))
    np.testing.assert_allclose(features, transformer.transform(FRAME), atol=1e-5)


def test_shapes_types_and_samples_by_the_columns_names(entry: qv.Entry) -> None:
    model = pipeline((scaled(), ["age (y)", "rooms"]), (OneHotEncoder(), ["city/x"])).fit(FRAME, LABELS)
    entry.export_version(model, dict.fromkeys(USED, (None, 1)), input_types={"rooms": "int64"})
    assert entry.inputs["rooms"].data_type == "TYPE_INT64"
    for samples in (FRAME[USED].head(4), [{name: FRAME[[name]].to_numpy()[:4] for name in USED}]):
        entry.export_version(model, sample_inputs=samples)
        assert entry.versions[-1].manifest.verification.inputs == "given"
    sampled = load_golden(Path(entry.versions[-1].location).parent / ".golden.npz")[-1].inputs
    assert sampled["rooms"].dtype == np.int64
    assert sampled["city/x"].ravel().tolist() == FRAME["city/x"].head(4).tolist()


def test_texts_are_proved_with_texts_of_the_users(entry: qv.Entry) -> None:
    model = pipeline((scaled(), ["age (y)"]), (TfidfVectorizer(), "text")).fit(FRAME, LABELS)
    with pytest.raises(ExportError, match=r"real texts proves .* text: give rows of yours as sample_inputs"):
        entry.export_version(model)
    session = ort.InferenceSession(entry.export_version(model, sample_inputs=FRAME[["age (y)", "text"]].head(20)))
    assert {n: (r.data_type, r.dims) for n, r in entry.inputs.items()} == {"age (y)": AGE, "text": TEXT}
    assert np.abs(session.run(None, feeds(FRAME, session))[1] - model.predict_proba(FRAME)).max() < 1e-3


def test_a_pipeline_that_takes_texts_alone(entry: qv.Entry) -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(FRAME["text"], LABELS)
    with pytest.raises(ExportError, match=r"real texts proves .* x: give rows of yours"):
        entry.export_version(model)
    path = entry.export_version(model, sample_inputs={"x": FRAME[["text"]].head(20).to_numpy()})
    assert {n: (r.data_type, r.dims) for n, r in entry.inputs.items()} == {"x": TEXT}
    (label, _) = ort.InferenceSession(path).run(None, {"x": FRAME[["text"]].to_numpy().astype(object)})
    assert (label == model.predict(FRAME["text"])).all()


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ({"input_shapes": {"age": (None, 1), "city/x": (None, 1)}}, r"takes the columns age \(y\), city/x, not age, "),
        (
            {"input_shapes": {"age (y)": (None,), "city/x": (None, 1)}},
            r"'age \(y\)' has shape .*a column is \(None, 1\)",
        ),
        ({"sample_inputs": FRAME.head(3)}, r"the model takes age \(y\), city/x"),
    ],
)
def test_columns_that_the_estimator_does_not_take(entry: qv.Entry, arguments: dict[str, Any], fact: str) -> None:
    model = pipeline((scaled(), ["age (y)"]), (OneHotEncoder(), ["city/x"])).fit(FRAME, LABELS)
    with pytest.raises(InvalidInputError, match=fact):
        entry.export_version(model, **arguments)
    assert entry.versions == []


def test_on_the_server(repo: qv.ModelRepository, entry: qv.Entry, root: Path) -> None:
    model = pipeline((scaled(), ["age (y)"]), (OneHotEncoder(), ["city/x", "rooms"]), (TfidfVectorizer(), "text")).fit(
        FRAME, LABELS
    )
    entry.export_version(model, sample_inputs=FRAME.drop(columns="unused").head(20))
    rows = {name: FRAME[[name]].to_numpy() for name in entry.inputs}
    rows = rows | {"age (y)": rows["age (y)"].astype(np.float32)}
    with EmbeddedTriton(root) as server, Client(server.http_address) as client:
        answers = client.infer(entry.name, rows, batch_size=50)
    assert (answers["label"] == model.predict(FRAME)).mean() > 0.98
    assert np.abs(answers["probabilities"] - model.predict_proba(FRAME)).max() < 1e-3


def test_without_pandas_the_message_names_it(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where an estimator that was fitted elsewhere is loaded from a file."""
    model = pipeline((scaled(), ["age (y)"]), (OneHotEncoder(), ["city/x"])).fit(FRAME, LABELS)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UnsupportedError, match=r"fitted on a DataFrame.*: pip install pandas"):
        entry.export_version(model)
