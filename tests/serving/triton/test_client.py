"""``infer_batches`` against one and two real Tritons."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gravswell.errors import InvalidInputError, NotFoundError, UnavailableError
from gravswell.serving import client
from gravswell.serving.client import infer_batches
from gravswell.serving.triton import EmbeddedTriton

DEAD = "127.0.0.1:9"  # the discard service: nobody listens


@pytest.fixture(scope="module")
def scaled(
    triton: EmbeddedTriton,
    open_repository: Path,
    put_entry: Callable[..., Path],
    onnx_scale: Callable[..., onnx.ModelProto],
    batched_config: str,
) -> str:
    """Address of a server whose model ``client`` doubles up to 8 rows of 4 at a time."""
    put_entry(open_repository, "client", onnx_scale(), batched_config)
    triton.load("client")
    return triton.grpc_address


X = np.arange(4 * 101, dtype=np.float32).reshape(101, 4)


async def test_every_row_comes_back_in_its_place_and_is_counted(scaled: str) -> None:
    counted: list[int] = []
    outputs = await infer_batches(scaled, "client", {"x": X}, batch_size=8, on_rows=counted.append)
    assert list(outputs) == ["y"]
    np.testing.assert_array_equal(outputs["y"], 2 * X, strict=True)
    assert (len(counted), sum(counted)) == (13, 101)  # twelve of 8 and one of 5


async def test_a_server_on_this_machine_is_not_behind_the_proxy(scaled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(variable, f"http://{DEAD}")
    outputs = await infer_batches(scaled, "client", {"x": X}, batch_size=8)
    np.testing.assert_array_equal(outputs["y"], 2 * X, strict=True)


async def test_text_goes_and_comes_as_text(
    triton: EmbeddedTriton,
    open_repository: Path,
    put_entry: Callable[..., Path],
    onnx_graph: Callable[..., onnx.ModelProto],
) -> None:
    tensor = (TensorProto.STRING, ["n", 1])
    model = onnx_graph([helper.make_node("Identity", ["s"], ["t"])], [("s", *tensor)], [("t", *tensor)])
    put_entry(open_repository, "client_text", model, 'platform: "onnxruntime_onnx"\n')
    triton.load("client_text")
    words = np.array([[word] for word in ("a", "größer", "", "d", "e")])
    outputs = await infer_batches(triton.grpc_address, "client_text", {"s": words}, batch_size=2)
    assert [value.decode() for (value,) in outputs["t"]] == [word for (word,) in words]


async def test_requests_go_round_the_replicas_and_past_a_dead_one(scaled: str) -> None:
    outputs = await infer_batches([DEAD, scaled, DEAD], "client", {"x": X}, batch_size=8, in_flight=3)
    np.testing.assert_array_equal(outputs["y"], 2 * X)


async def test_a_name_stands_for_each_of_its_addresses(scaled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host, port = scaled.split(":")
    resolve = socket.getaddrinfo

    def replicas(name: str, *args: Any, **options: Any) -> list[Any]:
        hosts = ["127.0.0.9", host, host] if name == "replicas.test" else [name]
        return [row for one in hosts for row in resolve(one, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", replicas)
    assert await client._resolved(f"replicas.test:{port}") == [f"127.0.0.9:{port}", scaled, scaled]
    assert await client._resolved(scaled) == [scaled]
    for left in (f"no-such-host.invalid:{port}", "dns:///x:1", "unix:/socket", f"[::1]:{port}"):
        assert await client._resolved(left) == [left]

    asked = []
    ask = client._ask

    async def noted(channel: Any, *args: Any) -> Any:
        asked.append(channel)
        return await ask(channel, *args)

    monkeypatch.setattr(client, "_ask", noted)
    outputs = await infer_batches(f"replicas.test:{port}", "client", {"x": X}, batch_size=8)
    np.testing.assert_array_equal(outputs["y"], 2 * X)
    assert len(set(asked)) == 2, "one channel for each address, each once"


async def test_no_more_requests_than_asked_are_under_way(scaled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = most = 0
    ask = client._ask

    async def counted(*args: Any) -> Any:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            return await ask(*args)
        finally:
            now -= 1

    monkeypatch.setattr(client, "_ask", counted)
    await infer_batches(scaled, "client", {"x": X}, batch_size=1, in_flight=5)
    assert (now, most) == (0, 5)


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        ({"model": "absent"}, (NotFoundError, UnavailableError), r"'absent' did not answer rows 0 to 7"),
        ({"batch_size": 9}, (InvalidInputError,), r"rows 0 to 8: .*batch-size"),
        ({"inputs": {"x": X.astype(np.int64)}}, (InvalidInputError,), "INT64"),
        ({"inputs": {"x": X.astype(np.float64)}}, (InvalidInputError,), r"'FP64'.*as array\.astype\(np\.float32\)$"),
        ({"inputs": {"x": X[:, 0, None]}}, (InvalidInputError,), "shape"),
        ({"inputs": {"x": X.astype(np.complex64)}}, (InvalidInputError,), "complex64"),
        ({"inputs": {"x": X[:0]}}, (InvalidInputError,), "same number of rows, at least one"),
        ({"inputs": {"x": X, "z": X[1:]}}, (InvalidInputError,), "'z': 100"),
        ({"inputs": {}}, (InvalidInputError,), "at least one input"),
        ({"batch_size": 0}, (InvalidInputError,), "batch_size"),
        ({"batch_size": "8"}, (InvalidInputError,), "whole numbers of at least 1 .* not '8' and 1"),
        ({"in_flight": 1.5}, (InvalidInputError,), "whole numbers of at least 1"),
        ({"addresses": [DEAD, DEAD]}, (UnavailableError,), r"rows 0 to 7"),
    ],
)
async def test_what_fails_is_named_with_its_rows(
    change: dict[str, Any], kind: tuple[type[Exception], ...], told: str, scaled: str
) -> None:
    asked = {"addresses": scaled, "model": "client", "inputs": {"x": X}, "batch_size": 8, "in_flight": 1} | change
    with pytest.raises(kind, match=told):
        await infer_batches(**asked)


async def test_lists_are_arrays_of_the_type_that_numpy_gives_them(scaled: str) -> None:
    with pytest.raises(InvalidInputError, match="FP64"):  # Triton's words, and not Python's of a missing attribute
        await infer_batches(scaled, "client", {"x": X.tolist()}, batch_size=8)
    with pytest.raises(InvalidInputError, match=r"input 'x' is a list that is no array: .*inhomogeneous"):
        await infer_batches(scaled, "client", {"x": [[1.0], [1.0, 2.0]]}, batch_size=8)  # type: ignore[dict-item]


async def test_what_the_caller_s_own_function_raises_comes_as_it_is(scaled: str) -> None:
    def full(_: int) -> None:
        raise OSError("the caller's own")

    with pytest.raises(OSError, match="the caller's own"):
        await infer_batches(scaled, "client", {"x": X}, batch_size=8, on_rows=full)


async def test_a_cancelled_call_leaves_no_task(scaled: str) -> None:
    before = asyncio.all_tasks()
    call = asyncio.create_task(infer_batches(scaled, "client", {"x": np.tile(X, (100, 1))}, batch_size=1))
    await asyncio.sleep(0.2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(30):  # a channel's own tasks end a moment after it
        while asyncio.all_tasks() != before:  # noqa: ASYNC110  they tell nobody
            await asyncio.sleep(0.05)
