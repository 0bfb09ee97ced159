"""``gravswell quantize``: what it prints, and how it ends."""

from pathlib import Path

import numpy as np
import pytest

from ..networks import FEATURES, classifier
from .conftest import Run


@pytest.fixture
def repo(run: Run, tmp_path: Path) -> str:
    """``r``: one entry, ``m``, with one version of a classifier."""
    (tmp_path / "classifier.onnx").write_bytes(classifier().SerializeToString())
    rows = np.random.default_rng(1).standard_normal((50, FEATURES)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=rows)
    assert run("init", "r").code == 0
    assert run("export", "r", "m", "classifier.onnx", "--add").code == 0
    return "r"


def test_a_variant_with_its_figures(run: Run, repo: str) -> None:
    made = run("quantize", repo, "m", "--kind", "int8", "--calibration", "rows.npz", "--output", "json")
    assert made.code == 0, made.err
    assert (made.data["version"], made.data["parent"], made.data["method"]) == (2, 1, "static, QDQ")
    assert made.data["errors"]["scores"]["maxAbs"] > 0
    assert made.data["bytes"] < made.data["parentBytes"]
    told = run("quantize", repo, "m/1", "--kind", "fp16")
    assert told.code == 0, told.err
    for words in ("m/3/model.onnx", "fp16 (float16 weights and activations) of m/1", "of its largest value", "ms for"):
        assert words in told.out
    assert run("verify", repo, "m").code == 0
    shown = " ".join(run("show", repo, "m/3").out.split())
    for words in (
        "variant fp16 (float16 weights and activations) of version 1",
        "may differ by 1.00% of",
        "over 8 rows",
    ):
        assert words in shown
    assert "variant" not in run("show", repo, "m/1").out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("m", "--kind", "int8", "--max-error", "0.0001"), 5, "Nothing was published"),
        (("m", "--kind", "fp16", "--calibration", "rows.npz"), 2, "needs no calibration"),
        (("m/7", "--kind", "fp16"), 3, "7"),
        (("other", "--kind", "fp16"), 3, "there is no entry 'other'"),
        (("m", "--kind", "int4"), 2, "int4"),
    ],
)
def test_errors_are_one_message(run: Run, repo: str, arguments: tuple[str, ...], code: int, words: str) -> None:
    result = run("quantize", repo, *arguments)
    assert (result.code, words in result.err) == (code, True), result.err
    assert run("ls", repo, "m", "--output", "json").data["m"][0]["version"] == 1
