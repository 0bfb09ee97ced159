"""What is measured next and what is chosen: tables, on recorded and on made-up servers."""

import math
from collections.abc import Callable

import pytest

from gravswell.tuning.report import Measurement, ModelFigures
from gravswell.tuning.search import choose, leader, next_point
from gravswell.tuning.space import Point, Setting, Space

LIMIT = 0.02
FULL = Space(instances=(1, 2, 4), delays=((None, 0, 1000),), rows=(1, 8, 32), concurrency=(1, 2, 4, 8, 16, 32, 64))
TWO = Space(instances=(1, 2, 4), delays=((None,), (None,)), rows=(1,), concurrency=(1, 2, 4, 8, 16))
"""``fast`` and ``slow``."""


def _m(
    rows_per_second: float,
    latency_ms: float,
    *,
    instances: int = 1,
    queue_delay_us: int | None = None,
    rows: int = 8,
    concurrency: int = 4,
) -> Measurement:
    return Measurement(
        rows=rows,
        concurrency=concurrency,
        requests=1,
        rows_per_second=rows_per_second,
        latency_ms=latency_ms,
        models=[ModelFigures(model="m", instances=instances, queue_delay_us=queue_delay_us, busy=0.5)],
    )


def _server(at: Point) -> Measurement:
    """Two cores: a second instance helps, a third takes turns; batching saves most of what a request costs."""
    ((instances, delay),) = at.settings
    cost = 0.4 + 0.01 * at.rows if delay is None else 0.05 + 0.01 * at.rows  # ms of one core
    rate = min(at.concurrency / (cost + (delay or 0) / 1e3), min(instances, 2) / cost)  # requests in a ms
    return _m(
        rate * at.rows * 1e3,
        at.concurrency / rate,
        instances=instances,
        queue_delay_us=delay,
        rows=at.rows,
        concurrency=at.concurrency,
    )


def _pair(
    rows_per_second: float,
    counts: tuple[int, int],
    busy: tuple[float, float],
    *,
    latency_ms: float = 5,
    clients: int = 8,
) -> Measurement:
    """``fast`` and ``slow``, as they are named."""
    models = [
        ModelFigures(model=name, instances=count, queue_delay_us=None, busy=share)
        for name, count, share in zip(("fast", "slow"), counts, busy, strict=True)
    ]
    return Measurement(
        rows=1, concurrency=clients, requests=1, rows_per_second=rows_per_second, latency_ms=latency_ms, models=models
    )


def _chain(at: Point) -> Measurement:
    """One after the other, each on processors of its own: 0.2 ms in ``fast``, 1.5 ms in ``slow``."""
    fast, slow = (setting.instances for setting in at.settings)
    rate = min(at.concurrency / 1.7, fast / 0.2, slow / 1.5)  # requests in a ms
    busy = (rate * 0.2 / fast, rate * 1.5 / slow)
    return _pair(rate * 1e3, (fast, slow), busy, latency_ms=at.concurrency / rate, clients=at.concurrency)


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
    assert found.models[0].instances == best.models[0].instances == 2


@pytest.mark.parametrize("budget", [1, 2, 5, 12, 1000])
def test_no_budget_is_exceeded_and_a_search_ends(budget: int) -> None:
    measured = _search(_server, FULL, budget)
    assert 0 < len(measured) <= budget


def test_a_small_space_is_measured_whole_but_for_the_hopeless() -> None:
    small = Space((1, 2), ((None,),), (8,), (1, 64))
    measured = _search(_server, small, 40)
    assert {m.point for m in measured} == set(small.points())


def test_more_clients_than_too_many_are_not_tried() -> None:
    """As recorded: 8 clients took 25 ms of the 20, so 16 need not be asked."""
    space = Space((1,), ((None,),), (8,), (1, 8, 16))
    measured = [_m(100, 2, concurrency=1), _m(150, 25, concurrency=8)]
    assert next_point(space, measured, limit=LIMIT, budget=40) is None


def test_settings_come_together_because_each_is_a_load() -> None:
    settings = [point.settings for point in FULL.coarse(20)]
    assert len(set(settings)) == sum(a != b for a, b in zip(settings, [None, *settings], strict=False))


