"""``gravswell tune``: what it prints, keeps and says of what comes next."""

from pathlib import Path

import pytest
from rich.console import Console

from gravswell.cli import tuning
from gravswell.tuning import Measurement, TuneReport
from gravswell.tuning.report import ModelFigures

from ..networks import classifier
from .conftest import Run

QUICKLY = ("--instances", "1", "--concurrency", "1", "--batch-sizes", "8", "--duration", "100ms")


@pytest.fixture
def repo(run: Run, tmp_path: Path) -> str:
    (tmp_path / "classifier.onnx").write_bytes(classifier().SerializeToString())
    assert run("init", "r").code == 0
    assert run("export", "r", "m", "classifier.onnx", "--add", "--max-batch-size", "8").code == 0
    return "r"


def test_a_dry_run_tells_and_keeps_and_changes_nothing(run: Run, repo: str, tmp_path: Path) -> None:
    before = (tmp_path / "r/m/config.pbtxt").read_text()
    result = run("tune", repo, "m", "--latency-limit", "3600s", *QUICKLY, "--dry-run", "--output", "json")
    assert result.code == 0, result.err
    assert result.data["chosen"] in result.data["measurements"]
    assert (result.data["applied"], result.data["complete"]) == (False, True)
    assert (tmp_path / "r/m/config.pbtxt").read_text() == before
    (kept,) = tmp_path.glob("tune-m-*")
    assert result.data["folder"] == kept.name
    assert {path.name for path in kept.iterdir()} == {"table.json", "table.csv", "plot.png"}


def test_what_is_written_is_told_with_the_way_to_production(run: Run, repo: str, tmp_path: Path) -> None:
    result = run("tune", repo, "m", "--latency-limit", "3600s", *QUICKLY, "--dynamic-batching", "on", "--folder", "out")
    assert result.code == 0, result.err
    for words in ("config.pbtxt now has instance_group count: 1", "a count for CPUs", "goes with the next version"):
        assert words in result.out
    assert "dynamic_batching" in (tmp_path / "r/m/config.pbtxt").read_text()
    assert (tmp_path / "out/table.csv").is_file()


def _measured(rows_per_second: float, fast: int, slow: int, *, failure: str | None = None) -> Measurement:
    models = [
        ModelFigures(model="fast", instances=fast, queue_delay_us=500, busy=0.05),
        ModelFigures(model="slow", instances=slow, queue_delay_us=None, busy=0.97),
    ]
    return Measurement(
        rows=4, concurrency=16, rows_per_second=rows_per_second, latency_ms=140, models=models, failure=failure
    )


def test_of_an_ensemble_it_tells_each_member_s_setting_who_limits_and_the_way_to_production() -> None:
    chosen = _measured(508, 1, 4)
    report = TuneReport(
        entry="whole", version=1, repository="r", members={"fast": [2], "slow": [1]}, latency_limit_ms=200,
        percentile=99, cpus=2, seconds_each=3, budget=40, complete=True, applied=True, chosen=chosen, folder="out",
        measurements=[_measured(112, 1, 1), chosen, _measured(0, 4, 4, failure="no memory")],
        changes={"slow": ["instance_group count: 4 (was unset)"]},
    )  # fmt: skip
    console = Console(width=200)
    with console.capture() as capture:
        console.print(tuning._text(report, "r"))
    lines = capture.get().splitlines()
    assert lines[0].split() == ["fast", "slow", "limits", "rows", "clients", "rows/s", "p99", "ms"]
    assert lines[1].split() == [
        "1,",
        "batching",
        "on,",
        "waits",
        "500",
        "µs",
        "4",
        "slow",
        "97%",
        "4",
        "16",
        "508",
        "140",
    ]
    assert "failed" in lines[3]
    assert "slow/config.pbtxt now has instance_group count: 4 (was unset)" in lines
    assert "gravswell republish r slow/1. Where whole pins versions, publish it then too" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("m", "--latency-limit", "20"), 2, "'20' is no time: write 20ms"),
        (("m", "--latency-limit", "0ms"), 2, "is no time"),
        (("m", "--latency-limit", "1s", "--instances", "a"), 2, "--instances 'a': write whole numbers"),
        (("other", "--latency-limit", "1s"), 3, "there is no entry 'other'"),
        (("m/9", "--latency-limit", "1s"), 3, "9"),
    ],
)
def test_errors_are_one_message(run: Run, repo: str, arguments: tuple[str, ...], code: int, words: str) -> None:
    result = run("tune", repo, *arguments)
    assert (result.code, words in result.err) == (code, True), result.err


def test_republish_takes_a_setting_to_the_next_version(run: Run, repo: str, tmp_path: Path) -> None:
    config = tmp_path / "r/m/config.pbtxt"
    config.write_text(config.read_text() + "instance_group { count: 2 kind: KIND_CPU }\n")
    made = run("republish", repo, "m", "--output", "json")
    assert made.code == 0, made.err
    assert (made.data["version"], made.data["parent"]) == (2, 1)
    assert "count: 2" in (tmp_path / "r/m/2/.config.pbtxt").read_text()
    again = run("republish", repo, "m/2")
    assert (again.code, "nothing to publish" in again.err) == (2, True)
