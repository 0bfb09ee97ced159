"""What is tried, of what the user gave and the model takes."""

from typing import Any

import pytest

from gravswell.errors import InvalidInputError
from gravswell.tuning.space import Batcher, Point, Setting, Space, space

FULL = Space(instances=(1, 2), delays=((None, 0, 1000),), rows=(1, 8, 32), concurrency=(1, 4, 16))
TWO = Space(instances=(1, 2, 4), delays=((None, 0, 1000), (None,)), rows=(8,), concurrency=(1, 4, 16))


def _space(*, max_batch_size: int = 32, batching: str = "both", **given: Any) -> Space:
    asked = {"latency_limit": 0.02, "max_batch_size": max_batch_size, "golden_rows": None, "cpus": 4} | given
    return space(**{"models": [Batcher(max_batch_size, batching)]} | asked)  # type: ignore[arg-type]


def test_by_default() -> None:
    assert _space() == Space((1, 2, 4), ((None, 0, 1000),), (1, 8, 32), (1, 2, 4, 8, 16, 32, 64))


def test_of_a_whole_each_member_has_what_it_can() -> None:
    made = _space(models=[Batcher(8), Batcher(0), Batcher(8, "on")], max_batch_size=0)
    assert made.delays == ((None, 0, 1000), (None,), (0, 1000))
    assert len(made) == (3 * 3) * (3 * 1) * (3 * 2) * 3 * 7
    assert _space(models=[Batcher(8, "on"), Batcher(0, "on")], max_batch_size=0).delays == ((0, 1000), (None,))


@pytest.mark.parametrize(
    ("given", "axis", "values"),
    [
        ({"cpus": 1}, "instances", (1,)),
        ({"cpus": 6}, "instances", (1, 2, 4)),
        ({"instances": [4, 1, 4]}, "instances", (1, 4)),
        ({"max_batch_size": 8}, "rows", (1, 8)),
        ({"max_batch_size": 0}, "rows", (1, 8, 32)),
        ({"max_batch_size": 0}, "delays", ((None,),)),
        ({"max_batch_size": 1}, "delays", ((None,),)),
        ({"batching": "off"}, "delays", ((None,),)),
        ({"batching": "on"}, "delays", ((0, 1000),)),
        ({"latency_limit": 1.0}, "delays", ((None, 0, 50000),)),
        ({"latency_limit": 1e-6}, "delays", ((None, 0),)),
        ({"golden_rows": 5, "max_batch_size": 0}, "rows", (5,)),
        ({"concurrency": (8,)}, "concurrency", (8,)),
    ],
)
def test_an_axis(given: dict[str, Any], axis: str, values: tuple[object, ...]) -> None:
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
    for full in (FULL, TWO):
        coarse = full.coarse(most)
        assert 1 <= len(coarse) <= most
        assert len(set(coarse)) == len(coarse)
        assert set(coarse) <= set(full.points())
        assert coarse[-1].concurrency == 16  # what a setting can do shows under many clients


def test_a_coarse_space_spans_the_whole_where_it_can() -> None:
    assert FULL.coarse(16) == Space((1, 2), ((None, 1000),), (1, 32), (1, 16)).points()
    assert FULL.coarse(len(FULL)) == FULL.points()


def test_a_coarse_space_sets_the_members_alike_as_far_as_they_can() -> None:
    settings = {point.settings for point in TWO.coarse(1000)}
    assert settings == {((n, delay), (n, None)) for n in (1, 2, 4) for delay in (None, 0, 1000)}


def test_neighbours_are_one_step_away_and_begin_with_those_of_the_same_setting() -> None:
    found = FULL.neighbours(Point((Setting(1, 0),), 8, 4), [0.3])
    assert [(*p.settings[0], p.rows, p.concurrency) for p in found] == [
        (1, 0, 8, 16),
        (1, 0, 8, 1),
        (1, 0, 32, 4),
        (1, 0, 1, 4),
        (1, 1000, 8, 4),
        (1, None, 8, 4),
        (2, 0, 8, 4),
    ]


def test_of_a_whole_they_relieve_what_limits_before_they_take_from_the_others() -> None:
    """Batching, where it can have it, then instances; then fewer of the others; then what is least likely to help."""

    def steps(*busy: float) -> list[tuple[int, int | None, int, int | None]]:
        found = TWO.neighbours(Point((Setting(2, 0), Setting(2, None)), 8, 16), busy)
        return [(*p.settings[0], *p.settings[1]) for p in found[1:]]  # the first has fewer clients

    assert steps(0.9, 0.2) == [
        (2, 1000, 2, None),
        (2, None, 2, None),
        (4, 0, 2, None),
        (2, 0, 1, None),
        (1, 0, 2, None),
        (2, 0, 4, None),
    ]
    assert steps(0.2, 0.9) == [
        (2, 0, 4, None),
        (1, 0, 2, None),
        (2, 1000, 2, None),
        (2, None, 2, None),
        (2, 0, 1, None),
        (4, 0, 2, None),
    ]
    assert (4, 0, 4, None) in steps(0.9, 0.85)


def test_the_others_are_tried_with_what_their_work_takes() -> None:
    """Fewer by one step after the other, a noisy measurement on the way would end it too soon."""
    wide = Space(instances=(1, 2, 4, 8), delays=((None,),) * 3, rows=(8,), concurrency=(16,))
    point = Point((Setting(8, None),) * 3, 8, 16)
    found = [tuple(setting.instances for setting in p.settings) for p in wide.neighbours(point, [0.05, 0.97, 0.3])]
    assert found == [(1, 8, 4), (4, 8, 8), (8, 8, 4), (8, 4, 8)]
