"""What is measured next and what is chosen: tables, on recorded and on made-up servers."""

import math
from collections.abc import Callable

import pytest

from gravswell.tuning.report import Measurement
from gravswell.tuning.search import choose, leader, next_point
from gravswell.tuning.space import Point, Space

LIMIT = 0.02
FULL = Space(instances=(1, 2, 4), delays=(None, 0, 1000), rows=(1, 8, 32), concurrency=(1, 2, 4, 8, 16, 32, 64))


def _m(rows_per_second: float, latency_ms: float, **where: int | None) -> Measurement:
    at: dict[str, int | None] = {"instances": 1, "queue_delay_us": None, "rows": 8, "concurrency": 4} | where
    return Measurement(**at, requests=1, rows_per_second=rows_per_second, latency_ms=latency_ms)  # type: ignore[arg-type]


def _server(at: Point) -> Measurement:
    """Two cores: a second instance helps, a third takes turns; batching saves most of what a request costs."""
    cost = 0.4 + 0.01 * at.rows if at.delay is None else 0.05 + 0.01 * at.rows  # ms of one core
    rate = min(at.concurrency / (cost + (at.delay or 0) / 1e3), min(at.instances, 2) / cost)  # requests in a ms
    return _m(
        rate * at.rows * 1e3,
        at.concurrency / rate,
        instances=at.instances,
        queue_delay_us=at.delay,
        rows=at.rows,
        concurrency=at.concurrency,
    )


def _search(server: Callable[[Point], Measurement], space: Space, budget: int) -> list[Measurement]:
    measured: list[Measurement] = []
    while (point := next_point(space, measured, limit=LIMIT, budget=budget)) is not None:
        assert point not in {m.point for m in measured}
        measured.append(server(point))
    return measured


def test_the_search_finds_the_best_point_of_a_large_space_within_its_budget() -> None:
    everything = [_server(point) for point in FULL.points()]
    best = choose(everything, LIMIT)
    measured = _search(_server, FULL, 40)
    found = choose(measured, LIMIT)
    assert best is not None
    assert found is not None
    assert len(measured) <= 40 < len(FULL) == 189
    assert found.rows_per_second >= 0.97 * best.rows_per_second
    assert found.instances == best.instances == 2


@pytest.mark.parametrize("budget", [1, 2, 5, 12, 1000])
def test_no_budget_is_exceeded_and_a_search_ends(budget: int) -> None:
    measured = _search(_server, FULL, budget)
    assert 0 < len(measured) <= budget


def test_a_small_space_is_measured_whole_but_for_the_hopeless() -> None:
    small = Space((1, 2), (None,), (8,), (1, 64))
    measured = _search(_server, small, 40)
    assert {m.point for m in measured} == set(small.points())


def test_more_clients_than_too_many_are_not_tried() -> None:
    """As recorded: 8 clients took 25 ms of the 20, so 16 need not be asked."""
    space = Space((1,), (None,), (8,), (1, 8, 16))
    measured = [_m(100, 2, concurrency=1), _m(150, 25, concurrency=8)]
    assert next_point(space, measured, limit=LIMIT, budget=40) is None


def test_settings_come_together_because_each_is_a_load() -> None:
    coarse = FULL.coarse(20).points()
    settings = [point.setting for point in coarse]
    assert len(set(settings)) == sum(a != b for a, b in zip(settings, [None, *settings], strict=False))


def test_a_failed_point_is_no_end() -> None:
    def fails(at: Point) -> Measurement:
        made = _server(at)
        return made.model_copy(update={"failure": "no memory"}) if at.instances == 4 else made

    found = choose(_search(fails, FULL, 60), LIMIT)
    assert found is not None
    assert found.instances == 2


def test_nothing_works_ends_too() -> None:
    measured = _search(lambda at: _server(at).model_copy(update={"failure": "no"}), FULL, 40)
    assert choose(measured, LIMIT) is None
    assert leader(measured, LIMIT) is None


def test_nothing_within_the_limit_leads_to_the_least_latency() -> None:
    measured = _search(lambda at: _m(10, 100 * math.sqrt(at.concurrency), **_where(at)), FULL, 40)
    assert choose(measured, LIMIT) is None
    nearest = leader(measured, LIMIT)
    assert nearest is not None
    assert nearest.concurrency == 1


def _where(at: Point) -> dict[str, int | None]:
    return {
        "instances": at.instances,
        "queue_delay_us": at.delay,
        "rows": at.rows,
        "concurrency": at.concurrency,
    }


@pytest.mark.parametrize(
    ("table", "chosen"),
    [
        pytest.param([_m(100, 5), _m(200, 19), _m(300, 21)], 1, id="the most within the limit"),
        pytest.param([_m(100, 20.0), _m(50, 1)], 0, id="the limit itself is within"),
        pytest.param([_m(100, 5, instances=4), _m(98, 5, instances=1)], 1, id="alike: fewer instances"),
        pytest.param([_m(100, 5, instances=4), _m(96, 5, instances=1)], 0, id="not alike"),
        pytest.param([_m(100, 5, queue_delay_us=0), _m(99, 5)], 1, id="alike: no batching"),
        pytest.param([_m(100, 5, queue_delay_us=900), _m(99, 5, queue_delay_us=0)], 1, id="alike: no wait"),
        pytest.param([_m(100, 9), _m(99, 5)], 1, id="alike: the lower latency"),
        pytest.param([_m(100, 5).model_copy(update={"failure": "no"}), _m(1, 5)], 1, id="not what failed"),
        pytest.param([_m(100, 21)], None, id="nothing within"),
        pytest.param([], None, id="nothing measured"),
    ],
)
def test_the_choice(table: list[Measurement], chosen: int | None) -> None:
    assert choose(table, LIMIT) == (None if chosen is None else table[chosen])


def test_the_choice_of_a_recorded_table() -> None:
    """A dense classifier on two cores, as ``tune`` measured it: batching pays, a second instance does not."""
    recorded = [
        _m(1610, 62.5, rows=1, concurrency=64),
        _m(4702, 30.2, rows=1, concurrency=64, queue_delay_us=1000),
        _m(2617, 71.8, rows=1, concurrency=64, instances=2),
        _m(6665, 8.5, rows=1, concurrency=32, queue_delay_us=1000),
        _m(51680, 4.9, rows=8, concurrency=16, queue_delay_us=1000),
        _m(53920, 29.4, rows=32, concurrency=16, queue_delay_us=1000),
        _m(8940, 36.1, rows=8, concurrency=16, queue_delay_us=0),
        _m(16420, 38.5, rows=8, concurrency=16, queue_delay_us=1000, instances=2),
    ]
    assert choose(recorded, LIMIT) == recorded[4]
    assert choose(recorded, 0.03) == recorded[5]
