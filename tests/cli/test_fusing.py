"""``gravswell fuse``: variants and counts, the modes, who asks whom, and what is kept."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gravswell.errors import InvalidInputError
from gravswell.fusion import Predictions
from gravswell.quiver.golden import load_golden

from ..fusion.conftest import onnx_model, scaled
from .conftest import Run


@pytest.fixture
def variants(run: Run, tmp_path: Path) -> Path:
    """``r`` with the entries ``base`` (twice x) and ``deep`` (three times), and a file, five times."""
    assert run("init", "r").code == 0
    for name, factor in (("base", 2), ("deep", 3), ("wide", 5)):
        onnx.save(scaled(factor), tmp_path / f"{name}.onnx")
        if name != "wide":
            assert run("export", "r", name, f"{name}.onnx", "--add").code == 0
    np.savez(tmp_path / "rows.npz", x=np.arange(20, dtype=np.float32).reshape(5, 4))
    return tmp_path


def test_validate_only_keeps_nothing_and_shows_ids_and_workers(run: Run, variants: Path) -> None:
    result = run("fuse", "--variants", "base,2", "deep,1", "--repo", "r", "--workers", 4, "--output", "json")
    assert result.code == 0, result.err
    assert [(m["id"], m["name"], m["copyOf"], m["source"]) for m in result.data["models"]] == [
        (1, "base", None, "base/1"),
        (2, "base", 1, "base/1"),
        (3, "deep", None, "deep/1"),
    ]
    assert [worker["modelId"] for worker in result.data["workers"]] == [1, 2, 3, 1]
    assert result.data["path"] is None
    assert not (variants / "model_dir").exists()
    text = run("fuse", "--variants", "base,1", "deep", "--repo", "r", "--workers", 1)
    assert "worker 1: model 1 (base)" in text.out
    assert "no worker: model 2 (deep)" in text.out


def test_compile_only_publishes_a_version_that_knows_its_table(run: Run, variants: Path) -> None:
    result = run(
        "fuse", "base,1", "wide.onnx,1", "--repo", "r", "--mode", "compile_only", "--into", "r", "--name", "zoo"
    )
    assert result.code == 0, result.err
    shown = run("show", "r", "zoo/1")
    assert "model_id 1" in shown.out
    assert "base (base/1)" in shown.out
    assert "model_id 2" in shown.out
    table = run("show", "r", "zoo/1", "--output", "json").data["manifest"]["fusion"]
    assert [row["name"] for row in table] == ["base", "wide"]
    assert json.loads((variants / "model_dir/params.json").read_text())["variants"] == ["base,1", "wide.onnx,1"]
    assert run("verify", "r").code == 0
    assert run("lint", "r").code == 0


@pytest.mark.parametrize("mode", ["infer", "predict"])
def test_predictions_are_kept_with_the_parameters(run: Run, variants: Path, mode: str) -> None:
    result = run(
        *("fuse", "--variants", "base,1", "deep,1", "--repo", "r", "--mode", mode, "--inputs", "rows.npz"),
        *("--workers", 3, "--batch-size", 2, "--drop-remainder", "--task", 7, "--output", "json"),
    )
    assert result.code == 0, result.err
    assert (result.data["rows"], result.data["dropped"]) == (8, 2)
    file = variants / "model_dir/predictions/predictions_onnxruntime_7.npz"
    assert result.data["predictions"] == str(file.relative_to(variants))
    with np.load(file, allow_pickle=False) as found:
        assert found["arr_0"].tolist() == found["y"].tolist()
        assert found["model_id"].tolist() == [1] * 4 + [2] * 4
        assert found["row"].tolist() == [0, 1, 2, 3] * 2
        assert found["worker"].tolist() == [1, 1, 3, 3, 2, 2, 2, 2]
        x = np.arange(20, dtype=np.float32).reshape(5, 4)[:4]
        assert found["y"].tolist() == [*(2 * x).tolist(), *(3 * x).tolist()]
    assert json.loads((variants / "model_dir/params.json").read_text())["mode"] == mode
    assert result.data["path"] is None
    assert not list(variants.glob("model_dir/**/model.onnx")), "asking publishes nothing, however often"


def test_what_is_asked_is_published_where_a_repository_is_named(run: Run, variants: Path) -> None:
    said = ("fuse", "base", "--repo", "r", "--mode", "infer", "--inputs", "rows.npz")
    alone = run(*said)
    assert (alone.code, "the fusion was not kept" in alone.out) == (0, True), alone.err
    result = run(*said, "--into", "r", "--name", "zoo", "--output", "json")
    assert (result.code, result.data["path"]) == (0, "r/zoo/1/model.onnx"), result.err


def test_rows_that_name_their_model_are_asked_of_that_alone(run: Run, variants: Path) -> None:
    np.savez(variants / "named.npz", x=np.ones((3, 4), np.float32), model_id=[2, 1, 2])
    said = ("fuse", "base", "deep", "--repo", "r", "--mode", "predict", "--inputs", "named.npz")
    assert run(*said).code == 0
    with np.load(variants / "model_dir/predictions/predictions_onnxruntime_0.npz") as found:
        assert (found["row"].tolist(), found["y"][:, 0].tolist()) == ([1, 0, 2], [2, 3, 3])
    np.savez(variants / "named.npz", x=np.ones((2, 4), np.float32), model_id=[3, 1])
    refused = run(*said)
    assert refused.code == 2
    assert "model_id is 3 for a row: write one of 1 to 2" in refused.err


@pytest.mark.parametrize("suffix", ["toml", "json", "yaml"])
def test_a_file_describes_the_variants(run: Run, variants: Path, suffix: str) -> None:
    text = {
        "toml": '[base]\nmodel = "wide.onnx"\nscale = 0.5\nparams = { layers = 2 }\noutput_names = ["scores"]\n',
        "json": '{"base": {"model": "wide.onnx", "scale": 0.5, "params": {"layers": 2}, "output_names": ["scores"]}}',
        "yaml": "base:\n  model: wide.onnx\n  scale: 0.5\n  params: {layers: 2}\n  output_names: [scores]\n",
    }[suffix]
    (variants / f"p.{suffix}").write_text(text)
    result = run("fuse", "base,1", "--params", f"p.{suffix}", "--output", "json")
    assert result.code == 0, result.err
    [model] = result.data["models"]
    assert (model["name"], model["scale"], model["params"], model["outputs"]) == (
        "base",
        0.5,
        {"layers": 2},
        ["scores"],
    )


def test_yaml_without_its_package_is_told(run: Run, variants: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (variants / "p.yaml").write_text("base: {model: wide.onnx}\n")
    monkeypatch.setitem(sys.modules, "yaml", None)
    result = run("fuse", "base", "--params", "p.yaml")
    assert (result.code, "p.yaml is YAML, which needs PyYAML: pip install" in result.err) == (9, True), result.err


def test_functions_of_the_parameters_make_models_and_batches(run: Run, variants: Path) -> None:
    (variants / "nets.py").write_text(
        "import numpy as np, onnx\n"
        "def net(params):\n"
        "    return onnx.load(params['file'])\n"
        "def batches(params):\n"
        "    while True:\n"
        "        yield {'x': np.full((2, 4), params['value'], np.float32)}\n"
    )
    said = {"model": "nets.py:net", "inputs": "nets.py:batches", "params": {"file": "wide.onnx", "value": 7}}
    (variants / "p.json").write_text(json.dumps({"mine": said}))
    result = run("fuse", "mine,2", "base", "--repo", "r", "--params", "p.json", "--mode", "compile_only", "-o", "json")
    assert result.code == 0, result.err
    assert [model["copyOf"] for model in result.data["models"]] == [None, 1, None]
    golden = load_golden(Path(result.data["path"]).parent / ".golden.npz")
    assert any((sample.inputs["x"] == 7).all() for sample in golden)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["base,1", "--mode", "train"], 9, "for inference alone"),
        (["base,1", "--mode", "eval"], 9, "for inference alone"),
        (["base,1", "--mode", "predict"], 2, "--inputs FILE.npz"),
        (["base,0"], 2, "'base,0' is no variant"),
        (["base,one"], 2, "'base,one' is no variant"),
        (["base,1000000000"], 2, "'base,1000000000' is a variant more than 10000 times"),
        ([], 2, "no variants"),
        (["base"], 2, "say in which repository the entry lies"),
        (["other", "--repo", "r"], 3, "no entry 'other'"),
        (["base", "--repo", "r", "--params", "p.toml"], 3, "no file p.toml"),
        (["base", "--repo", "r", "--mode", "infer", "--inputs", "other.npz"], 2, "reads x, and there is no x"),
        (
            ["base", "--repo", "r", "--inputs", "rows.npz"],
            2,
            "--mode validate_only asks the models nothing: leave --inputs",
        ),
        (
            ["base", "--mode", "compile_only", "--batch-size", 2, "--drop-remainder", "--task", 0],
            2,
            "leave --batch-size, --drop-remainder, --task out, or use --mode predict",
        ),
        (["base", "--repo", "r", "--mode", "compile_only", "--into", "nowhere"], 3, "nowhere"),
        (
            ["base", "--repo", "r", "--mode", "infer", "--inputs", "rows.npz", "--model-dir", "other.npz/below"],
            2,
            "other.npz/below is, or lies under, a file",
        ),
        (["base", "--repo", "r", "--into", "r"], 2, "--mode validate_only publishes nothing: leave --into out"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    run: Run, variants: Path, arguments: list[str], code: int, told: str
) -> None:
    np.savez(variants / "other.npz", z=np.ones((2, 4), np.float32))
    result = run("fuse", *arguments)
    assert (result.code, told in result.err) == (code, True), result.err
    assert len(result.err.strip().splitlines()) == 1


def test_an_entry_made_for_a_fusion_that_fails_goes_again(run: Run, variants: Path) -> None:
    onnx.save(scaled(2, 6), variants / "other.onnx")
    result = run("fuse", "base", "other.onnx", "--repo", "r", "--mode", "compile_only", "--into", "r", "--name", "zoo")
    assert result.code == 2
    assert "input 'x' is TYPE_FP32 [-1, 4] in model 1 (base) and TYPE_FP32 [-1, 6] in model 2 (other)" in result.err
    assert "zoo" not in run("ls", "r").out


@pytest.mark.parametrize(
    ("arrays", "arguments", "told"),
    [
        ({"x": np.ones((2, 4))}, [], "input 'x' is float64 [2, 4], and model 1 (base) takes TYPE_FP32 [-1, 4]"),
        ({"x": np.ones((2, 5), np.float32)}, [], "input 'x' is float32 [2, 5], and model 1 (base) takes"),
        ({"x": np.float32(1)}, [], "input 'x' is float32 [], and model 1 (base) takes"),
        ({"x": np.ones((2, 4), np.float32), "model_id": [1.5, 2]}, [], "model_id is float64: write whole numbers"),
        ({"x": np.ones((2, 4), np.float32), "model_id": [1, 3]}, [], "model_id is 3 for a row: write one of 1 to 2"),
        ({"x": np.ones((2, 4), np.float32), "model_id": [1]}, [], "model_id has 1 values for 2 rows"),
        (
            {"x": np.ones((2, 4), np.float32), "model_id": [1, 2]},
            ["--workers", 1],
            "rows name model 2 (deep), which none of 1 workers asks: have 2 workers or more (--workers)",
        ),
        (
            {"x": np.ones((2, 4), np.float32)},
            ["--batch-size", 3, "--drop-remainder"],
            "there is nothing to ask: 2 rows",
        ),
        ({}, [], "there is no file asked.npz"),
    ],
)
def test_rows_that_cannot_be_asked_are_told_before_anything_is_published(
    run: Run, variants: Path, arrays: dict[str, Any], arguments: list[Any], told: str
) -> None:
    if arrays:
        np.savez(variants / "asked.npz", **arrays)
    result = run("fuse", "base", "deep", "--repo", "r", "--mode", "infer", "--inputs", "asked.npz", *arguments)
    assert (result.code, told in result.err) == (2 if arrays else 3, True), result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not list(variants.glob("model_dir/**/model.onnx"))


def test_what_only_a_run_can_tell_is_said_in_a_line_and_the_fusion_is_there_with_its_parameters(
    run: Run, variants: Path
) -> None:
    node = helper.make_node("Gather", ["words", "ids"], ["y"])
    tensors = [("ids", TensorProto.INT64, ["b"])], [("y", TensorProto.FLOAT, ["b", 2])]
    onnx.save(onnx_model([node], *tensors, {"words": np.ones((3, 2), np.float32)}), variants / "words.onnx")
    np.savez(variants / "batch.npz", ids=np.array([0, 1, 2]))
    (variants / "p.toml").write_text('[words]\nmodel = "words.onnx"\ninputs = "batch.npz"\n')
    np.savez(variants / "asked.npz", ids=np.array([7]))
    said = ("fuse", "words", "--params", "p.toml", "--mode", "infer", "--inputs", "asked.npz")
    assert run("init", "q").code == 0
    result = run(*said, "--into", "q")
    assert (result.code, "model 1 does not take" in result.err) == (2, True), result.err
    assert len(result.err.strip().splitlines()) == 1
    assert json.loads((variants / "model_dir/params.json").read_text())["variants"] == ["words,1"]
    assert (variants / "q/fusion/1/model.onnx").is_file()


@pytest.mark.parametrize("name", ["row", "worker", "arr_0"])
def test_an_output_called_as_what_predictions_have_beside_it_is_refused(run: Run, variants: Path, name: str) -> None:
    onnx.save(scaled(2, y=name), variants / "named.onnx")
    asked = run("fuse", "named.onnx", "--mode", "infer", "--inputs", "rows.npz")
    assert (asked.code, f"an output is called '{name}'" in asked.err) == (2, True), asked.err
    assert not list(variants.glob("model_dir/**/model.onnx"))
    assert run("fuse", "named.onnx", "--mode", "compile_only").code == 0, "a fusion may have it"
    rows = np.arange(2)
    found = Predictions({name: np.ones((2, 4), np.float32)}, rows + 1, rows + 1, rows, 0)
    with pytest.raises(InvalidInputError, match=f"an output is called '{name}'.*output_names"):
        found.save(variants / "o.npz")
    assert not (variants / "o.npz").exists()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"rename": "x"}, "rename='x' of model 1 (wide): use a map of names"),
        ({"rename": {"x": 1}}, "rename={'x': 1} of model 1 (wide): use a map of names"),
        ({"input_types": "FP32"}, "input_types='FP32' of model 1 (wide): use a type for each input"),
        ({"output_names": [1]}, "output_names=[1] of model 1 (wide): use a sequence of names"),
        ({"output_names": "y"}, "output_names='y' of model 1 (wide): use a sequence of names"),
    ],
)
def test_a_description_of_another_type_is_told_in_a_line(
    run: Run, tmp_path: Path, said: dict[str, Any], told: str
) -> None:
    onnx.save(scaled(2), tmp_path / "wide.onnx")
    (tmp_path / "p.json").write_text(json.dumps({"wide": {"model": "wide.onnx", **said}}))
    result = run("fuse", "wide", "--params", "p.json")
    assert (result.code, told in result.err) == (2, True), result.err
    assert len(result.err.strip().splitlines()) == 1
