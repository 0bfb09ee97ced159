"""``gravswell tune``: what it prints, keeps and says of what comes next."""

from pathlib import Path

import pytest

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
