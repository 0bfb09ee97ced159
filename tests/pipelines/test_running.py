"""The shipped source in an interpreter of its own, and what configurations say of members."""

import sys
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


def test_calls_that_are_started_run_at_the_same_time_and_raise_where_they_are_awaited(edited: Any) -> None:
    folder = edited(
        "def plus(x, *, double):\n"
        "    answers = [double.start(x + k).result for k in range(100)]\n"
        "    refused = double.start(x[0])\n"
        "    try:\n"
        "        refused.result()\n"
        "    except ValueError:\n"
        "        return x * all((answer() == 2 * (x + k)).all() for k, answer in enumerate(answers))\n"
    )
    with FreshInterpreter(folder, doubled) as interpreter:
        assert interpreter.run({"x": np.ones((2, 4), np.float32)})["z"].all()


@pytest.mark.parametrize(
    "left_behind",
    [
        "[double.start(x) for _ in range(40)]",
        "[threading.Thread(target=double, args=(x,)).start() for _ in range(4)]",
    ],
)
def test_calls_that_nobody_waits_for_end_before_the_answer(edited: Any, left_behind: str) -> None:
    """They would else be answered with what the next call is for."""
    folder = edited(f"import threading\n\ndef plus(x, *, double):\n    {left_behind}\n    return 2 * x\n")
    with FreshInterpreter(folder, doubled) as interpreter:
        for k in range(20):
            x = np.full((2, 4), k, np.float32)
            np.testing.assert_array_equal(interpreter.run({"x": x})["z"], 2 * x)


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


def test_it_finds_what_is_installed_elsewhere(
    edited: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, target = tmp_path_factory.mktemp("own"), tmp_path_factory.mktemp("target")
    (target / "elsewhere-1.0.dist-info").mkdir()
    for folder, name in ((target, "elsewhere"), (own, "of_the_user")):
        (folder / f"{name}.py").write_text("ONE = 1\n")
        monkeypatch.syspath_prepend(str(folder))
    text = "import importlib.util, elsewhere\nassert not importlib.util.find_spec('of_the_user')\n"
    folder = edited(f"{text}def plus(x, *, double):\n    return x + np.float32(elsewhere.ONE)\nimport numpy as np\n")
    with FreshInterpreter(folder, doubled) as interpreter:
        assert (interpreter.run({"x": np.ones((1, 4), np.float32)})["z"] == 2).all()


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
        ("return [x]", "the function returned a list: return a tensor, a tuple of tensors, or a dict by name"),
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


def test_source_that_fails_elsewhere_is_not_taken_for_a_size(models: qv.ModelRepository) -> None:
    def only_here(x: Any, *, double: Any) -> Any:
        if "gravswell" not in sys.modules:
            raise RuntimeError("elsewhere")
        return double(x + 1)

    made = qv.Pipeline(only_here, inputs=X, output_names=["z"])  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="RuntimeError: elsewhere") as caught:
        models.add("only-here", "pipeline").export_version(made)
    assert "hard-coded" not in str(caught.value)


def test_an_output_comes_before_a_method_of_its_name() -> None:
    found = calling.Outputs(("index", "names", "_x"), (1, 2, 3))
    assert (found.index, found.names, found["_x"], found.count(1)) == (1, 2, 3, 1)
    assert dict(found) == {"index": 1, "names": 2, "_x": 3}
    with pytest.raises(AttributeError, match="there is no output 'middle'; there are: index, names, _x"):
        _ = found.middle


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
def test_an_output_has_a_name(models: qv.ModelRepository, adds: int) -> None:
    def same(x: Any, *, double: Any) -> Any:
        return {1: double(x + adds) if adds else double(x)}  # Python, or an ensemble

    entry = models.add("same", "pipeline", force=True)
    with pytest.raises(InvalidInputError, match="same returns an output by 1: give"):
        entry.export_version(qv.Pipeline(same, inputs=X))  # type: ignore[arg-type]


def test_an_output_may_be_called_as_an_input(models: qv.ModelRepository) -> None:
    """By Python, as in MindSpore Serving's own example: for an ensemble the two would be one tensor."""

    def plain(x: Any, *, double: Any) -> Any:
        return double(x)

    entry = models.add("same", "pipeline", force=True)
    with pytest.raises(InvalidInputError, match="for it gives its output x the name of an input: declare them"):
        entry.export_version(qv.Pipeline(plain), output_names=["x"])
    with pytest.raises(InvalidInputError, match="output z of plain is written twice"):
        entry.export_version(qv.Pipeline(plain), output_names=["z", "z"])
    entry.export_version(qv.Pipeline(plain, inputs=X), output_names=["x"])  # type: ignore[arg-type]
    assert (list(entry.inputs), list(entry.outputs)) == (["x"], ["x"])
    assert entry.config.backend == "python"
    assert qv.verify_version(RepositoryReader(models.url), "same", 1).samples


def test_text_between_python_and_a_server() -> None:
    given = np.array([["ü", b"b"]], object)
    assert calling.decoded(calling.encoded(given)).tolist() == [["ü", "b"]]
    assert calling.as_array(["a", "bc"]).dtype == object
    assert calling.as_array(np.array([b"a"])).tolist() == ["a"]
    with pytest.raises(ValueError, match="element 1 is not UTF-8 text"):
        calling.decoded(np.array([b"a", b"\xff"], object))
