"""That what a call of a pipeline takes is counted whole, and what keeps processors awake gives way."""

import os
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest


def test_a_request_that_is_counted_late_is_waited_for(benchmark: ModuleType) -> None:
    told = [(0, 0), (90, 1), (90, 1), (490, 3), (690, 4)]
    counts = iter([{"chain": (ns, n), "member": (ns // 10, n)} for ns, n in told])
    one = benchmark.timed({"served": lambda: None}, 3, 1, lambda _: next(counts))["served"]
    assert (one.server, one.graphs) == (pytest.approx(200e-9), pytest.approx(20e-9))
    assert next(counts, None) is None


def test_a_call_is_medians_of_what_it_took_in_the_server_and_in_the_graphs(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = [0.0], [0]
    spent = {"pipeline": 0, "first": 0, "second": 0}
    slow = 3  # of the rounds, one: a median does not show it

    def call() -> None:
        asked[0] += 1
        times = 9 if asked[0] == slow else 1
        now[0] += 10e-3 * times
        for name, milliseconds in {"pipeline": 8, "first": 1, "second": 4}.items():
            spent[name] += times * milliseconds * 1_000_000

    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: now[0])
    taken = benchmark.timed({"served": call}, 1, 5, lambda _: {name: (ns, asked[0]) for name, ns in spent.items()})
    assert asked[0] == 1 + 5, "once before, so that nothing is measured that is done once"
    one = taken["served"]
    assert (one.whole, one.server, one.graphs) == pytest.approx((10e-3, 8e-3, 5e-3))
    (shown,) = benchmark.beside(9e-3, taken)["served"].values()
    assert (shown["ms"], shown["in_server_ms"], shown["in_graphs_ms"], shown["protocol_ms"]) == (10.0, 8.0, 5.0, 2.0)
    assert (shown["part_of_in_process"], shown["part_in_server"]) == (0.9, 1.125)


def test_what_keeps_processors_awake_gives_way_and_ends(benchmark: ModuleType) -> None:
    before = _children()
    with benchmark.awake():
        loops = _children() - before
        assert len(loops) == len(os.sched_getaffinity(0))
        until = time.monotonic() + 60
        while {os.sched_getscheduler(pid) for pid in loops} != {os.SCHED_IDLE} and time.monotonic() < until:
            time.sleep(0.05)
        assert {os.sched_getscheduler(pid) for pid in loops} == {os.SCHED_IDLE}
    assert not loops & _children()


def _children() -> set[int]:
    """Processes that this one has started."""
    found: set[int] = set()
    for children in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended since
            found.update(map(int, children.read_text().split()))
    return found
