"""What is tried, of what the user gave and the model takes."""

from typing import Any

import pytest

from gravswell.errors import InvalidInputError
from gravswell.tuning.space import Point, Space, space

FULL = Space(instances=(1, 2), delays=(None, 0, 1000), rows=(1, 8, 32), concurrency=(1, 4, 16))


def _space(**given: Any) -> Space:
    return space(**{"latency_limit": 0.02, "max_batch_size": 32, "golden_rows": None, "cpus": 4} | given)


def test_by_default() -> None:
    assert _space() == Space((1, 2, 4), (None, 0, 1000), (1, 8, 32), (1, 2, 4, 8, 16, 32, 64))


@pytest.mark.parametrize(
    ("given", "axis", "values"),
    [
        ({"cpus": 1}, "instances", (1,)),
        ({"cpus": 6}, "instances", (1, 2, 4)),
        ({"instances": [4, 1, 4]}, "instances", (1, 4)),
        ({"max_batch_size": 8}, "rows", (1, 8)),
        ({"max_batch_size": 0}, "rows", (1, 8, 32)),
        ({"max_batch_size": 0}, "delays", (None,)),
        ({"max_batch_size": 1}, "delays", (None,)),
        ({"batching": "off"}, "delays", (None,)),
        ({"batching": "on"}, "delays", (0, 1000)),
        ({"latency_limit": 1.0}, "delays", (None, 0, 50000)),
        ({"latency_limit": 1e-6}, "delays", (None, 0)),
        ({"golden_rows": 5, "max_batch_size": 0}, "rows", (5,)),
        ({"concurrency": (8,)}, "concurrency", (8,)),
    ],
)
def test_an_axis(given: dict[str, Any], axis: str, values: tuple[int | None, ...]) -> None:
    assert getattr(_space(**given), axis) == values


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"batching": "on", "max_batch_size": 0}, "needs a max_batch_size above 1"),
        ({"batch_sizes": [64]}, "leave batch size 64 out"),
        ({"batch_sizes": [2], "golden_rows": 5, "max_batch_size": 0}, "takes batches of 5 only"),
        ({"instances": []}, "whole numbers from 1 on"),
        ({"instances": [0]}, "whole numbers from 1 on"),
        ({"concurrency": [True]}, "whole numbers from 1 on"),
    ],
)
def test_what_contradicts(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        _space(**given)


@pytest.mark.parametrize("most", range(1, 60))
def test_a_coarse_space_is_small_enough_and_part_of_the_whole(most: int) -> None:
    coarse = FULL.coarse(most)
    assert 1 <= len(coarse) <= most
    assert set(coarse.points()) <= set(FULL.points())
    assert coarse.concurrency[-1] == 16  # what a setting can do shows under many clients


def test_a_coarse_space_spans_the_whole_where_it_can() -> None:
    assert FULL.coarse(16) == Space((1, 2), (None, 1000), (1, 32), (1, 16))
    assert FULL.coarse(len(FULL)) == FULL


def test_neighbours_are_one_step_away_and_begin_with_those_of_the_same_setting() -> None:
    found = FULL.neighbours(Point(1, 0, 8, 4))
    assert [(p.instances, p.delay, p.rows, p.concurrency) for p in found] == [
        (1, 0, 8, 16),
        (1, 0, 8, 1),
        (1, 0, 32, 4),
        (1, 0, 1, 4),
        (1, 1000, 8, 4),
        (1, None, 8, 4),
        (2, 0, 8, 4),
    ]
