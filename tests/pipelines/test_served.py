"""The real Triton answers as was proved, whoever of pipeline and members forms batches: a label a row shows it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc
from onnx import TensorProto, helper

from gravswell import quiver as qv
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving.triton import EmbeddedTriton
from gravswell.serving.verification import verify_served

from .conftest import onnx_model

LABELS, ROWS = (TensorProto.INT64, ["n"]), (TensorProto.FLOAT, ["n", 4])


def passing(x: Any, *, label: Any, twice: Any) -> Any:
    found, doubled = label(x)
    return twice(found), doubled


def computing(x: Any, *, label: Any, twice: Any) -> Any:
    found, doubled = label(x)
    assert found.shape == (len(x),)
    return twice(found + 0), doubled


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> qv.ModelRepository:
    """Pipelines by what they compile to, the members' ``max_batch_size``, and their own."""
    repo = qv.ModelRepository(tmp_path_factory.mktemp("served") / "repo")
    label = [helper.make_node("ArgMax", ["x"], ["k"], axis=1, keepdims=0), helper.make_node("Add", ["x", "x"], ["y"])]
    twice = [helper.make_node("Add", ["k", "k"], ["z"])]
    for size in (0, 8):
        repo.add(f"label-{size}").export_version(
            onnx_model(label, {"x": ROWS}, {"k": LABELS, "y": ROWS}), max_batch_size=size
        )
        repo.add(f"twice-{size}").export_version(onnx_model(twice, {"k": LABELS}, {"z": LABELS}), max_batch_size=size)
    for size, own in ((0, 0), (0, 8), (8, 0), (8, 8)):
        members = {"label": f"label-{size}", "twice": f"twice-{size}"}
        for kind, function in (("ensemble", passing), ("python", computing)):
            made = qv.Pipeline(function, inputs={"x": ("FP32", (None, 4))}, output_names=["z", "y"], members=members)
            assert made.check(repo).compiles_to == kind
            repo.add(f"{kind}-{size}-{own}", "pipeline").export_version(made, max_batch_size=own)
    return repo


@pytest.fixture(scope="module")
def server(repository: qv.ModelRepository) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(repository.location, start_timeout=400) as running:
        yield running


@pytest.mark.parametrize(
    ("entry", "labels"),
    [
        ("ensemble-0-0", [6, 0]),
        ("ensemble-0-8", [[6], [0]]),
        ("ensemble-8-0", [[6], [0]]),
        ("ensemble-8-8", [[6], [0]]),
        ("python-0-0", [6, 0]),
        ("python-0-8", [[6], [0]]),
        ("python-8-0", [6, 0]),
        ("python-8-8", [[6], [0]]),
    ],
)
async def test_labels(server: EmbeddedTriton, repository: qv.ModelRepository, entry: str, labels: list[Any]) -> None:
    x = np.array([[0, 1, 0, 5], [9, 0, 0, 0]], np.float32)
    tensor = grpc.InferInput("x", x.shape, "FP32")
    tensor.set_data_from_numpy(x)
    with grpc.InferenceServerClient(server.grpc_address) as client:
        answer = client.infer(entry, [tensor])
        stated = client.get_model_metadata(entry, as_json=True)
    assert answer.as_numpy("z").tolist() == labels
    np.testing.assert_array_equal(answer.as_numpy("y"), 2 * x)
    shapes = {output["name"]: [int(dim) for dim in output["shape"]] for output in stated["outputs"]}
    assert len(shapes["z"]) == np.ndim(labels)
    (row,) = [row async for row in verify_served(RepositoryReader(repository.url), server.http_address, [entry], None)]
    assert (row.result, row.samples, row.message) == ("verified", 3, "")


def test_they_verify_here_and_are_exported_again(repository: qv.ModelRepository) -> None:
    made = qv.Pipeline(passing, members={"label": "label-8", "twice": "twice-8"})
    entry = repository.models["ensemble-8-8"]
    entry.export_version(made)
    assert entry.outputs["z"].dims == (-1, 1)
    assert qv.verify_version(RepositoryReader(repository.url), "ensemble-8-8", 2).samples == 3


def test_members_of_two_forms_are_no_ensemble(repository: qv.ModelRepository) -> None:
    made = qv.Pipeline(passing, output_names=["z", "y"], members={"label": "label-0", "twice": "twice-8"})
    assert "one number for each row is [n, 1] on a server" in made.check(repository).why
