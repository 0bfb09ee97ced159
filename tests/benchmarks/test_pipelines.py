"""That the benchmark of pipelines measures what it says, on one small network."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

WAYS = ["ensemble, gRPC", "ensemble, REST", "business logic, gRPC", "business logic, REST"]
BAR = "and the bar is at least 0.8"


def test_a_call_is_taken_apart_by_the_servers_own_count(benchmark: ModuleType, tmp_path: Path) -> None:
    three = benchmark.three_steps(tmp_path, 16, 32, 20, 1)
    assert list(three["served"]) == WAYS
    for way, one in three["served"].items():
        # Not that a call takes longer than it does in the server: Triton notes the end after it has answered.
        assert 0 < one["in_graphs_ms"] < one["in_server_ms"], way
        assert one["protocol_ms"] == pytest.approx(one["ms"] - one["in_server_ms"], abs=0.002), way


def test_the_largest_size_is_held_to_the_bars_and_the_others_are_reported(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = {"in_process_ms": 8.0, "served": {way: _served(0.79, 0.8) for way in WAYS}}
    once = {"steps": 2, "milliseconds": {"once": 1.0, "always": 4.9}, "times_faster": 4.9, "limit": 7.0}
    loops = dict.fromkeys(benchmark.LOOPED, once | {"claimed": [5, 6], "met": False})
    figures = {"three_steps": benchmark.held(dict.fromkeys(benchmark.SIZES, slow)), "init_once": loops}
    assert benchmark.missed(figures) == [
        *(f"{way}, three steps of much work, part of the speed in one process: 0.79, {BAR}" for way in WAYS),
        "init once, 2 steps of much work, times faster: 4.9, and the bar is at least 5",
    ]
    Console(width=200).print(benchmark.shown(figures))
    told = capsys.readouterr().out
    assert (told.count("0.79 missed"), told.count("0.80 met")) == (3 * 4, 3 * 4), told
    assert told.count("reported only") == 3, told
    assert (told.count("(bar 5 to 6: missed)"), told.count("(bar 5 to 6: missed; reported only)")) == (1, 1), told
    met = {"in_process_ms": 8.0, "served": {way: _served(0.8, 0.9) for way in WAYS}}
    figures = {"three_steps": benchmark.held({"much work": met, "work": slow}), "init_once": {"work": loops["work"]}}
    assert benchmark.missed(figures) == []


def _served(call: float, server: float) -> dict[str, Any]:
    times = {"ms": 10.0, "in_server_ms": 9.0, "in_graphs_ms": 8.0, "protocol_ms": 1.0}
    return times | {"part_of_in_process": call, "part_in_server": server}
