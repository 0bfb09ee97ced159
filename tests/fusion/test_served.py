"""Fusions on the real Triton: mixed batches, ids that nobody has, and many clients whose requests become one batch."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton_http

from gravswell import quiver as qv
from gravswell.errors import GravswellError
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving import Client
from gravswell.serving.triton import EmbeddedTriton
from gravswell.serving.verification import verify_served

from ..counting import counted_batches
from ..networks import classifier
from .conftest import alone, frameworks, scaled

MODELS = [classifier(seed=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``zoo``, whose requests wait a moment for others; ``mixed``, whose models take different inputs; ``frameworks``,
    of which one is torch's and one scikit-learn's.
    """
    root = tmp_path_factory.mktemp("fused") / "r"
    repo = qv.ModelRepository(root)
    zoo = repo.add("zoo")
    with zoo.config.editing() as config:
        config.max_batch_size = 32
        config.dynamic_batching.max_queue_delay_microseconds = 200_000
    zoo.export_version(qv.fuse(MODELS, "zoo"))
    other = qv.ModelInfo(scaled(3, 6, x="image"), output_names=["z"])
    repo.add("mixed").export_version(qv.fuse([scaled(2), other], "mixed"))
    repo.add("frameworks").export_version(qv.fuse(frameworks(), "frameworks"))
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(root) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: EmbeddedTriton) -> Iterator[Client]:
    with Client(server.http_address) as client:
        yield client


async def test_the_server_answers_as_the_single_models_did(root: Path, server: EmbeddedTriton) -> None:
    entries = ["zoo", "mixed", "frameworks"]
    found = [row async for row in verify_served(RepositoryReader(root), server.http_address, entries)]
    assert [(row.entry, row.result) for row in found] == [(entry, "verified") for entry in entries]
    assert [row.samples for row in found] == [2 + 3 * 3, 2 + 2 * 3, 2 + 2 * 3], "mixed, and each id alone"


def test_a_mixed_batch_has_each_row_from_its_own_model(client: Client) -> None:
    rng = np.random.default_rng(0)
    ids, x = rng.integers(1, 4, (20, 1)), rng.standard_normal((20, 16)).astype(np.float32)
    got = client.infer("zoo", {"model_id": ids, "x": x}, batch_size=20)["scores"]
    for number, model in enumerate(MODELS, 1):
        own = ids[:, 0] == number
        assert got[own].tobytes() == alone(model)(x=x[own])["scores"].tobytes()


@pytest.mark.parametrize("bad", [0, 4, -1])
def test_an_id_that_nobody_has_is_an_error_that_says_which_there_are(client: Client, bad: int) -> None:
    with pytest.raises(GravswellError, match="model_id of every row must be one of 1 to 3"):
        client.infer("zoo", {"model_id": np.array([[1], [bad]]), "x": np.zeros((2, 16), np.float32)})


def test_many_clients_share_batches_and_a_bad_row_is_its_own_requests_alone(server: EmbeddedTriton) -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((24, 16)).astype(np.float32)
    singles = [alone(model) for model in MODELS]

    def ask(k: int) -> str:
        """What client ``k`` is told: every eighth asks for a model that is not there."""
        number = 9 if k % 8 == 7 else k % 3 + 1
        with triton_http.InferenceServerClient(server.http_address) as one:
            inputs = [
                triton_http.InferInput("model_id", [1, 1], "INT64"),
                triton_http.InferInput("x", [1, 16], "FP32"),
            ]
            inputs[0].set_data_from_numpy(np.array([[number]]))
            inputs[1].set_data_from_numpy(rows[k : k + 1])
            try:
                scores = one.infer("zoo", inputs).as_numpy("scores")
            except triton_http.InferenceServerException as error:
                return "refused" if "must be one of 1 to 3" in str(error) else str(error)
        expected = singles[number - 1](x=rows[k : k + 1])["scores"] if number < 9 else None
        return "right" if expected is not None and np.allclose(scores, expected, rtol=1e-5, atol=1e-6) else "wrong"

    with counted_batches(server, "zoo", len(rows)) as batches, ThreadPoolExecutor(len(rows)) as pool:
        told = list(pool.map(ask, range(len(rows))))
    assert told == ["refused" if k % 8 == 7 else "right" for k in range(len(rows))]
    assert max(batches) > 1, "requests of different models ran together"


def test_models_with_different_inputs_behind_one_id(client: Client) -> None:
    x, image = np.ones((2, 4), np.float32), np.ones((2, 6), np.float32)
    one = client.infer("mixed", {"model_id": np.array([1, 1]), "x": x})
    assert one["y"].tolist() == [[2] * 4] * 2
    other = client.infer("mixed", {"model_id": np.array([2, 2]), "image": image})
    assert other["z"].tolist() == [[3] * 6] * 2
    both = client.infer("mixed", {"model_id": np.array([2, 1]), "x": x, "image": image})
    assert (both["z"][0].tolist(), both["y"][1].tolist()) == ([3] * 6, [2] * 4)
    with pytest.raises(GravswellError, match="input image of model 2 must have as many rows as model_id"):
        client.infer("mixed", {"model_id": np.array([2, 2]), "x": x})


def test_the_table_of_ids_is_read_by_whoever_has_the_repository(root: Path) -> None:
    table = qv.ModelRepository(root).models["zoo"].version().manifest.fusion or ()
    assert [model.id for model in table] == [1, 2, 3]
