"""What a benchmark says of a bar that it misses, and how it ends then."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("bars")


def test_a_bar_is_met_up_to_itself(bars: ModuleType) -> None:
    assert bars.at_least("speed", 0.8, 0.8) == bars.at_most("memory", 500, 500, " MB") == []


def test_a_missed_bar_is_named_with_the_figure(bars: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    missed = bars.at_least("speed", 0.79, 0.8) + bars.at_most("memory", 501, 500.0, " MB")
    with pytest.raises(SystemExit) as ended:
        bars.hold(missed)
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "missed: speed: 0.79, and the bar is at least 0.8",
        "missed: memory: 501 MB, and the bar is at most 500 MB",
    ]
    assert printed.out == "", "where the figures are, which a program may read"


def test_where_none_is_missed_it_goes_on(bars: ModuleType) -> None:
    bars.hold([])
