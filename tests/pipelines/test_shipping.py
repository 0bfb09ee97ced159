"""A function as source: what it needs goes along, and what cannot is named."""

import collections
import datetime
import enum
import functools
import linecache
import math
import operator as op
import os.path
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import special

from gravswell import quiver as qv
from gravswell.errors import InvalidInputError
from gravswell.pipelines.shipping import Shipment, modules, ship

WEIGHTS = np.array([1.5, 2.5], np.float32)
TABLE = {"a": [1, (2.0, None)], "b": {3: b"x"}, "c": frozenset({"q"}), "d": math.inf}
SCALE = np.float32(1.5)
KIND = np.dtype("int16")
PATTERN = re.compile(r"\d+")
OPENED = sys.stdin
COUNTER = 0


class Point(NamedTuple):
    x: float
    y: float = 2.0


@dataclass
class Box:
    """Uses another function of the module in a method, and a constant as a default."""

    width: float = 3.0

    def area(self) -> float:
        return self.width * scaled_by(self.width)

    @staticmethod
    def unit() -> "Box":
        return Box(1.0)


class Box2(Box):
    @property
    def double(self) -> float:
        return 2 * self.area()


def scaled_by(x: Any) -> Any:
    return x * SCALE


@functools.lru_cache(maxsize=8)
def power(n: int) -> int:
    """Recursive, and cached."""
    return 1 if n == 0 else 2 * power(n - 1)


def even(n: int) -> bool:
    return n == 0 or odd(n - 1)


def odd(n: int) -> bool:
    return n != 0 and even(n - 1)


def shipped(function: Any) -> tuple[Any, Shipment]:
    """What the source of a function defines under its name, elsewhere."""
    made = ship(function, "arrays")
    names: dict[str, Any] = {"__file__": __file__, "__name__": "shipped"}
    for name, array in made.arrays.items():
        (_folder() / "arrays").mkdir(exist_ok=True)
        np.save(_folder() / "arrays" / name, array)
    names["__file__"] = str(_folder() / "source.py")
    sys.modules["shipped"] = type(sys)("shipped")
    exec(compile(made.source, "shipped", "exec"), names)
    return names[function.__name__], made


@functools.cache
def _held() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="gravswell-shipped-")  # until this process ends


def _folder() -> Path:
    return Path(_held().name)


def everything(x: Any) -> Any:
    """Imports of each form, constants, functions that call each other, classes."""
    from textwrap import dedent  # noqa: PLC0415

    total = np.sum(x) + op.add(1, 2) + special.expit(0.0) + len(PATTERN.findall(dedent("  12 34")))
    total += TABLE["a"][1][0] + WEIGHTS.sum() + power(5) + Box2().double + Point(1.0).y + Box.unit().area()
    counts = collections.Counter(os.path.normpath("a/../b"))
    return total + counts["b"] + even(4) + np.asarray([1], KIND)[0] + datetime.timedelta(hours=1).seconds


def test_all_that_a_function_needs() -> None:
    function, made = shipped(everything)
    x = np.ones(3)
    assert function(x) == everything(x)
    assert set(made.arrays) == {"WEIGHTS"}
    assert [requirement.partition("==")[0] for requirement in made.requirements] == ["scipy"]
    assert "assert_array_equal" not in made.source
    assert not made.modules


def test_a_closure_and_a_name_that_was_changed() -> None:
    offset, other = np.arange(2), scaled_by

    def inner(x: Any) -> Any:
        return x + offset

    def outer(x: Any) -> Any:
        return other(inner(x))

    function, made = shipped(outer)
    assert_array_equal(function(np.ones(2)), outer(np.ones(2)))
    assert set(made.arrays) == {"offset"}


def test_annotations_stay_behind() -> None:
    def annotated(x: qv.ModelRepository) -> "OPENED":  # type: ignore[valid-type]  # never evaluated
        y: sys.stdin = x  # type: ignore[valid-type]
        return y

    function, made = shipped(annotated)
    assert (function(3), made.imports) == (3, set())


def test_decorators_of_the_pipeline_stay_behind_and_those_of_others_go_along() -> None:
    @qv.pipeline(
        output_names=["y"],
    )
    def decorated(x: Any, *, model: Any) -> Any:
        return model(x) + power(3)  # a comment

    function, made = shipped(decorated.function)
    assert function(1, model=lambda x: x) == 9
    assert "qv" not in made.source
    assert "# a comment" in made.source
    assert "@functools.lru_cache(maxsize=8)" in made.source


def clipped(most: float) -> Any:
    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def clip(*args: Any, **named: Any) -> Any:
            return np.minimum(function(*args, **named), most)

        return clip

    return decorate


def above(pipeline: Any) -> Any:
    return pipeline


@above
@qv.pipeline(
    output_names=["y"],
)
@clipped(5.0)
def between(x: Any, *, model: Any) -> Any:
    return model(x)


