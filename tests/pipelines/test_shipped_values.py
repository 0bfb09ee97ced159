"""Values that a shipped function uses, as source that makes them again."""

import collections
import enum
import math
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

from gravswell.pipelines.shipping.values import as_source


class Point(NamedTuple):
    x: float
    y: float = 2.0


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    "value",
    [None, True, -3, 1.5, math.inf, "ü\n", b"\0", 2j, (), (1,), [], [1, [2]], {}, {"a": {1: ()}}, set(), {1, 2},
     frozenset(), np.float32(1.5), np.int64(4), np.bool_(True), np.dtype("int16"), float("-inf"), {"k": math.inf},
     np.float32(-np.inf),
     np.float16(np.inf), complex(math.inf, -0.0), np.complex64(complex(1, -math.inf)), np.str_("a"), np.bytes_(b"\0a"),
     np.datetime64("2026-11-22"), np.datetime64(1, "ns"), np.timedelta64(3, "s"), np.longdouble("1e-4000"),
     np.dtype([("x", "<f4"), ("y", "<i8", (2,))]), np.dtype(">f8"), {np.float32(-np.inf): [np.dtype("U3")]}],
)  # fmt: skip
def test_values_come_back(value: Any) -> None:
    source = as_source(value)
    assert source is not None
    again = eval(source)
    assert (again, type(again)) == (value, type(value))


def test_values_that_do_not() -> None:
    assert as_source([object()]) is None
    assert as_source(Colour.RED) is None
    assert as_source(collections.OrderedDict()) is None
    assert as_source(Point(1.0)) is None
    assert as_source(np.zeros(1, "i4,f4")[0]) is None
    assert as_source(np.dtype(ml_dtypes.bfloat16)) is None
    assert as_source(ml_dtypes.bfloat16(1)) is None
    assert as_source(np.dtype({"names": ["x"], "formats": ["i1"], "offsets": [3]})) is None


@pytest.mark.parametrize("value", [math.nan, np.float32(np.nan), np.complex64(np.nan), np.datetime64("NaT", "D")])
def test_no_number_comes_back_as_such(value: Any) -> None:
    again = eval(as_source(value) or "")
    assert type(again) is type(value)
    assert np.asarray(again).dtype == np.asarray(value).dtype
    assert again != again
