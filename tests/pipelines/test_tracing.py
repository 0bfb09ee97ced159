"""What is found by running a function on symbols: an ensemble, a reason for Python, or what is wrong either way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gravswell import quiver as qv
from gravswell.errors import InvalidInputError
from gravswell.pipelines.ensembles import ensemble_parts
from gravswell.pipelines.members import resolved
from gravswell.pipelines.tracing import Trace
from gravswell.quiver.composition.config import pinned_members
from gravswell.quiver.reader import RepositoryReader

from .conftest import fill, scaled

NAMES = ("double", "triple", "wide", "split", "subtract", "whole")
Calls = Callable[..., Any]


def written(call: Calls, inputs: Any = None, **how: Any) -> qv.Pipeline:
    """A pipeline of one input that calls whatever it likes."""

    def f(x: Any, **members: Any) -> Any:
        return call(members, x)

    return qv.Pipeline(f, inputs=inputs, members={name: name for name in NAMES}, **how)


def traced(models: qv.ModelRepository, pipeline: qv.Pipeline) -> Any:
    reader = RepositoryReader(models.url)
    return pipeline.traced(resolved(reader, pipeline.member_names, pipeline.references, pipeline=None))


def test_an_ensemble_of_several_inputs_and_outputs(models: qv.ModelRepository) -> None:
    @qv.pipeline(output_names=["far", "near"])
    def spread(x: Any, y: Any, *, split: Any, subtract: Any, double: Any) -> Any:
        low, high = split(x)
        return double(subtract(high, b=low)), subtract(double(y), x)

    found = traced(models, spread)
    assert isinstance(found, Trace)
    parts = ensemble_parts(found, "public")
    steps = [
        (s.model_name, s.model_version, dict(s.input_map), dict(s.output_map)) for s in parts.ensemble_scheduling.step
    ]
    assert steps == [
        ("split", 1, {"x": "x"}, {"low": "split.low", "high": "split.high"}),
        ("subtract", 1, {"a": "split.high", "b": "split.low"}, {"y": "subtract.y"}),
        ("double", 1, {"x": "subtract.y"}, {"y": "far"}),
        ("double", 1, {"x": "y"}, {"y": "double.y"}),
        ("subtract", 1, {"a": "double.y", "b": "x"}, {"y": "near"}),
    ]
    assert [member.model for member in pinned_members(parts)] == ["split", "subtract", "double"]
    checked = spread.check(models)
    assert (checked.compiles_to, checked.why) == ("ensemble", "")
    tensors = {record.name: (record.data_type, record.dims) for record in (*checked.inputs, *checked.outputs)}
    assert tensors == dict.fromkeys(("x", "y", "far", "near"), ("TYPE_FP32", (-1, 4)))


def test_a_loop_of_a_fixed_number_is_unrolled_with_names_of_their_own(models: qv.ModelRepository) -> None:
    @qv.pipeline(output_names=["y"])
    def thrice(x: Any, *, double: Any) -> Any:
        for _ in range(3):
            x = double(x)
        return {"y": x}

    found = traced(models, thrice)
    made = [next(iter(step.outputs.values())).name for step in found.steps]
    assert made == ["double.y", "2.double.y", "y"]


def test_calls_that_are_started_are_steps(models: qv.ModelRepository) -> None:
    @qv.pipeline(output_names=["y", "z"])
    def both(x: Any, *, double: Any, split: Any) -> Any:
        first, second = double.start(x), split.start(x=x)
        return first.result(), double.start(second.result().low).result()

    found = traced(models, both)
    assert [step.member.model for step in found.steps] == ["double", "split", "double"]
    y, z = both.bind(models)(np.array([[-1, 0, 1, 2]], np.float32))
    assert (y.tolist(), z.tolist()) == ([[-2, 0, 2, 4]], [[-2, 0, 0, 0]])
    with pytest.raises(InvalidInputError, match="member double takes x, and was given 'k'"):
        traced(models, written(lambda m, x: m["double"].start(k=x).result(), output_names=["z"]))


def test_an_answer_that_only_some_of_is_used(models: qv.ModelRepository) -> None:
    found = traced(models, written(lambda m, x: m["double"](m["split"](x).high), output_names=["z"]))
    (step, _) = ensemble_parts(found, "private").ensemble_scheduling.step
    assert dict(step.output_map) == {"high": "split.high"}


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda m, x: m["double"](x) + 1, "uses add of y of double"),
        (lambda m, x: m["double"](2 * x), "uses rmul of input x"),
        (lambda m, x: m["double"](np.add(x, x)), "uses the values of input x"),
        (lambda m, x: m["double"](np.asarray(x)), "uses the values of input x"),
        (lambda m, x: m["double"](x[:1]), "uses an element of input x"),
        (lambda m, x: m["double"](x) if x.sum() else x, "uses .sum of input x"),
        (lambda m, x: m["double"](x) if x else x, "uses the truth of input x"),
        (lambda m, x: m["double"](x) if len(x) > 1 else None, "uses the length of input x"),
        (lambda m, x: [m["double"](row) for row in x], "uses the elements of input x"),
        (lambda m, x: m["double"](x) if x == 1 else None, "uses eq of input x"),
        (lambda m, x: m["subtract"](m["double"](x), np.ones(4)), "gives subtract (subtract/1) a value of its own as b"),
        (lambda m, x: x, "returns input x as it came"),
        (lambda m, x: {"z": m["double"](x), "k": np.ones(1)}, "returns a value of its own as k"),
        (lambda m, x: {"z": (y := m["double"](x)), "k": y}, "twice, as z and as k"),
        (lambda m, x: {"x": m["double"](x), "k": m["triple"](x)}, "gives its output x the name of an input"),
        (lambda m, x: m["double"](bytes(x)), "fails without values (TypeError"),
    ],
)
def test_what_needs_values_is_python(models: qv.ModelRepository, call: Calls, why: str) -> None:
    names = None if "as k" in why or "its output" in why else ["z"]
    found = traced(models, written(call, output_names=names))
    assert isinstance(found, str)
    assert why.replace("subtract (subtract/1)", "subtract/1") in found
    with pytest.raises(InvalidInputError, match=r"cannot be an ensemble, .* leave compile_to out"):
        traced(models, written(call, output_names=names, compile_to="ensemble"))


def test_python_can_be_insisted_on(models: qv.ModelRepository) -> None:
    found = traced(models, written(lambda m, x: m["double"](x), output_names=["z"], compile_to="python"))
    assert found == "is to be Python (compile_to)"


F32, NARROW = {"x": ("FP32", (None, 4))}, {"x": ("FP32", (3, 4))}


@pytest.mark.parametrize(
    ("call", "inputs", "told"),
    [
        (
            lambda m, x: m["whole"](m["double"](x)),
            None,
            r"y of double/1 is TYPE_FP32, and goes into k of whole/1, which takes TYPE_INT64: convert it",
        ),
        (
            lambda m, x: m["wide"](m["double"](x)),
            None,
            r"y of double/1 is \[-1, 4\], and goes into x of wide/1, which takes \[-1, 8\]: they differ in "
            r"dimension 1, 4 and 8: change it in the function, or export a model that takes it so",
        ),
        (lambda m, x: m["double"](x), {"x": ("FP32", (None, 2, 2))}, r"is \[-1, 2, 2\], and goes into .*: reshape it"),
        (lambda m, x: m["double"](x), {"x": ("FP32", (None, None))}, "declared as any size in dimension 1.*declare 4"),
        (lambda m, x: m["double"](x), {"x": ("INT64", (None, 4))}, "x is TYPE_INT64, and goes into x of double/1"),
        (lambda m, x: (m["double"](x), m["triple"](x))[0], F32, "calls triple/1 and nothing uses its answer"),
        (lambda m, x: m["double"](x, x), F32, "member double takes x, and was given 2 tensors"),
        (lambda m, x: m["subtract"](x), F32, "member subtract takes a, b, and was not given b"),
        (lambda m, x: m["split"](x), F32, "the function returned 2 tensors; the outputs are z"),
        (lambda m, x: {"q": m["double"](x)}, F32, "the function returned q; the outputs are z"),
    ],
)  # fmt: skip
def test_what_is_wrong_however_it_is_run(models: qv.ModelRepository, call: Calls, inputs: Any, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        traced(models, written(call, inputs, output_names=["z"]))


def test_a_size_that_a_model_further_on_binds(tmp_path: Path) -> None:
    """``double`` takes any number of rows, and what takes its answer takes four."""
    repo = fill(qv.ModelRepository(tmp_path / "repo"), "double")
    repo.add("fixed").export_version(scaled(1.0, batch=4))

    @qv.pipeline(inputs={"x": ("FP32", (None, 4))}, output_names=["z"])
    def bound(x: Any, *, double: Any, fixed: Any) -> Any:
        return fixed(double(x))

    with pytest.raises(InvalidInputError, match=r"input x is declared as any size in dimension 0.*takes 4 .*declare 4"):
        bound.check(repo)
    four = qv.Pipeline(bound.function, inputs={"x": ("FP32", (4, 4))}, output_names=["z"])
    assert four.check(repo).inputs[0].dims == (4, 4)
    assert qv.Pipeline(bound.function, output_names=["z"]).check(repo).inputs[0].dims == (4, 4)


def test_rows_of_two_inputs_that_cannot_be_the_same(models: qv.ModelRepository) -> None:
    @qv.pipeline(inputs={"x": ("FP32", (2, 4)), "y": ("FP32", (3, 4))}, output_names=["z"])
    def apart(x: Any, y: Any, *, subtract: Any) -> Any:
        return subtract(x, y)

    told = (
        r"apart: input y is \[3, 4\].*they differ in dimension 0, 3 and 2: declare the input so, change it in the "
        r"function, or export a model that takes it so \(line"
    )
    with pytest.raises(InvalidInputError, match=told):
        traced(models, apart)


def test_outputs_without_names(models: qv.ModelRepository) -> None:
    with pytest.raises(InvalidInputError, match=r'returns 1 tensor without a name: give output_names=\["y", …\]'):
        traced(models, written(lambda m, x: m["double"](x)))
    assert isinstance(traced(models, written(lambda m, x: {"z": m["double"](x)})), Trace)


def test_an_input_that_goes_nowhere(models: qv.ModelRepository) -> None:
    @qv.pipeline(output_names=["z"])
    def one_of_two(x: Any, y: Any, *, double: Any) -> Any:
        _ = y
        return double(x)

    with pytest.raises(InvalidInputError, match="one_of_two gives its input y to no model: take it out"):
        traced(models, one_of_two)


def test_a_function_cannot_catch_that_it_needs_values(models: qv.ModelRepository) -> None:
    def careful(m: Any, x: Any) -> Any:
        try:
            return m["double"](x + 1)
        except Exception:  # noqa: BLE001 - that it is none is the point
            return m["double"](x)

    assert isinstance(traced(models, written(careful, output_names=["z"])), str)