@clipped(6.0)
def wholly(x: Any, *, model: Any) -> Any:
    return model(x)


def test_decorators_below_the_pipelines_go_along() -> None:
    for made, most in ((between, 5), (qv.Pipeline(wholly, output_names=["y"]), 6)):
        function, packed = shipped(made.function)
        assert function(np.arange(10), model=lambda x: x).max() == most
        assert "pipeline" not in packed.source.partition("from __future__")[2]


def test_texts_of_several_lines_stay_as_they_are() -> None:
    def prompted(x: Any) -> Any:
        """Told."""
        return f"""one
            {x}
    two
"""

    # fmt: off
    def plain(x: Any) -> Any:
        return (x +
    1)
      # a comment
    # fmt: on

    for function in (prompted, plain):
        assert shipped(function)[0](3) == function(3)


def counting(x: Any) -> Any:
    global COUNTER  # noqa: PLW0603
    COUNTER += 1
    return x


def reading(x: Any) -> Any:
    return x + OPENED.fileno()


def by_lambda(x: Any) -> Any:
    return SHORT(x)


def of_ours(x: Any) -> Any:
    return qv.Platform.ONNX and x


class Colour(enum.StrEnum):
    RED = "red"


def of_a_member(x: Any) -> Any:
    return RED + x


SHORT = lambda x: x  # noqa: E731
RED = Colour.RED
NAMES = np.array(["a", None])


def of_objects(x: Any) -> Any:
    return NAMES[x]


ENDLESS: list[Any] = [1, {}]
ENDLESS[1]["all"] = ENDLESS
DEEP: Any = functools.reduce(lambda inner, _: [inner], range(300), [])


def of_itself(x: Any) -> Any:
    return ENDLESS[x]


def of_depths(x: Any) -> Any:
    return DEEP + x


MASKED = np.ma.masked_array([1, 2], [True, False])


def of_a_mask(x: Any) -> Any:
    return MASKED + x


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (of_a_mask, "of_a_mask uses MASKED, a numpy.ma.*MaskedArray, which cannot be written"),
        (counting, "counting changes 'COUNTER', a variable outside of it"),
        (reading, r"reading uses OPENED, a .*, which cannot be written as source: make it in a function"),
        (by_lambda, "by_lambda uses SHORT, which is a lambda: write it with def"),
        (of_ours, "uses gravswell.quiver, and servers have no gravswell"),
        (of_a_member, "of_a_member uses RED, a .*Colour, which cannot be written"),
        (of_itself, "of_itself uses ENDLESS, a builtins.list that holds itself, .*: make it in a function"),
        (of_depths, "of_depths uses DEEP, a builtins.list that .* is nested too deep"),
        (of_objects, "of_objects uses NAMES, an array of objects"),
    ],
)
def test_what_cannot_go_along(function: Any, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        ship(function, "arrays")


def test_what_is_imported_inside() -> None:
    def late(x: Any) -> Any:
        import yaml  # noqa: PLC0415

        return yaml.safe_load(x)

    def relative(x: Any) -> Any:
        from .words import counted  # noqa: PLC0415

        return counted(x, Path())

    assert [requirement.partition("==")[0] for requirement in ship(late, "arrays").requirements] == ["PyYAML"]
    with pytest.raises(InvalidInputError, match="relative holds a relative import"):
        ship(relative, "arrays")


def test_what_is_imported_inside_and_is_optional() -> None:
    def parsed(x: Any) -> Any:
        try:
            import nothing_of_the_kind as json  # type: ignore[import-not-found]  # noqa: PLC0415
        except ImportError:
            import json  # noqa: PLC0415
        return json.loads(x)

    function, made = shipped(parsed)
    assert function("[1]") == [1]
    assert (made.modules, made.requirements) == ({}, [])


def test_a_package_of_a_namespace_that_several_share() -> None:
    def late(x: Any) -> Any:
        from google.protobuf import text_format  # noqa: PLC0415

        return text_format.Parse(x, None)

    assert len(modules.packages_distributions()["google"]) > 1, "several packages are below google"
    made = ship(late, "arrays")
    assert [requirement.partition("==")[0] for requirement in made.requirements] == ["protobuf"]


def test_what_only_type_checkers_import_is_no_requirement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "typedmodule.py").write_text(
        "import typing\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import onnx\nelse:\n"
        "    import yaml\nif typing.TYPE_CHECKING:\n    import onnx\n\n\ndef f(x):\n    return x\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import typedmodule  # type: ignore[import-not-found]  # noqa: PLC0415

    def uses(x: Any) -> Any:
        return typedmodule.f(x)

    assert [requirement.partition("==")[0] for requirement in ship(uses, "arrays").requirements] == ["PyYAML"]


def test_a_version_as_indexes_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "version", lambda _: "2.6.0+cpu")
    assert modules.requirements_of({"yaml"}) == ["PyYAML==2.6.0"]


