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
