"""``gravswell partition``: what it prints and writes, and how it ends."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from gravswell import quiver as qv

from .. import networks
from ..partitions.graphs import mlp
from .conftest import Run


@pytest.fixture
def model(run: Run, tmp_path: Path) -> str:
    """``net.onnx``, in the folder of the run: dense layers of 64, 32 and 6 columns."""
    (tmp_path / "net.onnx").write_bytes(mlp(16, 64, 32, 6).SerializeToString())
    return "net.onnx"


def test_parts_in_a_folder(run: Run, model: str, tmp_path: Path) -> None:
    made = run("partition", model, "--ranks", 2, "--folder", "parts", "--output", "json")
    assert made.code == 0, made.err
    plan = made.data["plan"]
    assert (plan["model"], plan["by"], plan["ranks"], plan["schema"]) == (
        "net",
        "layer",
        2,
        "gravswell.dev/partition/v1",
    )
    assert [(part["name"], part["layers"]) for part in plan["parts"]] == [
        ("rank-0", ["fc1"]),
        ("rank-1", ["fc2", "fc3"]),
    ]
    assert plan["parts"][0]["inputs"] == [{"name": "x", "dataType": "TYPE_FP32", "dims": [-1, 16]}]
    assert made.data["errors"]["y"]["maxAbs"] < 1e-5
    assert {batch["x"][0] for batch in made.data["batches"]} >= {1, 2, 5}
    assert (tmp_path / "parts/rank-1.json").is_file()
    again = run("partition", model, "--ranks", 2, "--folder", "parts")
    assert (again.code, "not empty" in again.err) == (4, True)
    below = run("partition", model, "--ranks", 2, "--folder", "net.onnx/parts")
    assert (below.code, "net.onnx/parts is, or lies under, a file" in below.err) == (2, True)


def test_what_would_be_cut(run: Run, model: str, tmp_path: Path) -> None:
    shown = run("partition", model, "--ranks", 4, "--by", "column", "--whole", "fc3")
    assert shown.code == 0, shown.err
    for words in (
        "net for 4 ranks by column in 2 stages",
        "rank-3-stage-2",
        "r1.rank-3",
        "combine-2",
        "proved at x [2, 16]",
    ):
        assert words in shown.out, shown.out
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_an_entry_published_in_parts(run: Run, model: str) -> None:
    assert run("export", "r", "net", model, "--add").code == 3  # there is no repository
    assert run("init", "r").code == 0
    assert run("export", "r", "net", model, "--add").code == 0
    taken = run("partition", "net/latest", "--from", "r", "--ranks", 2, "--repository", "r")
    assert (taken.code, "net is in" in taken.err, "--name" in taken.err) == (4, True, True)
    assert list(qv.ModelRepository("r").models) == ["net"]
    made = run(
        "partition", "net/1", "--from", "r", "--ranks", 2, "--by", "row", "--whole", "fc3", "--repository", "r",
        "--name", "parted", "--device", 3, "--device", 5, "--output", "json",
    )  # fmt: skip
    assert made.code == 0, made.err
    entry = qv.ModelRepository("r").models["parted"]
    assert [step.model_name for step in entry.config.ensemble_scheduling.step] == list(made.data["published"]["parts"])
    assert {member.model: member.version for member in entry.version(1).manifest.members} == made.data["published"][
        "parts"
    ]
    models = qv.ModelRepository("r").models
    assert [list(models[f"parted-rank-{rank}"].config.instance_group[0].gpus) for rank in (0, 1)] == [[3], [5]]
    assert run("verify", "r").code == 0
    refused = run("rm", "r", "parted-rank-0/1", "--yes")
    assert (refused.code, "parted" in refused.err) == (4, True)
    assert run("partition", "net", "--from", "r", "--ranks", 2, "--repository", "r", "--name", "parted").code == 4


def test_tolerances_are_of_what_is_published_too(run: Run, tmp_path: Path) -> None:
    """Two large halves that cancel each other: their sum in another order is far from it, relative to what is left."""
    half = np.random.default_rng(0).standard_normal((1024, 2)).astype(np.float32) * 1e3
    weights = {"w": np.concatenate([half, -half]), "one": np.ones((), np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"], name="sum"), helper.make_node("Mul", ["p", "one"], ["y"])]
    shapes = [("x", TensorProto.FLOAT, ["rows", 2048])], [("y", TensorProto.FLOAT, ["rows", 2])]
    (tmp_path / "sums.onnx").write_bytes(networks.model(nodes, *shapes, weights).SerializeToString())
    row = np.random.default_rng(1).standard_normal((1, 1024)).astype(np.float32)
    np.savez("x.npz", x=np.repeat(np.concatenate([row, row], 1), 3, 0))
    assert run("init", "r").code == 0
    ways = ("sums.onnx", "--ranks", 4, "--by", "row", "--sample-inputs", "x.npz", "--repository", "r")
    strict = run("partition", *ways)
    assert (strict.code, "allow more (rtol, atol)" in strict.err) == (5, True), strict.err
    made = run("partition", *ways, "--rtol", 1000, "--atol", 100)
    assert made.code == 0, made.err
    assert "sums" in qv.ModelRepository("r").models


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--ranks", 4), 2, "3 layers with weights that can be parted (fc1, fc2, fc3): use ranks=3 or fewer"),
        (("--ranks", 4, "--by", "column"), 2, "Gemm 'fc3' (weight 'w3' [32, 6]) has 6 output columns"),
        (("--ranks", 0), 2, "greater than or equal to 1"),
        (("--ranks", 2, "--by", "depth"), 2, "depth"),
        (("--ranks", 2, "--from", "nowhere"), 3, "nowhere"),
        (("--ranks", 2, "--repository", "nowhere"), 3, "nowhere"),
        (("--ranks", 2, "--device", 1), 2, "name a --repository"),
        (("--ranks", 2, "--name", "my model"), 2, "entries under that name: give another one (--name)"),
    ],
)
def test_errors_are_one_message(
    run: Run, model: str, tmp_path: Path, options: tuple[object, ...], code: int, words: str
) -> None:
    result = run("partition", model, *options, "--folder", "parts")
    assert (result.code, words in result.err) == (code, True), result.err
    assert not (tmp_path / "parts").exists()