def test_a_failed_point_is_no_end() -> None:
    def fails(at: Point) -> Measurement:
        made = _server(at)
        return made.model_copy(update={"failure": "no memory"}) if at.settings[0].instances == 4 else made

    found = choose(_search(fails, FULL, 60), LIMIT)
    assert found is not None
    assert found.models[0].instances == 2


def test_nothing_works_ends_too() -> None:
    measured = _search(lambda at: _server(at).model_copy(update={"failure": "no"}), FULL, 40)
    assert choose(measured, LIMIT) is None
    assert leader(measured, LIMIT) is None


def test_nothing_within_the_limit_leads_to_the_least_latency() -> None:
    def slow(at: Point) -> Measurement:
        return _server(at).model_copy(update={"latency_ms": 100 * math.sqrt(at.concurrency)})

    measured = _search(slow, FULL, 40)
    assert choose(measured, LIMIT) is None
    nearest = leader(measured, LIMIT)
    assert nearest is not None
    assert nearest.concurrency == 1


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


def test_the_whole_is_relieved_where_it_limits_and_nowhere_else() -> None:
    """Unequal counts, though the first grid sets both alike."""
    measured = _search(_chain, TWO, 40)
    found = choose(measured, LIMIT)
    assert found is not None
    assert [model.instances for model in found.models] == [1, 4]
    assert found.limiting == "slow"
    assert len(measured) < len(TWO) == 45


@pytest.mark.parametrize("budget", [1, 2, 5, 12, 1000])
def test_a_search_of_a_whole_ends_within_its_budget(budget: int) -> None:
    assert 0 < len(_search(_chain, TWO, budget)) <= budget


TRIED = [_pair(95, (n, n), (0, 0), clients=c) for n in (1, 2, 4) for c in (1, 2, 4, 8, 16) if (n, c) != (2, 8)]
"""The grid of equal counts but for one point of it."""


@pytest.mark.parametrize(
    ("busy", "following"),
    [
        pytest.param((0.1, 0.98), [(2, 4), (1, 2), (2, 1), (4, 2)], id="the second limits"),
        pytest.param((0.98, 0.1), [(4, 2), (2, 1), (1, 2), (2, 4)], id="the first limits"),
        pytest.param((0.9, 0.95), [(2, 4), (4, 2), (2, 1), (1, 2)], id="both limit: the grid had both at 4"),
    ],
)
def test_the_next_step_is_relief_for_what_limits(busy: tuple[float, float], following: list[tuple[int, int]]) -> None:
    """As recorded with 8 clients: 2 and 2 are the best so far."""
    measured, steps = [*TRIED, _pair(100, (2, 2), busy)], list[tuple[int, int]]()
    while (point := next_point(TWO, measured, limit=LIMIT, budget=40)) is not None and len(steps) < len(following):
        first, second = point.settings
        steps.append((first.instances, second.instances))
        assert point.concurrency == 8
        measured.append(_pair(90, steps[-1], busy))
    assert steps == following


def test_two_that_limit_are_relieved_together() -> None:
    point = Point((Setting(1, None), Setting(1, None)), rows=1, concurrency=16)
    found = [[setting.instances for setting in p.settings] for p in TWO.neighbours(point, [0.9, 0.95])]
    assert found[1:] == [[1, 2], [2, 1], [2, 2]]


def test_the_choice_of_a_recorded_ensemble() -> None:
    """Two members on two cores, the second asleep for 20 ms a request, as ``tune`` measured them at 8 clients."""
    recorded = [
        _pair(49, (1, 1), (0.02, 0.99), latency_ms=165),
        _pair(97, (2, 2), (0.02, 0.98), latency_ms=84),
        _pair(98, (1, 2), (0.04, 0.98), latency_ms=83),
        _pair(191, (4, 4), (0.02, 0.97), latency_ms=44),
        _pair(192, (2, 4), (0.03, 0.97), latency_ms=43),
        _pair(189, (1, 4), (0.06, 0.97), latency_ms=44),
    ]
    assert choose(recorded, 0.2) == recorded[5]
    assert choose(recorded, 0.02) is None
    assert recorded[5].limiting == "slow"
