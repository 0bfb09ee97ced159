"""That the benchmark of the operator says which of its bars are missed, of figures as its measurements have them."""

from types import ModuleType
from typing import Any

import pytest

REST: dict[str, Any] = {"servers": 3000, "ofACore": 0.02, "memoryMiB": 238.0}
RESTART: dict[str, Any] = {"servers": 3000, "seconds": 20.0}
QUIET: dict[str, Any] = {"writes": {}, "writesOfAll": {"PUT leases": 6, "PATCH nodes/status": 16}}
"""What the control plane's own write besides is no matter."""


def test_what_meets_its_bars(benchmark: ModuleType) -> None:
    assert benchmark.missed("ready", {"ofLimit": 0.8}) == []
    assert benchmark.missed("rest", REST | QUIET) == []
    assert benchmark.missed("restart", RESTART | QUIET) == []
    assert benchmark.missed("edit", {"percentile99": 1.0}) == []


@pytest.mark.parametrize(
    ("what", "figures", "line"),
    [
        ("ready", {"ofLimit": 0.79}, "servers that become Ready, of the limit: 0.79, and the bar is at least 0.8"),
        ("rest", REST | {"ofACore": 0.03}, "of a core at rest: 0.03, and the bar is at most 0.02"),
        ("rest", REST | {"memoryMiB": 250.0}, "memory at rest: 262.144 MB, and the bar is at most 250 MB"),
        (
            "restart",
            RESTART | {"seconds": 20.5},
            "until all are looked at after a restart: 20.5 s, and the bar is at most 20 s",
        ),
        (
            "edit",
            {"percentile99": 1.25},
            "edits until their Deployment is changed, 99th percentile: 1.25 s, and the bar is at most 1 s",
        ),
    ],
)
def test_what_misses_one(benchmark: ModuleType, what: str, figures: dict[str, Any], line: str) -> None:
    assert benchmark.missed(what, figures | QUIET) == [line]


def test_what_does_not_grow_in_proportion_misses_the_bar(benchmark: ModuleType) -> None:
    first = {"from": 300, "to": 1000, "milliseconds": 250.0, "operatorCpuMilliseconds": 18.0, "kilobytes": 26.0}
    later = {"from": 1000, "to": 3000, "milliseconds": 263.0, "operatorCpuMilliseconds": 18.7, "kilobytes": 33.0}
    for rows in ([], [first], [first, later]):
        assert benchmark.missed("growth", {"furtherServers": rows}) == []
    square = {**later, "operatorCpuMilliseconds": 54.0}
    assert benchmark.missed("growth", {"furtherServers": [first, later, square]}) == [
        "operatorCpuMilliseconds of a further server, 1000 to 3000: 54, and the bar is at most 27"
    ]


@pytest.mark.parametrize(
    ("what", "figures", "words"),
    [("rest", REST, "writes at rest"), ("restart", RESTART, "writes of a restart")],
)
def test_a_single_write_misses_it(benchmark: ModuleType, what: str, figures: dict[str, Any], words: str) -> None:
    one = QUIET | {"writes": {"PATCH Model/status": 1}}
    assert benchmark.missed(what, figures | one) == [f"{words}: 1, and the bar is at most 0"]
