"""That the benchmark of listings counts and compares what it says, with a few entries."""

from pathlib import Path
from types import ModuleType


def test_a_folder(benchmark: ModuleType, tmp_path: Path) -> None:
    row = benchmark.local(tmp_path / "r", 5, 1)
    assert row["entries"] == 5
    told = f"file, times reading the configs: {row['ratioToReading']:g}, and the bar is at most 3"
    assert row["missed"] == ([told] if row["ratioToReading"] > 3 else [])


def test_requests_are_told_apart(benchmark: ModuleType) -> None:
    heads = [
        "GET /storage/v1/b/b/o?prefix=r%2F HTTP/1.1",
        "GET /storage/v1/b/b?projection=noAcl HTTP/1.1",
        "GET /b?list-type=2&prefix=r HTTP/1.1",
        "GET /account/b?restype=container&comp=list&prefix=r%2F HTTP/1.1",
        "GET /b/r/m/config.pbtxt HTTP/1.1",
        "PUT /b/r/m/config.pbtxt HTTP/1.1",
    ]
    assert benchmark.requests(heads) == {"list": 3, "library": 1, "GET": 1, "PUT": 1}
