"""That the benchmark of fusions measures what it says, with two small models."""

import io
from pathlib import Path
from types import ModuleType

from rich.console import Console


def test_the_number_of_models(benchmark: ModuleType, tmp_path: Path) -> None:
    [row] = benchmark.scaling(tmp_path, [2], 2, 1)
    assert row["models"] == 2
    assert row["fileBytes"] > 2 * 64 * 256 * 4, "the weights of both"
    assert min(row[key] for key in ("loadSeconds", "oneIdMicroseconds", "mixedMicroseconds")) > 0


def test_what_is_compared_is_held_to_the_bar(benchmark: ModuleType) -> None:
    rows = {
        name: {"single": 10.0, "one id": 10 * ratio, "mixed": 30.0, "more": 12.3, "ratio": ratio, "mixedRatio": 3.0}
        for name, ratio in (("served", benchmark.BAR), ("in process", benchmark.BAR + 0.01), (benchmark.NOT_HELD, 3.0))
    }
    assert set(rows) - {"served", "in process"} == {"MLP 64-256-1, in process"}, "of the tiny network, and no other"
    bar = benchmark.judged(rows)
    assert bar["met"] == {"served": True, "in process": False}
    assert benchmark.missed({"bar": bar}) == ["in process, one id / single: 2.01, and the bar is at most 2"]
    console = Console(file=io.StringIO(), width=200)
    console.print(benchmark.table({"beside": rows, "bar": bar, "scaling": []}))
    lines = {line.split()[0]: line for line in console.file.getvalue().splitlines() if line.strip()}  # type: ignore[attr-defined]
    assert (" met " in lines["served"], " missed " in lines["in"], " not held " in lines["MLP"]) == (True,) * 3, lines
    assert " 12.3 " in lines["MLP"], "what it costs all the same"


def test_the_rows_of_a_call_are_of_one_model_or_of_several(benchmark: ModuleType) -> None:
    assert benchmark.ids(3, mixed=False).tolist() == [3] * 8
    assert benchmark.ids(3, mixed=True).tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
