"""That the benchmark of the notebook's inference tells its figures before it draws them."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

FIGURES = {"rowsPerSecond": {"naive, in this process": 1.0, "gravswell, 1 x 2": 2.0}}


def test_figures_are_told_where_nothing_can_be_drawn(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(benchmark, "measure", lambda *_: FIGURES)
    monkeypatch.setattr(sys, "argv", ["notebook_inference", "--output", "json", "--plot", str(tmp_path / "plot.png")])
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # as where it is not installed
    with pytest.raises(ImportError, match="matplotlib"):
        benchmark.main()
    assert json.loads(capsys.readouterr().out) == FIGURES
