"""That the benchmark of RapidOCR's three steps compares what it times, on the real networks."""

from types import ModuleType

import numpy as np
import pytest
from rich.console import Console


def test_the_pictures_are_read_alike_in_the_server_and_here_and_every_way_is_told(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = benchmark.measure(1, 1)
    assert {name: three["lines"] for name, three in figures.items()} == {"page": 5, "text": 2}
    for three in figures.values():
        assert list(three["served"]) == ["gRPC", "REST"]
        assert three["in_process_ms"] == min(three["here_ms"].values())
        for one in three["served"].values():
            # Not that a call takes longer than it does in the server: Triton notes the end after it has answered.
            assert 0 < one["in_graphs_ms"] < one["in_server_ms"]
        assert three["bar"]["held"]
    Console(width=200).print(benchmark.shown(figures))
    told = capsys.readouterr().out
    for way in (benchmark.FUNCTION, benchmark.PACKAGE):
        assert told.count(f"{way}: ") == 2, told


@pytest.mark.parametrize("other", ["box", "text", "score", "line"])
def test_what_reads_otherwise_than_the_package_is_no_comparison(benchmark: ModuleType, other: str) -> None:
    box = [[1.0, 2.0], [3.0, 2.0], [3.0, 4.0], [1.0, 4.0]]
    found = (np.array([box], np.float32), np.array([b"read"], object), np.array([0.9], np.float32))
    benchmark.compared(found, [(box, "read", 0.90001)])
    readings = {
        "box": [([[1.0, 2.5], *box[1:]], "read", 0.9)],
        "text": [(box, "road", 0.9)],
        "score": [(box, "read", 0.8)],
        "line": [(box, "read", 0.9)] * 2,
    }
    with pytest.raises(AssertionError):
        benchmark.compared(found, readings[other])
