"""That the benchmark of partitions measures what it says, on one small cut."""

from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from gravswell.partitions import partition


@pytest.fixture
def benchmark(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(benchmark, "WIDTHS", (16, 32, 8))
    monkeypatch.setattr(benchmark, "BATCHES", (2,))
    return benchmark


def test_each_way_of_cutting_beside_its_limit(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    whole = benchmark.network((16, 32), 8)
    made = {f"{by}, 2 ranks": partition(whole, 2, by, name=by) for by in ("layer", "row")}
    figures: dict[str, Any] = benchmark.in_process(made, whole.SerializeToString(), 0.01, 1)
    for one in made.values():
        one.close()
    [figure] = figures.values()
    assert figure["limit"] == {"layer, 2 ranks": 1.0, "row, 2 ranks": 0.5}
    assert all(0 < figure["side_by_side"][name] <= figure["one_after_the_other"][name] for name in made)
    shared = {"weights_mib": 1, **{way: {"mib": 1, "ms_at_1": 1, "ms_at_2": 1} for way in ("apart", "shared")}}
    Console(width=200).print(benchmark.tables({"in_process": figures, "shared_weights": shared}))
    assert "x (0.5)" in capsys.readouterr().out
