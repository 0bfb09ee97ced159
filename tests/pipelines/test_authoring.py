"""What a pipeline's author is told before anything is run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gravswell import quiver as qv
from gravswell.errors import InvalidInputError, NotFoundError

from .functions import six


def passed(x: Any, *, double: Any) -> Any:
    return double(x)


def unused(x: Any, y: Any, *, double: Any) -> Any:
    return double(x)


def unused_member(x: Any, *, double: Any, triple: Any) -> Any:
    return double(x)


def any_number(*x: Any) -> Any:
    return x


def defaulted(x: Any = 1, *, double: Any) -> Any:
    return double(x)


def closed(*, double: Any) -> Any:
    return double


async def awaited(x: Any, *, double: Any) -> Any:
    return double(x)


F32 = ("FP32", (None, 4))


@pytest.mark.parametrize(
    ("function", "how", "told"),
    [
        (lambda x: x, {}, "not as a lambda"),
        (print, {}, "is no function"),
        (awaited, {}, "asynchronous"),
        (any_number, {}, r"takes \*x: name each input"),
        (defaulted, {}, "has a default for 'x'"),
        (closed, {}, "has no input"),
        (unused, {"output_names": ["z"]}, "takes y and uses it nowhere"),
        (unused_member, {"output_names": ["z"]}, "takes triple and uses it nowhere"),
        (passed, {"output_names": ["z", "z"]}, "output z of passed is written twice"),
        (passed, {"output_names": ["z", ""]}, "passed returns an output by '': give each output a name"),
        (passed, {"output_names": "z"}, r"must be a sequence of names: \['z'\]"),
        (passed, {"requirements": "scipy==1.0"}, r"must be a sequence of packages: \['scipy==1.0'\]"),
        (passed, {"requirements": ["scipy", "no such thing"]}, r"'no such thing' names no package"),
        (passed, {"requirements": [""]}, r"'' names no package"),
        (passed, {"outputs": {"z": F32}, "output_names": ["z"]}, "names the outputs already"),
        (passed, {"inputs": {"y": F32}}, "inputs declares y, and passed takes x"),
        (passed, {"inputs": {"x": "FP32"}}, "give its type and its shape"),
        (passed, {"inputs": {"x": ("FP7", (4,))}}, "is no type for tensor x"),
        (passed, {"inputs": {"x": ("FP32", (0,))}}, "the shape of 'x' holds 0"),
        (passed, {"members": {"triple": "triple"}}, "members names triple"),
        (passed, {"assets": {"file": __file__}}, "assets names file"),
        (passed, {"members": {"double": "double"}, "assets": {"double": __file__}}, "a member and an asset"),
        (passed, {"members": {"double": 3}}, "member double is 3: give an entry, one of its versions, or a name"),
        (passed, {"inputs": ["x"]}, r"inputs is \['x'\]: give a dict by name, inputs=\{\"x\": \("),
        (passed, {"members": ["double"]}, r"members is \['double'\]: give a dict by name"),
        (passed, {"assets": [__file__]}, r"assets is .*: give a dict by name"),
        (passed, {"compile_to": "onnx"}, "use ensemble or python"),
        (passed, {"access": "open"}, "use private, or public"),
    ],
)
def test_what_is_refused_where_it_is_written(function: Callable[..., Any], how: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        qv.pipeline(**how)(function)


def test_an_asset_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="asset double of passed"):
        qv.pipeline(assets={"double": tmp_path / "none.txt"})(passed)


def test_a_plain_decorator_and_what_it_shows() -> None:
    made = qv.pipeline(passed)
    assert repr(made) == "<pipeline passed(x) of double>"
    assert made.member_names == ["double"]


def test_with_entries_at_hand_it_is_checked_at_once(models: qv.ModelRepository) -> None:
    with pytest.raises(InvalidInputError, match=r"goes into x of double \(wide/1\)|double \(whole/1\)"):
        qv.Pipeline(six.function, output_names=["z"], members={
            "double": models.models["whole"], "triple": models.models["triple"].version(1),
        })  # fmt: skip


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"double": "gone"}, "member double: there is no entry 'gone' in .*; entries: double, split"),
        ({"double": "double/7"}, "double has no version 7"),
        ({"double": "double/best"}, "no version or alias 'best'; its aliases: none"),
    ],
)
def test_members_that_are_not_there(models: qv.ModelRepository, members: dict[str, Any], told: str) -> None:
    with pytest.raises(NotFoundError, match=told):
        qv.Pipeline(six.function, output_names=["z"], members=members).check(models)


def test_members_by_number_by_alias_and_as_they_are(repo: qv.ModelRepository) -> None:
    double = repo.models["double"]
    for _ in range(2):
        double.export_version(_model())
    double.promote(2, "best")
    for given, number in (("double", 3), ("double/latest", 3), ("double/best", 2), ("double/1", 1), (double, 3)):
        made = qv.Pipeline(six.function, output_names=["z"], members={"double": given})
        assert [member.version for member in made.check(repo).members] == [number, 1]
    made = qv.Pipeline(six.function, output_names=["z"], members={"double": double.version(2)})
    assert made.check(repo).members[0].version == 2


def _model() -> Any:
    from .conftest import MODELS  # noqa: PLC0415

    return MODELS["double"]()


def test_it_runs_here(models: qv.ModelRepository) -> None:
    x = np.ones((2, 4), np.float32)
    unbound = qv.Pipeline(six.function, output_names=["z"])
    with pytest.raises(InvalidInputError, match=r"call bind\(repository\) first"):
        unbound(x)
    assert (unbound.bind(models)(x) == 6).all()
    assert (unbound(x=x) == 6).all()
    with pytest.raises(TypeError, match="six takes x, each once"):
        unbound(x, y=x)
    entries = {"double": models.models["double"], "triple": models.models["triple"]}
    assert (qv.Pipeline(six.function, output_names=["z"], members=entries)(x) == 6).all()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda m, x: m["double"](x, x), "member double takes x, and was given 2 tensors"),
        (lambda m, x: m["double"](z=x), "was given 'z'"),
        (lambda m, x: m["double"](x, x=x), "twice"),
        (lambda m, x: m["subtract"](x), "was not given b"),
        (lambda m, x: m["double"](x.astype(float)), "input x of member double is to be float32, and is float64"),
        (lambda m, x: m["double"](x[0]), r"is to have shape \[-1, 4\] .* and has \[4\]"),
        (lambda m, x: m["split"](x)["middle"], "there is no output 'middle'"),
    ],
)
def test_a_call_that_is_wrong(models: qv.ModelRepository, call: Callable[..., Any], told: str) -> None:
    def wrong(x: Any, **members: Any) -> Any:
        return call(members, x)

    made = qv.Pipeline(wrong, members={name: name for name in ("double", "split", "subtract")}).bind(models)
    with pytest.raises((TypeError, ValueError, KeyError), match=told):
        made(np.ones((2, 4), np.float32))


def test_several_outputs_by_place_by_name_and_as_attributes(models: qv.ModelRepository) -> None:
    def several(x: Any, *, split: Any, subtract: Any) -> Any:
        low, high = split(x)
        both = split(x)
        assert both.names == ("low", "high")
        assert both[0] is both["low"]
        assert dict(both)["high"] is both.high
        with pytest.raises(AttributeError):
            _ = both.middle
        return subtract(low, b=high), subtract(b=both.low, a=both[1])

    a, b = qv.Pipeline(several, members={}).bind(models)(np.array([[-2, 1, 0, 3]], np.float32))
    assert a.tolist() == [[-2, -1, 0, -3]]
    assert b.tolist() == [[2, 1, 0, 3]]
