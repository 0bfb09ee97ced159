"""One real Triton with small models, for the tests of the client."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from gravswell.serving import AsyncClient
from gravswell.serving.triton import EmbeddedTriton

from ..triton.conftest import BATCHED_CONFIG, SCALE_CONFIG, graph, put, scale

TYPES = {
    "h": (TensorProto.FLOAT16, np.float16),
    "l": (TensorProto.INT64, np.int64),
    "b": (TensorProto.BOOL, np.bool_),
    "u": (TensorProto.UINT8, np.uint8),
    "d": (TensorProto.DOUBLE, np.float64),
}


ONE = "instance_group { count: 1 kind: KIND_CPU }\n"
ANY = f'platform: "onnxruntime_onnx"\n{ONE}'


def entries(root: Path) -> Path:
    """``scale`` doubles up to 8 rows of 4 at a time, ``free`` any number; the others are named for what they do."""
    put(root, "scale", scale(), BATCHED_CONFIG + ONE)
    put(root, "free", scale(), SCALE_CONFIG + ONE)
    put(root, "pairs", scale(rows=2), ANY)
    names = [(name, kind, ["n", 3]) for name, (kind, _) in TYPES.items()]
    identities = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in TYPES]
    put(root, "types", graph(identities, names, [(f"{n}_out", kind, shape) for n, kind, shape in names]), ANY)
    text = (TensorProto.STRING, ["n", 1])
    put(root, "text", graph([helper.make_node("Identity", ["s"], ["t"])], [("s", *text)], [("t", *text)]), ANY)
    # Fails for rows that name no row of its table.
    table = helper.make_tensor("table", TensorProto.FLOAT, [10, 2], np.arange(20, dtype=np.float32))
    picks = graph(
        [helper.make_node("Gather", ["table", "i"], ["v"])],
        [("i", TensorProto.INT64, ["n", 1])],
        [("v", TensorProto.FLOAT, ["n", 1, 2])],
        [table],
    )
    put(root, "lookup", picks, ANY)
    sums = [helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0), helper.make_node("Neg", ["x"], ["y"])]
    outputs = [("total", TensorProto.FLOAT, []), ("y", TensorProto.FLOAT, ["n", 4])]
    found = [helper.make_node("NonZero", ["x"], ["hits"])]
    hits = ("hits", TensorProto.INT64, [2, "k"])
    put(root, "hits", graph(found, [("x", TensorProto.FLOAT, ["n", 4])], [hits]), ANY)
    put(root, "total", graph(sums, [("x", TensorProto.FLOAT, ["n", 4])], outputs), ANY)
    return root


@pytest.fixture(scope="session")
def client_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return entries(tmp_path_factory.mktemp("client") / "models")


@pytest.fixture(scope="session")
def server(client_models: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(client_models) as server:
        yield server


@pytest.fixture
async def client(server: EmbeddedTriton) -> AsyncIterator[AsyncClient]:
    before = asyncio.all_tasks()
    async with AsyncClient(server.http_address) as client:
        yield client
    async with asyncio.timeout(30):
        while asyncio.all_tasks() - before - {asyncio.current_task()}:  # noqa: ASYNC110  tasks tell nobody
            await asyncio.sleep(0.01)
