"""The scripts of ``benchmarks/``, which are no package: who runs one has their folder first on the path."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that the test's file is named for, as a module: in ``test_fusion.py``, ``fusion.py``."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module(request.path.stem.removeprefix("test_"))
