"""Partitions on real servers: as one entry on one Triton, and as ranks on a Triton each behind one client."""

import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from gravswell import quiver as qv
from gravswell.errors import InvalidInputError, NotFoundError, UnavailableError
from gravswell.partitions import RankedClient, partition
from gravswell.quiver.exporters.proof import cpu_session, run
from gravswell.quiver.golden import compare, load_golden
from gravswell.quiver.manifest import GOLDEN
from gravswell.serving import Client
from gravswell.serving.triton import EmbeddedTriton
from gravswell.serving.triton.ports import ANY_FREE, held_ports

from ..networks import model
from .graphs import gated, mlp

PATIENCE = 300.0
"""Seconds for a server to start, on a machine that does much else."""

RANKS = 8
"""Of the product of matrices, on two servers with four of them each."""


NET = mlp(16, 64, 8)


def product() -> ModelProto:
    """``y = -(x @ w)`` of 96 columns by 16, the weights all 0.5."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"], name="matmul"), helper.make_node("Neg", ["p"], ["y"])]
    shapes = [("x", TensorProto.FLOAT, ["rows", 96])], [("y", TensorProto.FLOAT, ["rows", 16])]
    return model(nodes, *shapes, {"w": np.full((96, 16), 0.5, np.float32)})


def labelled() -> ModelProto:
    """``y`` of rows ``x`` of four, beside texts ``label`` that no rank reads and ``name`` gives back."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Identity", ["label"], ["name"])]
    inputs = [("x", TensorProto.FLOAT, ["rows", 4]), ("label", TensorProto.STRING, ["rows"])]
    outputs = [("y", TensorProto.FLOAT, ["rows", 4]), ("name", TensorProto.STRING, ["rows"])]
    return model(nodes, inputs, outputs, {"w": np.eye(4, dtype=np.float32)})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``repo``, with four partitions; and the parts of each in a folder of its name."""
    root = tmp_path_factory.mktemp("ranks")
    for name, proto, ranks, by in (
        ("net", NET, 2, "row"),
        ("matmul-0", product(), RANKS, "column"),
        ("matmul-1", product(), RANKS, "row"),
        ("labelled", labelled(), 2, "column"),
    ):
        with partition(proto, ranks, by, name=name) as made:  # type: ignore[arg-type]
            made.save(root / name)
            made.publish(root / "repo", devices=range(ranks))
    with partition(gated(), 2, name="slices") as made:
        made.publish(root / "repo")
    return root


@pytest.fixture(scope="module")
def first(root: Path) -> Iterator[EmbeddedTriton]:
    """Rank 0 of ``net`` and the first half of the others; and two whole partitions."""
    products = [f"matmul-{graph}-rank-{rank}" for graph in (0, 1) for rank in range(RANKS // 2)]
    models = ["net", "slices", "net-rank-0", "labelled-rank-0", "labelled-rank-1", *products]
    with EmbeddedTriton(root / "repo", models=models, start_timeout=PATIENCE) as server:
        yield server


@pytest.fixture(scope="module")
def second(root: Path) -> Iterator[EmbeddedTriton]:
    """The second half of the products' ranks."""
    models = [f"matmul-{graph}-rank-{rank}" for graph in (0, 1) for rank in range(RANKS // 2, RANKS)]
    with EmbeddedTriton(root / "repo", models=models, start_timeout=PATIENCE) as server:
        yield server


def test_one_entry_on_one_server(root: Path, first: EmbeddedTriton) -> None:
    """Two slices that chain, and two rows that add up, each as one model with the whole model's own answers."""
    with Client(first.http_address) as client:
        for entry in ("slices", "net"):
            samples = load_golden(root / "repo" / entry / "1" / GOLDEN)  # the whole model's, as they were published
            assert len(samples) >= 3
            for sample in samples:
                compare(sample.outputs, client.request(entry, sample.inputs).outputs)
    with (
        pytest.raises(NotFoundError),  # a part is the partition's own, unless it is served by name
        Client(first.http_address, retry_for=0) as client,
    ):
        client.model("net-combine")


def test_each_rank_has_its_gpu(root: Path) -> None:
    models = qv.ModelRepository(root / "repo").models
    assert [list(models[f"net-rank-{rank}"].config.instance_group[0].gpus) for rank in range(2)] == [[0], [1]]


def test_the_product_over_eight_ranks_and_two_graphs(root: Path, first: EmbeddedTriton, second: EmbeddedTriton) -> None:
    """Of ones, with x doubled before: -96 and -48, by columns that are concatenated and by rows that are added."""
    servers = [first.http_address] * (RANKS // 2) + [second.http_address] * (RANKS // 2)
    ones = np.ones((128, 96), np.float32)
    with RankedClient(root / "matmul-0", servers) as x, RankedClient(root / "matmul-1", servers) as z:
        answers = x.infer({"x": ones + ones})["y"], z.infer(ones)["y"]
    for answer, value in zip(answers, (-96, -48), strict=True):
        assert (answer.shape, answer.dtype) == ((128, 16), np.float32)
        assert (answer == value).all()


def test_lists_are_what_arrays_of_the_inputs_types_are(root: Path, first: EmbeddedTriton) -> None:
    with RankedClient(root / "labelled", [first.http_address] * 2) as client:
        answer = client.infer({"x": [[1, 2, 3, 4], [5, 6, 7, 8]], "label": ["one", "two"]})
        assert answer["y"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
        assert answer["name"].tolist() == ["one", "two"]


def test_a_rank_that_dies_fails_the_call_until_it_is_back(root: Path, first: EmbeddedTriton) -> None:
    rows = {"x": np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)}
    whole = run(cpu_session(NET.SerializeToString()), rows)
    with held_ports("127.0.0.1", ANY_FREE) as ports:  # also while no server is there: somebody else could have one
        with EmbeddedTriton(root / "repo", models=["net-rank-1"], ports=ports, start_timeout=PATIENCE) as server:
            address = server.http_address
            client = RankedClient(root / "net", [first.http_address, address], retry_for=0.5)
            compare(whole, client.infer(rows))
            os.kill(server.process.pid, signal.SIGKILL)
            with pytest.raises(UnavailableError, match=rf"net needs all its 2 ranks, and 1 did not.*rank 1 .{address}"):
                client.infer(rows)
        with EmbeddedTriton(root / "repo", models=["net-rank-1"], ports=ports, start_timeout=PATIENCE), client:
            compare(whole, client.infer(rows))


def test_a_rank_that_loads_its_part_again_is_waited_for(root: Path, first: EmbeddedTriton) -> None:
    """Its server was started again, say, and answers already. A part that was never there may be a wrong name."""
    rows = {"x": np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)}
    whole = run(cpu_session(NET.SerializeToString()), rows)
    with EmbeddedTriton(root / "repo", model_control="explicit", start_timeout=PATIENCE) as server:
        servers = [first.http_address, server.http_address]
        server.load("net-rank-1")
        with (
            ThreadPoolExecutor() as threads,
            RankedClient(root / "net", servers, retry_for=PATIENCE) as client,
            RankedClient(root / "net", servers, retry_for=0.5) as impatient,
            RankedClient(root / "net", servers, retry_for=PATIENCE) as stranger,
        ):
            for one in (client, impatient):
                compare(whole, one.infer(rows))
            server.unload("net-rank-1")
            asked = threads.submit(client.infer, rows)
            with pytest.raises((NotFoundError, UnavailableError), match=r"rank 1 .*net-rank-1"):
                impatient.infer(rows)
            with pytest.raises(NotFoundError, match=r"rank 1 .*net-rank-1"):
                threads.submit(stranger.infer, rows).result(PATIENCE / 2)
            assert not asked.done()
            server.load("net-rank-1")
            compare(whole, asked.result(PATIENCE))


def test_ranks_of_two_partitions_are_not_put_together(root: Path, tmp_path: Path) -> None:
    """One server has gone over to the next partition, the other has not."""
    rows = {"x": np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)}
    expected = []
    made = []
    for k in (1, 2):
        net = mlp(16, 64, 8)
        for weight in net.graph.initializer:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * k, weight.name))
        expected.append(run(cpu_session(net.SerializeToString()), rows))
        with partition(net, 2, "row", name="rolled") as parts:
            parts.save(tmp_path / f"v{k}")
            made.append(parts.publish(tmp_path / "repo"))
        if k == 1:  # what the first server still has
            shutil.copytree(tmp_path / "repo", tmp_path / "before")
    assert [one.parts["rolled-rank-0"] for one in made] == [1, 2]
    qv.ModelRepository(tmp_path / "repo").models["rolled-rank-1"].config.set({"version_policy.all": "{}"})
    with (
        EmbeddedTriton(tmp_path / "before", models=["rolled-rank-0"], start_timeout=PATIENCE) as old,
        EmbeddedTriton(tmp_path / "repo", models=["rolled-rank-1"], start_timeout=PATIENCE) as new,
    ):
        servers = [old.http_address, new.http_address]
        with RankedClient(tmp_path / "v1", servers) as client:  # the newer server has both
            compare(expected[0], client.infer(rows))
        with (
            RankedClient(tmp_path / "v2", servers, retry_for=0) as client,
            pytest.raises(NotFoundError, match=r"2 ranks, and 1 did not answer: rank 0 "),
        ):
            client.infer(rows)
        (tmp_path / "v1" / "published.json").unlink()
        with pytest.raises(InvalidInputError, match=r"which versions of rolled .* is not known .*no published.json"):
            RankedClient(tmp_path / "v1", servers)
        with RankedClient(tmp_path / "v1", servers, versions=made[0].parts) as client:
            compare(expected[0], client.infer(rows))


def test_what_a_ranked_client_refuses(root: Path, first: EmbeddedTriton, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="net has 2 ranks, and 1 servers are named"):
        RankedClient(root / "net", [first.http_address])
    with pytest.raises(NotFoundError, match=r"partition.json: gravswell partition --folder FOLDER writes it$"):
        RankedClient(tmp_path, [])
    with pytest.raises(InvalidInputError, match="the versions of net lack net-rank-1: name that of each rank's entry"):
        RankedClient(root / "net", [first.http_address] * 2, versions={"net-rank-0": 1})
    with pytest.raises(InvalidInputError, match=r"which versions of other are .*it was published as net"):
        RankedClient(root / "net", [first.http_address] * 2, name="other")
    with RankedClient(root / "net", [first.http_address] * 2, retry_for=0) as client:
        with pytest.raises(InvalidInputError, match="model 'net' has no input 'y'; its inputs: x"):
            client.infer({"y": np.ones(1)})
        with pytest.raises(NotFoundError, match=r"rank 1 .*net-rank-1"):  # it is served on neither
            client.infer(np.ones((2, 16), np.float32))
