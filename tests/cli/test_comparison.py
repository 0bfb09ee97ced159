"""``gravswell diff``, as a user runs it."""

from pathlib import Path

import onnx
from onnx import numpy_helper

from .conftest import Run


def _other(model: Path, *, renamed: bool = False) -> Path:
    made = onnx.load(str(model))
    made.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(made.graph.initializer[0]) + 1, "two")
    )
    if renamed:
        made.graph.output[0].name = made.graph.node[0].output[0] = "z"
    path = model.with_name("other.onnx")
    onnx.save(made, str(path))
    return path


def test_new_weights_break_nobody(run: Run, repo: str, model: Path) -> None:
    assert "one version, byte for byte" in run("diff", repo, "m", 1, "latest").out
    assert run("export", repo, "m", _other(model)).code == 0
    told = run("diff", repo, "m", 1, 2, "--exit-code")
    assert told.code == 0
    assert "clients go on as before" in told.out
    assert "by up to 1, 0.5 of its norm" in told.out
    data = run("diff", repo, "m", 1, "latest", "-o", "json").data
    assert (data["breaking"], data["weights"][0]["maxAbs"]) == (False, 1.0)
    assert data["outputs"][0]["samples"] == 3
    assert run("diff", repo, "m", 1, "champion").code == 3
    assert run("diff", repo, "m", 1, 9).code == 3


def test_a_renamed_output_breaks_clients(run: Run, repo: str, model: Path) -> None:
    assert run("init", "s").code == 0
    assert run("export", "s", "n", _other(model, renamed=True), "--add").code == 0
    told = run("diff", repo, "m", 1, 1, "--in", "s", "--of", "n")
    assert told.code == 0
    assert "clients break" in told.out
    refused = run("diff", repo, "m", 1, 1, "--in", "s", "--of", "n", "--exit-code", "-o", "json")
    assert refused.code == 5
    assert "output 'y' is gone" in refused.err
    assert refused.data["breaking"] is True
