"""Published versions against the real Triton: those that it has loaded, as they are and as somebody changed them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from gravswell import quiver as qv
from gravswell.errors import UnavailableError
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving.triton import EmbeddedTriton
from gravswell.serving.verification import Served, _uses_gpus, verify_served

from ..commands import Run, run

__all__ = ["run"]


def _affine(scale: float, *, scalar: bool = False) -> Any:
    nodes = [helper.make_node("Mul", ["x", "scale"], ["y"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])]
    if scalar:
        nodes.append(helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0))
        outputs.append(helper.make_tensor_value_info("total", TensorProto.FLOAT, []))
    graph = helper.make_graph(
        nodes,
        "affine",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        outputs,
        [numpy_helper.from_array(np.array([scale], np.float32), "scale")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _text() -> Any:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["t"], ["u"])],
        "text",
        [helper.make_tensor_value_info("t", TensorProto.STRING, ["batch", 1])],
        [helper.make_tensor_value_info("u", TensorProto.STRING, ["batch", 1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``m`` with three versions of which 2 and 3 are loaded, ``b`` that batches by two, scalars, text, and one not."""
    root = tmp_path_factory.mktemp("served") / "r"
    repo = qv.ModelRepository(root)
    for scale in (1.0, 2.0, 3.0):
        repo.add("m") if "m" not in repo.models else None
        repo.models["m"].export_version(_affine(scale))
    repo.models["m"].config.version_policy.specific.versions.extend([2, 3, 4])
    repo.add("b").export_version(_affine(2.0), max_batch_size=2)
    repo.add("s").export_version(_affine(2.0, scalar=True))
    repo.add("t").export_version(_text())
    repo.add("away").export_version(_affine(1.0))
    (root / "m/4").mkdir()
    (root / "m/4/model.onnx").write_bytes(_affine(4.0).SerializeToString())
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(root, models=["m", "b", "s", "t"]) as server:
        yield server


async def _verified(root: Path, server: EmbeddedTriton, *names: str, number: int | None = None) -> list[Served]:
    return [row async for row in verify_served(RepositoryReader(root), server.http_address, names, number)]


async def test_what_is_loaded_answers_as_recorded(root: Path, server: EmbeddedTriton) -> None:
    rows = await _verified(root, server, "m", "b", "s", "t", "away")
    assert [(row.entry, row.version, row.result, row.samples) for row in rows] == [
        ("m", 1, "not loaded", 0),
        ("m", 2, "verified", 3),
        ("m", 3, "verified", 3),
        ("m", 4, "unverified", 0),
        ("b", 1, "verified", 3),
        ("s", 1, "verified", 3),
        ("t", 1, "verified", 3),
        ("away", 1, "not loaded", 0),
    ]
    assert rows[0].message == "the server has loaded: 2, 3, 4"


async def test_what_differs_is_told(root: Path, server: EmbeddedTriton, tmp_path: Path) -> None:
    """The repository of somebody else who has other versions under the same names, and one that was damaged."""
    other = qv.ModelRepository(tmp_path / "r")
    other.add("m").export_version(_affine(1.0), version=2)
    other.models["m"].export_version(_affine(9.0))
    rows = await _verified(tmp_path / "r", server, "m")
    assert [(row.version, row.result) for row in rows] == [(2, "failed"), (3, "failed"), (4, "unknown")]
    assert "golden sample 0: output y: " in rows[1].message
    assert "values differ" in rows[1].message
    (tmp_path / "r/m/3/.golden.npz").write_bytes(b"damaged")
    (row,) = await _verified(tmp_path / "r", server, "m", number=3)
    assert "changed after publication" in row.message


class _Told:
    """A server that tells these configs."""

    def __init__(self, **configs: dict[str, Any] | None) -> None:
        self._configs = configs

    async def config(self, model: str, _version: int | str) -> dict[str, Any] | None:
        return self._configs[model]


@pytest.mark.parametrize(
    ("kinds", "may"), [(["CPU"], False), (["CPU", "GPU"], True), (["MODEL"], True), ([], False), (None, True)]
)
async def test_where_a_server_may_run_a_model(kinds: list[str] | None, may: bool) -> None:
    told = None if kinds is None else {"instance_group": [{"kind": f"KIND_{kind}"} for kind in kinds]}
    steps = {"step": [{"model_name": "m", "model_version": "1"}]}
    server: Any = _Told(m=told, of={"ensemble_scheduling": steps})
    assert await _uses_gpus(server, "m", 1) is may
    assert await _uses_gpus(server, "of", 1) is may


async def test_no_server(root: Path) -> None:
    with pytest.raises(UnavailableError, match=r"model 'm' did not answer at 127\.0\.0\.1:1: .*[Cc]onnect"):
        [row async for row in verify_served(RepositoryReader(root), "127.0.0.1:1", ["m"])]


def test_a_server_of_another_repository_is_no_success(run: Run, server: EmbeddedTriton) -> None:
    """It has loaded versions of the same name, and none that is here."""
    qv.ModelRepository("other").add("m").export_version(_affine(1.0))
    told = run("verify", "other", "--server", server.http_address)
    assert (told.code, "has loaded nothing of other: does it serve this repository?" in told.err) == (3, True)
    assert "other/m has no such version" in " ".join(told.out.split())


def test_on_the_command_line(run: Run, root: Path, server: EmbeddedTriton) -> None:
    address = server.http_address
    told = run("verify", root, "--server", address, "-o", "json")
    assert told.code == 0
    assert [row["result"] for row in told.data if row["entry"] == "m"] == [
        "not loaded",
        "verified",
        "verified",
        "unverified",
    ]
    one = run("verify", root, "m/3", "--server", address)
    assert one.code == 0
    assert "verified" in one.out
    away = run("verify", root, "m/1", "--server", address)
    assert away.code == 5
    assert "the server has loaded: 2, 3, 4" in away.err
    assert run("verify", root, "away", "--server", address).code == 3
    assert run("verify", root, "m/9", "--server", address).code == 3
    assert run("verify", root, "--server", "127.0.0.1:1").code == 7
