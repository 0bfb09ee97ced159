"""What cannot be put together is said, and never stretched, converted or left out."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gravswell.errors import InvalidInputError
from gravswell.serving.client.sinks import Ordered, Part, Whole
from gravswell.serving.client.sources import Request
from gravswell.serving.client.wire import Answer


def request(index: int, start: int, stop: int) -> Request:
    return Request(index, start, stop, b"", [])


def ones(*shape: int, dtype: Any = np.float32) -> Answer:
    return Answer({"y": np.ones(shape, dtype)}, "1")


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        (ones(1, 4), ones(1, 4), "output 'y' of model 'm' has shape [1, 4] for 8 rows: its first axis is not the rows"),
        (ones(1, 4), ones(8, 1), "is float32[1] a row for rows 0 to 7 and float32[4] before: they make no one array"),
        (ones(1, 4), ones(8, 4, dtype=np.float64), "is float64[4] a row for rows 0 to 7 and float32[4] before"),
        (ones(1, 4), Answer({}, "2"), "gave outputs  for rows 0 to 7 and y before: name those that you want"),
    ],
)
def test_answers_of_another_kind_than_the_first(first: Answer, then: Answer, told: str) -> None:
    whole = Whole(9, "m")
    whole.put(request(1, 8, 9), first)
    with pytest.raises(InvalidInputError, match=re.escape(told)):
        whole.put(request(0, 0, 8), then)


def test_parts_are_taken_in_order_and_make_room() -> None:
    calls: list[str] = []
    sink = Ordered(lambda: 2, "m", lambda: calls.append("news"), lambda: calls.append("room"))

    def taken() -> Sequence[Part] | None:
        return sink.take()

    sink.put(request(1, 8, 9), ones(1, 4))
    assert (taken(), calls) == ([], [])
    assert sink.room(1, 1 << 10)
    assert not sink.room(2, 1 << 10)
    sink.put(request(0, 0, 8), ones(8, 4))
    assert calls == ["news"]
    parts = taken()
    assert parts is not None
    assert [(part.start, part.stop) for part in parts] == [(0, 8), (8, 9)]
    assert calls == ["news", "room"]
    assert sink.room(3, 1)
    sink.put(request(2, 9, 17), ones(8, 4))
    assert not sink.room(3, 128)
    sink.end(None)
    assert len(taken() or ()) == 1
    assert calls == ["news", "room", "news", "news", "room"]
    assert taken() is None


def test_what_came_is_given_before_what_ended_the_whole() -> None:
    sink = Ordered(lambda: 2, "m", lambda: None, lambda: None)
    sink.put(request(0, 0, 8), ones(8, 4))
    sink.end(OSError("the disk"))
    assert [(part.start, part.stop) for part in sink.take() or ()] == [(0, 8)]
    with pytest.raises(OSError, match="the disk"):
        sink.take()