def test_an_installed_module_of_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "strayed.py").write_text("")
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(InvalidInputError, match=r"strayed is of no installed package, .*requirements="):
        modules.requirements_of({"strayed"})


def test_packages_of_the_system_and_of_other_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system, target = tmp_path / "python3/dist-packages", tmp_path / "vendored"
    (target / "thing-1.5.dist-info").mkdir(parents=True)
    (target / "thing-1.5.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.5\n")
    (target / "thing-1.5.dist-info/RECORD").write_text("thing.py,,\n")
    (target / "thing.py").write_text("def f(x):\n    return x\n")
    (target / "of_the_user.py").write_text("import thing\n")
    (system / "system_thing").mkdir(parents=True)
    (system / "system_thing/__init__.py").write_text("")
    for folder in (system, target):
        monkeypatch.syspath_prepend(str(folder))
    import of_the_user  # type: ignore[import-not-found]  # noqa: PLC0415

    def uses(x: Any) -> Any:
        return of_the_user.thing.f(x)

    assert modules.kind_of("system_thing") == "installed"
    function, made = shipped(uses)
    assert (function(1), made.requirements, set(made.modules)) == (1, ["thing==1.5"], {"of_the_user.py"})


def test_an_entry_is_a_member(tmp_path: Path) -> None:
    entry = qv.ModelRepository(tmp_path / "repo").add("e")

    def calls(x: Any) -> Any:
        return entry(x)

    with pytest.raises(
        InvalidInputError, match=r"an entry: take it as a keyword-only parameter, def calls\(x, \*, entry\)"
    ):
        ship(calls, "arrays")


def test_two_of_one_name() -> None:
    def first() -> Any:
        limit = 1

        def f(x: Any) -> Any:
            return x + limit

        return f

    limit = 2
    g = first()

    def both(x: Any) -> Any:
        return g(x) + limit

    with pytest.raises(InvalidInputError, match=r"'limit' of their own, .*rename one of them"):
        ship(both, "arrays")


def test_a_definition_with_what_only_the_function_around_it_knows() -> None:
    def decorator(function: Any) -> Any:
        @functools.wraps(function)
        def wrapped(x: Any) -> Any:
            return function(x)

        return wrapped

    limit = 2

    @decorator
    def decorated(x: Any) -> Any:
        return x

    def defaulted(x: Any, most: int = limit) -> Any:
        return x + most

    class Local:
        size = 1
        most = limit + size

    def calls_one(x: Any) -> Any:
        return decorated(x)

    def calls_another(x: Any) -> Any:
        return defaulted(x)

    def makes(x: Any) -> Any:
        return x + Local.most

    for function, told in (
        (calls_one, "decorated is defined with decorator"),
        (calls_another, "defaulted is defined with limit"),
        (makes, "Local is defined with limit"),
    ):
        with pytest.raises(InvalidInputError, match=rf"{told} \(.*: define it at the top of the module"):
            ship(function, "arrays")


def test_source_that_is_nowhere() -> None:
    names: dict[str, Any] = {}
    exec("def typed(x): return x", names)
    with pytest.raises(InvalidInputError, match="the source of typed cannot be found"):
        ship(names["typed"], "arrays")


def test_a_cell_of_a_notebook() -> None:
    text = (
        "import numpy as np\nK = 3\n\ndef helper(x):\n    return np.add(x, K)\n\ndef cell(x):\n    return helper(x)\n"
    )
    name = "<ipython-input-1-of-a-test>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), names)
    function, made = shipped(names["cell"])
    assert function(np.ones(1)).tolist() == [4]
    assert "K = 3" in made.source


def test_modules_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "ownpackage"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("BASE = 1\n")
    (package / "deep/__init__.py").write_text("from .. import BASE\nfrom ..side import add\n")
    (package / "side.py").write_text("import math\nimport yaml\n\ndef add(a, b):\n    return a + b\n")
    (package / "unused.py").write_text("import nothing_of_the_kind\n")
    (tmp_path / "ownmodule.py").write_text(
        "import ownpackage.deep as deep\n\ndef f(x):\n    return deep.add(x, deep.BASE)\n"
    )
    (tmp_path / "model.py").write_text("def f(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import model as clash  # type: ignore[import-not-found]  # noqa: PLC0415
    import ownmodule  # type: ignore[import-not-found]  # noqa: PLC0415

    def uses(x: Any) -> Any:
        return ownmodule.f(x)

    def hides(x: Any) -> Any:
        return clash.f(x)

    function, made = shipped(uses)
    assert function(1) == 2
    wanted = {"ownmodule.py", "ownpackage/__init__.py", "ownpackage/deep/__init__.py", "ownpackage/side.py"}
    assert made.modules.keys() == wanted
    assert [requirement.partition("==")[0] for requirement in made.requirements] == ["PyYAML"]
    with pytest.raises(InvalidInputError, match="your module model would hide one of the server's"):
        ship(hides, "arrays")
