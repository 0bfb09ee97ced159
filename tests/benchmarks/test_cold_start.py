"""That the benchmark of cold starts accounts for what it says, without a node."""

from types import ModuleType

import numpy as np
import onnxruntime
import pytest


def start(benchmark: ModuleType, seconds: float, load: float) -> dict:
    told = [{"name": "Image", "seconds": 1.0}, {"name": "Start", "seconds": 2.5}, {"name": "Load", "seconds": load}]
    stages = benchmark.account({"stages": told}, seconds)
    return {"seconds": seconds, "stages": stages, "pulledMegabytes": 0.0}


def test_a_model_has_the_size_that_is_asked_for_and_answers(benchmark: ModuleType) -> None:
    data = benchmark.perceptron(10).SerializeToString()
    assert 8e6 < len(data) < 10e6
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"x": np.ones((3, benchmark.WIDTH), np.float32)})
    assert answer.shape == (3, benchmark.WIDTH)
    assert np.abs(answer).max() > 0.1, "the layers let nothing through"


def test_every_second_is_of_one_stage_or_around(benchmark: ModuleType) -> None:
    stages = start(benchmark, 9.0, 4.0)["stages"]
    assert list(stages) == ["Provisioning", "Volumes", "Image", "Start", "Download", "Load", "WarmUp", "around"]
    assert {name: stage for name, stage in stages.items() if stage} == {
        "Image": 1.0,
        "Start": 2.5,
        "Load": 4.0,
        "around": 1.5,
    }


def test_a_pod_that_seems_older_than_the_command_leaves_nothing_around(benchmark: ModuleType) -> None:
    assert start(benchmark, 7.0, 4.0)["stages"]["around"] == 0.0


@pytest.mark.parametrize(
    ("image", "slowest", "met"), [("warm", 20.0, True), ("warm", 20.1, False), ("cold", 50.0, None)]
)
def test_the_slowest_start_with_a_warm_image_is_held_to_the_bar(
    benchmark: ModuleType, image: str, slowest: float, met: bool | None
) -> None:
    starts = [start(benchmark, seconds, seconds - 5) for seconds in (slowest, 10.0, 12.0)]
    row = benchmark.summary(image, "bucket", starts)
    assert (row["seconds"], row["slowest"], row["stages"]["Load"]) == (12.0, slowest, 7.0)
    assert row["starts"] == [slowest, 10.0, 12.0]
    assert row.get("met") is met
    told = f"the slowest start with a warm image, its model in a bucket: {slowest:g} s, and the bar is at most 20 s"
    assert benchmark.missed([row]) == ([told] if met is False else [])
    table = benchmark.table([row], 100)
    assert list(table.columns[1].cells)[:2] == ["12.0", f"{slowest:.1f}"]
    caption = table.caption
    assert caption == (None if met is None else f"at most 20 s with a warm image: {'met' if met else 'missed'}")


@pytest.mark.parametrize(
    ("user", "arguments", "words"), [(1000, (), "run this with sudo"), (0, ("--rounds", "0"), "at least one start")]
)
def test_what_cannot_be_measured_is_said_before_anything_is_built(
    benchmark, monkeypatch, capsys, user, arguments, words
):
    monkeypatch.setattr("os.geteuid", lambda: user)
    monkeypatch.setattr("sys.argv", ["cold_start.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
