"""The shipped source in an interpreter of its own, and what configurations say of members."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gravswell import quiver as qv
from gravswell.errors import ExportError, InvalidInputError, VerificationError
from gravswell.pipelines import calling
from gravswell.quiver.composition.config import (
    Pinned,
    access_of,
    is_pipeline,
    parse_member_value,
    pinned_members,
    set_parameters,
)
from gravswell.quiver.composition.ensemble import run_ensemble
from gravswell.quiver.composition.fresh import FreshInterpreter
from gravswell.quiver.config import ModelConfig, parse_config
from gravswell.quiver.reader import RepositoryReader

X = {"x": ("FP32", (None, 4))}


@pytest.fixture(scope="module")
def published(models: qv.ModelRepository) -> Path:
    """The folder of a version whose function adds 1 before ``double``."""

    def plus(x: Any, *, double: Any) -> Any:
        print("said to nobody")
        return double(x + 1)

    made = qv.Pipeline(plus, inputs=X, output_names=["z"])  # type: ignore[arg-type]
    models.add("plus", "pipeline").export_version(made)
    return Path(models.location) / "plus/1"


def doubled(alias: str, feed: Any) -> Any:
    assert alias == "double"
    return {"y": feed["x"] * 2}


@pytest.fixture
def edited(published: Path, tmp_path: Path) -> Any:
    """``edited(text)``: the same folder with another source."""

    def edit(text: str) -> Path:
        for path in (*published.glob("*.py"), published / "pipeline.json"):
            (tmp_path / path.name).write_text(path.read_text())
        (tmp_path / "source").mkdir()
        (tmp_path / "source/pipeline_source.py").write_text(text)
        return tmp_path

    return edit


def test_members_are_called_from_threads(models: qv.ModelRepository) -> None:
    def crops(x: Any, *, double: Any) -> Any:
        with ThreadPoolExecutor(4) as pool:
            return sum(pool.map(lambda k: double(x + np.float32(k)), range(32)))

    made = qv.Pipeline(crops, inputs=X, output_names=["z"])  # type: ignore[arg-type]
    models.add("crops", "pipeline").export_version(made)
    assert qv.verify_version(RepositoryReader(models.url), "crops", 1).samples == 3


def test_answers_do_not_go_to_another_thread(edited: Any) -> None:
    folder = edited(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def plus(x, *, double):\n"
        "    with ThreadPoolExecutor(4) as pool:\n"
        "        answers = pool.map(lambda k: (double(x + k) == 2 * (x + k)).all(), range(32))\n"
        "        return x * all(answers)\n"
    )
    with FreshInterpreter(folder, doubled) as interpreter:
        assert interpreter.run({"x": np.ones((2, 4), np.float32)})["z"].all()


def test_it_answers(published: Path) -> None:
    with FreshInterpreter(published, doubled) as interpreter:
        for rows in (1, 3):
            assert (interpreter.run({"x": np.ones((rows, 4), np.float32)})["z"] == 4).all()


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import nothing_of_the_kind", "does not load in an interpreter of its own: ModuleNotFoundError"),
        (
            "import os, sys\nsys.stderr.write('out of luck')\nsys.stderr.flush()\nos._exit(3)",
            r"ended \(3\): out of luck",
        ),
    ],
)
def test_source_that_does_not_load(edited: Any, source: str, told: str) -> None:
    with pytest.raises(ExportError, match=told), FreshInterpreter(edited(source), doubled):
        pass


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return 1 / 0", r"ZeroDivisionError: division by zero \(in plus: return 1 / 0\)"),
        ("return x.astype(float)", "output z is to be float32, and is float64"),
        ("return x, x", "the function returned 2 tensors; the outputs are z"),
        ("return double(x[0])", r"input x of member double is to have shape \[-1, 4\]"),
        ("import os; os._exit(4)", r"ended \(4\): it said nothing"),
    ],
)
def test_a_function_that_fails(edited: Any, body: str, told: str) -> None:
    folder = edited(f"def plus(x, *, double):\n    {body}\n")
    with FreshInterpreter(folder, doubled) as interpreter, pytest.raises(ExportError, match=told):
        interpreter.run({"x": np.ones((1, 4), np.float32)})


def test_a_member_that_fails_can_be_caught(edited: Any) -> None:
    text = "def plus(x, *, double):\n    try:\n        return double(x)\n    except RuntimeError as e:\n"
    text += "        return x * len(str(e))\n"

    def refuse(*_: Any) -> Any:
        raise ValueError("no")

    with FreshInterpreter(edited(text), refuse) as interpreter:
        assert interpreter.run({"x": np.ones((1, 4), np.float32)})["z"][0, 0] == len("ValueError: no")


def test_source_that_answers_otherwise_elsewhere(models: qv.ModelRepository) -> None:
    def here_only(x: Any, *, double: Any) -> Any:
        return double(x + (__name__ == "pipeline_source"))

    entry = models.add("here-only", "pipeline")
    made = qv.Pipeline(here_only, inputs=X, output_names=["z"])  # type: ignore[arg-type]
    with pytest.raises(
        VerificationError, match=r"the published pipeline does not answer as Python .* nothing was published"
    ):
        entry.export_version(made)
    assert entry.versions == []


def test_what_a_configuration_says() -> None:
    config = ModelConfig(name="p", backend="python")
    assert (is_pipeline(config), access_of(config), pinned_members(config)) == (False, "private", [])
    set_parameters(config, "public", [Pinned("b", "m:x", 3), Pinned("a", "m", 1)])
    assert (is_pipeline(config), access_of(config)) == (True, "public")
    assert pinned_members(config) == [Pinned("a", "m", 1), Pinned("b", "m:x", 3)]
    for text in ("m", ":3", "m:", "m:x", "m:-"):
        with pytest.raises(InvalidInputError, match="names no member"):
            parse_member_value(text)
    config.parameters["gravswell.access"].string_value = "anybody"
    with pytest.raises(InvalidInputError, match="access is 'anybody'"):
        access_of(config)


def test_an_ensemble_that_leads_nowhere() -> None:
    step = (
        'step { model_name: "m" model_version: 1 input_map { key: "x" value: "q" } output_map { key: "y" value: "z" } }'
    )
    config = parse_config(
        f'platform: "ensemble" input {{ name: "x" }} output {{ name: "z" }} ensemble_scheduling {{ {step} }}'
    )
    with pytest.raises(VerificationError, match="the ensemble makes no q, which its steps wait for"):
        run_ensemble(config, {"x": np.ones(1)}, lambda *_: {})


def test_an_ensemble_that_writes_its_own_input() -> None:
    step = (
        'step { model_name: "m" model_version: 1 input_map { key: "x" value: "x" } output_map { key: "y" value: "x" } }'
    )
    config = parse_config(
        f'platform: "ensemble" input {{ name: "x" }} output {{ name: "x" }} ensemble_scheduling {{ {step} }}'
    )
    with pytest.raises(VerificationError, match="the ensemble writes x twice"):
        run_ensemble(config, {"x": np.ones(1)}, lambda *_: {"y": np.ones(1)})


@pytest.mark.parametrize("adds", [0, 1])
@pytest.mark.parametrize(
    ("name", "told"), [("x", "x is both input and output of same"), (1, "same returns an output by 1: give")]
)
def test_an_output_has_a_name_of_its_own(models: qv.ModelRepository, adds: int, name: Any, told: str) -> None:
    def same(x: Any, *, double: Any) -> Any:
        return {name: double(x + adds) if adds else double(x)}  # Python, or an ensemble

    entry = models.add("same", "pipeline", force=True)
    with pytest.raises(InvalidInputError, match=told):
        entry.export_version(qv.Pipeline(same, inputs=X))  # type: ignore[arg-type]


def test_an_output_is_not_renamed_to_an_input(models: qv.ModelRepository) -> None:
    def plain(x: Any, *, double: Any) -> Any:
        return double(x)

    entry = models.add("same", "pipeline", force=True)
    with pytest.raises(InvalidInputError, match="x is both input and output of plain: give the output another name"):
        entry.export_version(qv.Pipeline(plain), output_names=["x"])
    with pytest.raises(InvalidInputError, match="output z of plain is written twice"):
        entry.export_version(qv.Pipeline(plain), output_names=["z", "z"])


def test_text_between_python_and_a_server() -> None:
    given = np.array([["ü", b"b"]], object)
    assert calling.decoded(calling.encoded(given)).tolist() == [["ü", "b"]]
    assert calling.as_array(["a", "bc"]).dtype == object
    assert calling.as_array(np.array([b"a"])).tolist() == ["a"]
    with pytest.raises(ValueError, match="element 1 is not UTF-8 text"):
        calling.decoded(np.array([b"a", b"\xff"], object))
