"""``gravswell rank``: one process for each rank, and what it says of itself and of its outputs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from gravswell.partitions import partition

from ..networks import model
from ..partitions.graphs import mlp
from .conftest import Run


def table(ranks: int, **change: Any) -> str:
    devices = [{"device_id": str(k), "device_ip": f"10.1.0.{k}", "rank_id": str(k)} for k in range(ranks)]
    servers = [{"server_id": "10.0.0.1", "device": devices}]
    return json.dumps({"version": "1.0", "server_count": "1", "server_list": servers, "status": "completed"} | change)


@pytest.fixture
def parts(run: Run, tmp_path: Path) -> Path:
    """``parts``: two slices of a network; ``table.json``, of two ranks; ``x.npz``, four rows."""
    with partition(mlp(16, 32, 4), 2, name="net") as made:
        made.save(tmp_path / "parts")
    (tmp_path / "table.json").write_text(table(2))
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32))
    return tmp_path / "parts"


def test_ranks_one_after_the_other_answer_as_the_whole(run: Run, parts: Path, tmp_path: Path) -> None:
    """Each a call of its own, from files to files, as if each were on a machine of its own."""
    first = run(
        "rank", "--manifest", "parts/rank-0.json", "--rank-table", "table.json", "--inputs", "x.npz", "--out", "h.npz",
        "--repeat", 3, "--output", "json",
    )  # fmt: skip
    assert first.code == 0, first.err
    told = first.data
    assert [told[key] for key in ("rank", "ranks", "server", "device", "target", "provider", "runs")] == [
        0, 2, "10.0.0.1", 0, "cpu", "CPUExecutionProvider", 3,
    ]  # fmt: skip
    assert 0 < told["bestSeconds"] <= told["firstSeconds"]
    second = run("rank", "--manifest", "parts", "--rank-id", 1, "--inputs", "h.npz", "--out", "y.npz")
    assert second.code == 0, second.err
    session = ort.InferenceSession(mlp(16, 32, 4).SerializeToString(), providers=["CPUExecutionProvider"])
    with np.load(tmp_path / "x.npz") as given, np.load(tmp_path / "y.npz") as got:
        [expected] = session.run(["y"], dict(given))
        np.testing.assert_allclose(got["y"], expected, rtol=1e-4, atol=1e-5)
    told = run("rank", "--manifest", "parts/rank-1.json", "--inputs", "h.npz", "--output", "json").data
    [output] = told["models"][0]["outputs"]
    assert (output["name"], output["bytes"], output["elements"]) == ("y", 64, 16)
    np.testing.assert_allclose(output["first"], expected.ravel()[:10], rtol=1e-4, atol=1e-5)


def test_outputs_are_told_however_few_their_values(run: Run, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["y"]),
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Log", ["none"], ["minus"]),
    ]
    inputs = [("x", TensorProto.FLOAT, ["rows", 3])]
    outputs = [("y", TensorProto.FLOAT, ["rows", 3]), ("top", TensorProto.FLOAT, []), ("minus", TensorProto.FLOAT, [1])]
    made = model(nodes, inputs, outputs, {"none": np.zeros(1, np.float32)})
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    shown = run("rank", "--model", "m.onnx")
    assert shown.code == 0, shown.err
    for words in (
        "rank 0: device 0 of cpu",
        "y float32[1, 3]: 12 bytes, 3 elements",
        "1 1 1\n",
        "top float32[]: 4 bytes",
    ):
        assert words in shown.out, shown.out
    told = run("rank", "--model", "m.onnx", "--rows", 4, "--output", "json").data["models"][0]["outputs"]
    assert [(one["elements"], len(one["first"])) for one in told] == [(12, 10), (1, 1), (1, 1)]
    assert told[2]["first"] == ["-inf"]


def test_two_models_on_one_device_share_weights(run: Run, tmp_path: Path) -> None:
    for name, width in (("a", 4), ("b", 8)):  # the first layer is the same in both
        (tmp_path / f"{name}.onnx").write_bytes(mlp(64, 64, width).SerializeToString())
    alone = run("rank", "--model", "a.onnx", "--model", "b.onnx", "--output", "json").data
    shared = run("rank", "--model", "a.onnx", "--model", "b.onnx", "--share-weights", "--output", "json").data
    assert (alone["sharedBytes"], shared["sharedBytes"]) == (0, 64 * 64 * 4)
    assert [one["outputs"][0]["shape"] for one in shared["models"]] == [[1, 4], [1, 8]]
    for one, other in zip(alone["models"], shared["models"], strict=True):
        np.testing.assert_allclose(one["outputs"][0]["first"], other["outputs"][0]["first"], rtol=1e-4, atol=1e-5)


def test_outputs_of_one_name_are_all_kept(run: Run, tmp_path: Path) -> None:
    for folder, name, width in ((".", "a", 4), (".", "b", 8), ("other", "a", 2)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.onnx").write_bytes(mlp(16, 32, width).SerializeToString())

    def kept(*models: str) -> dict[str, tuple[int, ...]]:
        given = [word for one in models for word in ("--model", one)]
        assert run("rank", *given, "--out", "o.npz").code == 0
        with np.load(tmp_path / "o.npz") as arrays:
            return {name: array.shape for name, array in arrays.items()}

    assert kept("a.onnx") == {"y": (1, 4)}
    assert kept("a.onnx", "b.onnx") == {"a/y": (1, 4), "b/y": (1, 8)}
    assert kept("a.onnx", "other/a.onnx") == {"0/y": (1, 4), "1/y": (1, 2)}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--provider", "tensorrt"), 2, "target cpu has no provider 'tensorrt': its providers are cpu, openvino"),
        (("--provider", "openvino"), 9, "does not have provider 'openvino' of target cpu; it has: cpu"),
        (("--target", "gpu"), 9, "does not have any provider of target gpu; it has: cpu"),
        (
            ("--target", "gpu", "--provider", "ge"),
            2,
            "target gpu has no provider 'ge': its providers are cuda",
        ),
        (("--target", "npu"), 2, "npu"),
        (("--device-id", 3), 2, "target cpu has no device 3: there is one, device 0"),
        (("--rank-id", 1), 2, "rank 1 is not rank 0, which parts/rank-0.json says"),
        (("--rank-table", "none.json"), 3, "there is no rank table none.json"),
        (("--inputs", "y.npz"), 2, "input 'x' is not given; there is: y"),
        (("--inputs", "wide.npz"), 2, "the model does not take x float32 [1, 17]"),
        (("--model", "m.onnx"), 2, "a manifest or models, and not both"),
        (
            ("--share-weights", "--inputs", "x.npz", "--inputs", "x.npz"),
            2,
            "x.npz has an array 'x', as one of the files",
        ),
        (("--out", "nowhere/y.npz"), 3, "no folder nowhere"),
        (("--out", "parts"), 2, "parts is a folder: name a file in it"),
    ],
)
def test_errors_name_what_is_wrong(run: Run, parts: Path, options: tuple[object, ...], code: int, words: str) -> None:
    np.savez("y.npz", y=np.ones(1))
    np.savez("wide.npz", x=np.ones((1, 17), np.float32))
    result = run("rank", "--manifest", "parts/rank-0.json", *options)
    assert (result.code, words in result.err) == (code, True), result.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "it is no JSON"),
        ("[]", "it has no server_list"),
        (table(2, status="initializing"), "its status is 'initializing'"),
        (table(0), "it names no device"),
        (table(3), "has 3 ranks, and net was partitioned for 2"),
        (table(2, server_list=[{"device": []}]), "server_list[0] has no server_id"),
        (table(2, server_list=[{"server_id": "a"}]), "server_list[0] has no list of its devices"),
        (table(2).replace('"rank_id": "1"', '"rank_id": "0"'), "rank 0 stands in it 2 times"),
        (table(2).replace('"rank_id": "1"', '"rank_id": "2"'), "it has 2 ranks and not rank 1"),
        (table(2).replace('"rank_id": "1"', '"rank_id": "one"'), "server_list[0].device[1].rank_id is 'one'"),
        (table(2).replace('"device_id": "1"', '"device_id": "0"'), "ranks 0 and 1 both have device 0 of 10.0.0.1"),
    ],
)
def test_a_rank_table_that_is_wrong(run: Run, parts: Path, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    result = run("rank", "--manifest", "parts/rank-0.json", "--rank-table", "bad.json")
    assert (result.code, words in result.err) == (2, True), result.err


@pytest.mark.parametrize("variable", ["GRAVSWELL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"])
def test_a_launcher_says_which_rank_it_is_where_the_manifest_does_not(
    run: Run, parts: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for other in ("GRAVSWELL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(variable, "1")
    for given, number in (("parts", 1), ("parts/rank-0.json", 0), ("parts/rank-1.json", 1)):
        result = run("rank", "--manifest", given, "--output", "json")
        assert (result.code, result.data["rank"] if result.out else None) == (0, number), result.err
    assert run("rank", "--model", "parts/rank-0/model.onnx", "--output", "json").data["rank"] == 1
    said = run("rank", "--manifest", "parts/rank-0.json", "--rank-id", 1)
    assert (said.code, "rank 1 is not rank 0, which parts/rank-0.json says" in said.err) == (2, True), said.err


def test_files_that_are_not_those_of_the_manifest(run: Run, parts: Path, tmp_path: Path) -> None:
    outside = run("rank", "--model", "parts/rank-0/model.onnx", "--rank-id", 2, "--rank-table", "table.json")
    assert (outside.code, "rank 2 is not in table.json: its ranks are 0 to 1" in outside.err) == (2, True)
    unsaid = run("rank", "--manifest", "parts")
    assert (unsaid.code, "say which this one is (--rank-id)" in unsaid.err) == (2, True)
    absent = run("rank", "--manifest", "parts", "--rank-id", 7)
    assert (absent.code, "no rank 7 in parts; manifests there: rank-0.json, rank-1.json" in absent.err) == (3, True), (
        absent.err
    )
    wrong = run("rank", "--manifest", "parts/partition.json")
    assert (wrong.code, "no RankManifest" in wrong.err) == (2, True)
    assert wrong.err.rstrip().endswith(": gravswell partition --folder FOLDER writes one"), wrong.err
    plan = (parts / "partition.json").read_bytes()
    (parts / "partition.json").write_bytes(plan + b" ")
    other = run("rank", "--manifest", "parts/rank-0.json")
    assert (other.code, "is of another partition than parts/partition.json" in other.err) == (5, True)
    (parts / "partition.json").write_bytes(plan)
    (parts / "rank-0/model.onnx").write_bytes(b"changed")
    changed = run("rank", "--manifest", "parts/rank-0.json")
    assert (changed.code, "it was changed" in changed.err) == (5, True)
    (parts / "rank-0/model.onnx").unlink()
    assert run("rank", "--manifest", "parts/rank-0.json").code == 3
