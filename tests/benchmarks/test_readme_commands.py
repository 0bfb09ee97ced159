"""What the benchmark of the README's commands reads in their output, and what it holds them to."""

import io
import os
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from gravswell_operator.demo.objects import Watch, Watched
from gravswell_operator.devcluster.kubectl import Kubectl

SECONDS = {"GPUNodePool": 2.3, "InferenceServer": 8.5, "Model": 12.0, "ModelRepository": 0.4}


def demo(encoding: str, late: str | None = None) -> str:
    """What the demo says around its table and in it, where nobody watches."""
    found = [
        Watched(kind, "digits", kind != late, "Serving", "", None if kind == late else seconds)
        for kind, seconds in SECONDS.items()
    ]
    said = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=said, width=80)
    console.print("GPUNodePool simulated, applied")
    console.print(Watch(Kubectl(Path("kubectl")), found).table())
    console.print("Pod | 2")
    said.seek(0)
    return said.read()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_seconds_to_ready_are_those_of_the_demos_own_table(benchmark: ModuleType, encoding: str) -> None:
    assert benchmark.until_ready(demo(encoding)) == SECONDS


def test_a_demo_that_does_not_show_a_kind_as_ready_has_no_figures(benchmark: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"\['GPUNodePool', 'InferenceServer', 'ModelRepository'\], which should be"):
        benchmark.until_ready(demo("utf-8", late="Model"))


def test_each_pass_is_read_by_itself_and_all_of_them_are_kept(benchmark: ModuleType, tmp_path: Path) -> None:
    passes = [benchmark.timed(f"echo {word}; echo of it >&2", tmp_path, dict(os.environ)) for word in ("cold", "warm")]
    assert [said for _, said in passes] == ["cold\nof it\n", "warm\nof it\n"]
    assert all(seconds > 0 for seconds, _ in passes)
    assert (tmp_path / "run.log").read_text() == "cold\nof it\nwarm\nof it\n"


def test_a_command_that_fails_ends_it_with_what_that_said(benchmark: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"(?s)'echo no room.* failed after .*\nno room\n"):
        benchmark.timed("echo no room; false", tmp_path, dict(os.environ))


def test_the_demo_is_held_to_its_bars_in_the_passes_that_were_run(benchmark: ModuleType) -> None:
    met = {"cold": {"seconds": 600.0}, "warm": {"seconds": 60.0}}
    assert list(benchmark.missed({"demo": met, "tests": {"cold": {"seconds": 3600.0}}})) == []
    assert list(benchmark.missed({"demo": {"cold": {"seconds": 600.1}, "warm": {"seconds": 60.1}}})) == [
        "demo, cold: 600.1 s, and the bar is at most 600 s",
        "demo, warm: 60.1 s, and the bar is at most 60 s",
    ]
    assert list(benchmark.missed({"demo": {"cold": {"seconds": 314.8}}})) == []
