"""That the benchmark of pipelines measures what it says, on one small network."""

import os
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

WAYS = ["ensemble, gRPC", "ensemble, REST", "business logic, gRPC", "business logic, REST"]


def test_a_call_is_taken_apart_by_the_servers_own_count(benchmark: ModuleType, tmp_path: Path) -> None:
    three = benchmark.three_steps(tmp_path, 16, 32, 20, 5)
    assert list(three["served"]) == WAYS
    for way, one in three["served"].items():
        assert 0 < one["in_graphs_ms"] < one["in_server_ms"] < one["ms"], way
        assert one["protocol_ms"] == pytest.approx(one["ms"] - one["in_server_ms"], abs=0.002), way


def test_a_request_that_is_counted_late_is_waited_for(benchmark: ModuleType) -> None:
    told = [(0, 0), (90, 1), (90, 1), (490, 3), (690, 4)]
    counts = iter([{"chain": (ns, n), "member": (ns // 10, n)} for ns, n in told])
    one = benchmark.timed({"served": lambda: None}, 3, 1, lambda _: next(counts))["served"]
    assert (one.server, one.graphs) == (pytest.approx(200e-9), pytest.approx(20e-9))
    assert next(counts, None) is None


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


def test_what_is_compared_is_held_to_the_bar(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    three = {"in_process_ms": 8.0, "served": {way: _served(benchmark.BAR - 0.01, benchmark.BAR) for way in WAYS}}
    bar = benchmark.judged(three)
    assert bar["met"] == dict.fromkeys(WAYS, False) | {f"{way}, in the server": True for way in WAYS}
    once = {"steps": 2, "milliseconds": {"once": 1.0, "always": 6.0}, "times_faster": 6.0, "limit": 7.0}
    once |= {"claimed": [5, 6], "met": True}
    figures = {"three_steps": {"work": three | {"bar": bar}}, "init_once": {"work": once}}
    Console(width=200).print(benchmark.shown(figures))
    told = capsys.readouterr().out
    below = "three steps of work, part of the speed in one process: 0.79, and the bar is at least 0.8"
    assert benchmark.missed(figures) == [f"{way}, {below}" for way in WAYS]
    slow = figures | {"init_once": {"work": once | {"times_faster": 4.9}}}
    assert benchmark.missed(slow)[4:] == ["init once, 2 steps of work, times faster: 4.9, and the bar is at least 5"]
    assert (told.count("0.79 missed"), told.count("0.80 met")) == (4, 4), told
    assert "(bar 5 to 6: met)" in told


def test_a_size_whose_steps_compute_for_less_than_a_protocol_takes_is_shown_without_a_verdict(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = {"in_process_ms": 0.05, "served": {way: _served(0.04, 0.06) for way in WAYS}}
    sizes = benchmark.held(dict.fromkeys(benchmark.SIZES, slow))
    assert [name for name, three in sizes.items() if "bar" in three] == ["work", "much work"]
    once = {"steps": 2, "milliseconds": {"once": 1.0, "always": 6.0}, "times_faster": 6.0, "limit": 7.0}
    figures = {"three_steps": sizes, "init_once": {"work": once | {"claimed": [5, 6], "met": True}}}
    missed = benchmark.missed(figures)
    assert len(missed) == 2 * 2 * len(WAYS), missed
    assert not [line for line in missed if "little work" in line]
    Console(width=200).print(benchmark.shown(figures))
    little, work = capsys.readouterr().out.split("three steps of ")[1:3]
    assert (little.count("0.04"), little.count("0.06"), little.count("missed"), little.count("bar")) == (4, 4, 0, 0)
    assert (work.count("missed"), work.count("(bar 0.8)")) == (2 * len(WAYS), 2)


def _children() -> set[int]:
    """Processes that this one has started."""
    found: set[int] = set()
    for children in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended since
            found.update(map(int, children.read_text().split()))
    return found


def _served(call: float, server: float) -> dict[str, Any]:
    times = {"ms": 10.0, "in_server_ms": 9.0, "in_graphs_ms": 8.0, "protocol_ms": 1.0}
    return times | {"part_of_in_process": call, "part_in_server": server}
