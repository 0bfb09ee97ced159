"""What a benchmark says of a bar that it misses, and how it ends then."""

from types import ModuleType

import pytest


def test_a_bar_is_met_up_to_itself(benchmark: ModuleType) -> None:
    assert benchmark.at_least("speed", 0.8, 0.8) == benchmark.at_most("memory", 500, 500, " MB") == []


def test_a_missed_bar_is_named_with_the_figure(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    missed = benchmark.at_least("speed", 0.79, 0.8) + benchmark.at_most("memory", 501, 500.0, " MB")
    with pytest.raises(SystemExit) as ended:
        benchmark.hold(missed)
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        "missed: speed: 0.79, and the bar is at least 0.8",
        "missed: memory: 501 MB, and the bar is at most 500 MB",
    ]
    assert printed.out == "", "where the figures are, which a program may read"


def test_where_none_is_missed_it_goes_on(benchmark: ModuleType) -> None:
    benchmark.hold([])
