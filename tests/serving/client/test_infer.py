"""Data sets through one real Triton: rows, types, batch sizes, and what is refused before anything is sent."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gravswell.errors import GravswellError, InvalidInputError, NotFoundError, UnavailableError
from gravswell.serving import AsyncClient, Client
from gravswell.serving.client import aio
from gravswell.serving.client.run import Run
from gravswell.serving.triton import EmbeddedTriton

from ...quiver.forking import in_a_process
from .conftest import TYPES

DEAD = "127.0.0.1:9"  # the discard service: nobody listens
X = np.arange(4 * 101, dtype=np.float32).reshape(101, 4)


async def test_every_row_comes_back_in_its_place_and_is_counted(client: AsyncClient) -> None:
    counted: list[int] = []
    outputs = await client.infer("scale", {"x": X}, batch_size=8, on_rows=counted.append)
    assert list(outputs) == ["y"]
    np.testing.assert_array_equal(outputs["y"], 2 * X, strict=True)
    assert outputs["y"].flags.writeable
    assert sum(counted) == 101
    assert sum(client.replicas.values()) == 2 + 13  # metadata and config, twelve requests of 8 rows and one of 5


async def test_the_notebook_s_rows_in_a_smaller_number(client: AsyncClient) -> None:
    rows = np.random.default_rng(0).normal(size=(20_000, 4)).astype(np.float32)
    np.testing.assert_array_equal((await client.infer("scale", rows, batch_size=8))["y"], 2 * rows, strict=True)


@pytest.mark.parametrize("batch_size", [1, 3, 64, 1000, None])
async def test_any_batch_size_that_the_model_takes(client: AsyncClient, batch_size: int | None) -> None:
    outputs = await client.infer("free", X, batch_size=batch_size)
    np.testing.assert_array_equal(outputs["y"], 2 * X, strict=True)


async def test_arrays_that_lie_otherwise_than_they_are_sent(client: AsyncClient) -> None:
    for lying in (np.asfortranarray(X), X[::-1], X.astype(">f4"), np.tile(X, (1, 2))[:, 4:]):
        np.testing.assert_array_equal((await client.infer("scale", lying, batch_size=8))["y"], 2 * lying)


async def test_every_type_goes_and_comes_as_it_is(client: AsyncClient) -> None:
    given = {name: np.arange(33).reshape(11, 3).astype(dtype) for name, (_, dtype) in TYPES.items()}
    outputs = await client.infer("types", given, batch_size=4)
    for name, array in given.items():
        np.testing.assert_array_equal(outputs[f"{name}_out"], array, strict=True)


async def test_text_goes_as_text_or_bytes_and_comes_as_bytes(client: AsyncClient) -> None:
    words = ["a", "größer", "", "d", "e"]
    for given in (np.array(words)[:, None], np.array(words, object)[:, None], [[word] for word in words]):
        outputs = await client.infer("text", given, batch_size=2)
        assert [value.decode() for (value,) in outputs["t"]] == words
    outputs = await client.infer("text", np.array([[b"a\x00"]], object), outputs=["t"])
    assert outputs["t"].tolist() == [[b"a\x00"]]


async def test_python_s_numbers_take_the_model_s_type(client: AsyncClient) -> None:
    np.testing.assert_array_equal((await client.infer("scale", X.tolist(), batch_size=8))["y"], 2 * X, strict=True)
    assert (await client.infer("lookup", [[1], [2]]))["v"].tolist() == [[[2, 3]], [[4, 5]]]
    with pytest.raises(InvalidInputError, match=r"input 'i' of model 'lookup' is INT64, .* float64"):
        await client.infer("lookup", [[1.5]])


async def test_a_request_as_it_is_and_what_has_no_rows(client: AsyncClient) -> None:
    answer = await client.request("total", X)
    assert answer.version == "1"
    assert answer.outputs["total"].item() == X.sum()
    with pytest.raises(InvalidInputError, match=r"output 'total' .*its first axis is not the rows; ask for the other"):
        await client.infer("total", X, batch_size=8)
    np.testing.assert_array_equal((await client.infer("total", X, outputs=["y"]))["y"], -X)


async def test_nothing_is_an_answer_and_no_row_a_question(client: AsyncClient) -> None:
    """Triton marks no tensors in an answer whose tensors are all empty."""
    assert (await client.request("hits", np.eye(2, 4, dtype=np.float32))).outputs["hits"].tolist() == [[0, 1], [0, 1]]
    nothing = (await client.request("hits", np.zeros((2, 4), np.float32))).outputs["hits"]
    assert (nothing.shape, nothing.dtype) == ((2, 0), np.int64)
    np.testing.assert_array_equal((await client.request("free", X[:0])).outputs["y"], X[:0], strict=True)
    parts = [part async for part in client.stream("hits", iter([X[:2] * 0, X[:2]]), batch_size=2)]
    assert [part.outputs["hits"].shape for part in parts] == [(2, 0), (2, 7)]


async def test_outputs_that_no_memory_holds(client: AsyncClient) -> None:
    """They are as many rows as there are addresses for."""
    rows = np.broadcast_to(X[:1], (10**13, 4))
    with pytest.raises(InvalidInputError, match=r"output 'y' of model 'free' for 10000000000000 rows: .*; stream\(\)"):
        await client.infer("free", rows, batch_size=8)


async def test_what_the_server_told_of_a_model_is_asked_again(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.model("scale")
    await client.model("scale")
    assert sum(client.replicas.values()) == 2
    monkeypatch.setattr(aio, "MODEL_SECONDS", -1.0)
    await client.model("scale")
    assert sum(client.replicas.values()) == 4


async def test_a_model_of_a_fixed_number_of_rows(client: AsyncClient) -> None:
    np.testing.assert_array_equal((await client.infer("pairs", X[:100]))["y"], 2 * X[:100])
    with pytest.raises(InvalidInputError, match="exactly 2 rows a request, and 101"):
        await client.infer("pairs", X)
    with pytest.raises(InvalidInputError, match="exactly 2 rows a request, not 8"):
        await client.infer("pairs", X, batch_size=8)


async def test_what_a_model_is(client: AsyncClient) -> None:
    model = await client.model("scale")
    assert (model.versions, model.max_batch_size) == (("1",), 8)
    [x], [y] = model.inputs, model.outputs
    assert (x.name, x.datatype, x.shape, y.name) == ("x", "FP32", (-1, 4), "y")
    assert (await client.model("free", 1)).max_batch_size is None


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        ({"model": "absent"}, NotFoundError, r"model 'absent' is not served at \S+: .*unknown model"),
        ({"version": 7}, NotFoundError, r"model 'scale' version 7 is not served"),
        ({"batch_size": 9}, InvalidInputError, r"takes up to 8 rows a request \(its max_batch_size\), not 9"),
        ({"batch_size": 0}, InvalidInputError, "batch_size is a whole number of at least 1, or None, and not 0"),
        ({"batch_size": "8"}, InvalidInputError, "not '8'"),
        ({"inputs": {"x": X.astype(np.int64)}}, InvalidInputError, r"'x' .* is FP32, .* int64: .*astype\(np.float32\)"),
        ({"inputs": {"x": X[:, :1]}}, InvalidInputError, r"has shape \[-1, 4\], its rows first, .* \[101, 1\]"),
        ({"inputs": X[0]}, InvalidInputError, r"the array has \[4\]"),
        ({"inputs": {"x": [[1.0], [1.0, 2.0]]}}, InvalidInputError, "'x' .*a list that is no array of FP32: .*inhomo"),
        (
            {"inputs": [X[:4], X[4:8]]},
            InvalidInputError,
            r"has \[2, 4, 4\]; a list is one array: .*iter\(list\)",
        ),
        ({"inputs": [X[:4], X[4:5]]}, InvalidInputError, r"inhomogeneous .*; a list is one array: .*iter\(list\)"),
        ({"inputs": X[:0]}, InvalidInputError, "no rows"),
        ({"model": "text", "inputs": [["a"], [None]]}, InvalidInputError, "is text .*, and the array is of NoneType: "),
        ({"model": "text", "inputs": X[:, :1]}, InvalidInputError, "is text .*, and the array is of float32: use str"),
        ({"inputs": {"x": X, "z": X}}, InvalidInputError, "model 'scale' has no input 'z'; its inputs: x"),
        ({"inputs": {}}, InvalidInputError, r"model 'scale' needs input 'x', FP32 of shape \[-1, 4\]"),
        ({"outputs": ["y", "z"]}, InvalidInputError, "model 'scale' has no output 'z'; its outputs: y"),
        ({"model": "types"}, InvalidInputError, "has inputs h, l, b, u, d: give each its array"),
    ],
)
async def test_what_cannot_be_right_is_said_before_anything_is_sent(
    change: dict[str, Any], kind: type[Exception], told: str, client: AsyncClient
) -> None:
    with pytest.raises(kind, match=told):
        await client.infer(**({"model": "scale", "inputs": X, "batch_size": 8} | change))


async def test_rows_of_different_numbers(client: AsyncClient) -> None:
    given = {name: np.zeros((5, 3), dtype) for name, (_, dtype) in TYPES.items()}
    with pytest.raises(InvalidInputError, match=r"differ in their number of rows: .*'l': 4"):
        await client.infer("types", given | {"l": given["l"][1:]})


async def test_what_the_model_refuses_is_told_with_its_rows(client: AsyncClient) -> None:
    rows = np.zeros((100, 1), np.int64)
    rows[57] = 10  # the table has ten rows
    with pytest.raises(
        GravswellError, match=r"model 'lookup' refused rows 56 to 59 at 127[^\n]*out of data bounds[^\n]*\Z"
    ):
        await client.infer("lookup", rows, batch_size=4)
    assert (await client.infer("lookup", rows[:57], batch_size=4))["v"].shape == (57, 1, 2)  # it goes on with others


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"servers": []}, "needs a server"),
        ({"servers": "grpc://triton:8001"}, "'grpc://triton:8001' is no server: write host:port of its HTTP"),
        ({"servers": "triton:http"}, "is no server"),
        ({"servers": "http://user:password@triton"}, "is no server"),
        ({"in_flight": 0}, "in_flight is a whole number of at least 1, and not 0"),
        ({"retry_for": -1}, "retry_for is a number of seconds"),
        ({"headers": {"X": "a\r\nY: b"}}, "header 'X' cannot be sent"),
    ],
)
def test_options_that_cannot_be_right(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        Client(**({"servers": DEAD} | arguments))


async def test_nobody_there_and_the_wrong_port(server: EmbeddedTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AsyncClient([DEAD, "127.0.0.2:9"], retry_for=0.3) as nobody:
        with pytest.raises(UnavailableError, match=r"model 'm' did not answer at 127\.0\.0\.[12]:9: .*tried for 0.3 s"):
            await nobody.infer("m", X)
    async with AsyncClient("no-such-host.invalid:8000", retry_for=0.3) as nowhere:
        with pytest.raises(UnavailableError, match=r"is nowhere: no-such-host.invalid cannot be resolved.*; see"):
            await nowhere.infer("m", X)
    async with AsyncClient(server.grpc_address) as grpc:
        with pytest.raises(InvalidInputError, match=r"does not speak HTTP/1.1 .*: give Triton's HTTP port, 8000"):
            await grpc.infer("scale", X)
    async with AsyncClient(DEAD, retry_for=0) as nobody:
        for _ in range(3):
            with pytest.raises(UnavailableError, match=r"did not answer at 127\.0\.0\.1:9: Connection refused; see"):
                await nobody.model("m")
        assert [replica.busy for replica in nobody._replicas.all] == [0]
    monkeypatch.setenv("http_proxy", f"http://{DEAD}")
    async with AsyncClient(f"http://{server.http_address}/") as direct:
        assert (await direct.infer("scale", X))["y"].shape == X.shape


async def test_no_more_requests_than_asked_are_under_way(
    server: EmbeddedTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way: list[int] = []
    send = Run._send

    def noted(run: Run, *asked: Any) -> None:
        send(run, *asked)
        under_way.append(len(run._busy) + len(run._opening))

    monkeypatch.setattr(Run, "_send", noted)
    async with AsyncClient(server.http_address, in_flight=5) as few:
        await few.infer("scale", X, batch_size=1)
    assert max(under_way) == 5
    under_way.clear()
    async with AsyncClient(server.http_address, max_bytes=1) as poor:
        await poor.infer("scale", X, batch_size=1)
    assert max(under_way) == 1


async def test_calls_at_once_share_a_client(client: AsyncClient) -> None:
    calls = [client.infer("scale", X + k, batch_size=1) for k in range(4)]
    for k, outputs in enumerate(await asyncio.gather(*calls)):
        np.testing.assert_array_equal(outputs["y"], 2 * (X + k))


async def test_a_small_call_does_not_wait_for_a_large_one(client: AsyncClient) -> None:
    large = asyncio.create_task(client.infer("scale", np.tile(X, (1000, 1)), batch_size=1))
    while not sum(client.replicas.values()) > 100:  # noqa: ASYNC110  until all connections are under way
        await asyncio.sleep(0.01)
    np.testing.assert_array_equal((await client.infer("scale", X, batch_size=8))["y"], 2 * X)
    assert (await client.model("free")).name == "free"
    assert not large.done()
    large.cancel()


async def test_what_the_caller_s_own_function_raises_comes_as_it_is(client: AsyncClient) -> None:
    def full(_: int) -> None:
        raise OSError("the caller's own")

    left = threading.Event()

    def source() -> Iterator[Any]:
        try:
            while True:
                yield X[:8]
        finally:
            left.set()

    for inputs in (X, source()):
        with pytest.raises(OSError, match="the caller's own"):
            await client.infer("scale", inputs, batch_size=8, on_rows=full)
    assert await asyncio.to_thread(left.wait, 60)


async def test_a_cancelled_call_leaves_nothing_behind(client: AsyncClient) -> None:
    call = asyncio.create_task(client.infer("scale", np.tile(X, (1000, 1)), batch_size=1))
    while not sum(client.replicas.values()) > 10:  # noqa: ASYNC110  until it is in the middle
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    np.testing.assert_array_equal((await client.infer("scale", X, batch_size=8))["y"], 2 * X)


def test_blocking_in_any_thread_and_again_after_a_close(server: EmbeddedTriton) -> None:
    counted: list[tuple[int, str]] = []
    client, before = Client(server.http_address), set(threading.enumerate())
    for _ in range(2):
        with client:
            outputs = client.infer(
                "scale", X, batch_size=8, on_rows=lambda n: counted.append((n, threading.current_thread().name))
            )
            np.testing.assert_array_equal(outputs["y"], 2 * X, strict=True)
            assert client.request("total", X).outputs["y"].shape == X.shape
            assert client.model("scale").max_batch_size == 8
    assert sum(n for n, _ in counted) == 202
    assert {name for _, name in counted} == {threading.current_thread().name}
    assert "gravswell-client" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_a_close_is_told_to_who_waits(server: EmbeddedTriton) -> None:
    client, gate = Client(server.http_address), threading.Event()

    def source() -> Iterator[Any]:
        yield X
        gate.wait(60)

    parts = client.stream("scale", source(), batch_size=8, max_wait=0)
    assert next(parts).start == 0
    threading.Timer(0.2, client.close).start()
    with pytest.raises(UnavailableError, match="the client was closed while it asked"):
        list(parts)
    gate.set()
    assert list(parts) == []
    with client:
        np.testing.assert_array_equal(client.infer("scale", X)["y"], 2 * X)
    for thread in threading.enumerate():
        if thread.name == "gravswell-source":
            thread.join(60)
            assert not thread.is_alive()


def test_a_process_that_is_forked_off_has_a_client_too(server: EmbeddedTriton) -> None:
    with Client(server.http_address) as client:
        client.infer("scale", X)

        def asks() -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest's handler would not end it
            signal.alarm(120)  # where it hangs
            np.testing.assert_array_equal(client.infer("scale", X)["y"], 2 * X)
            client.close()

        assert in_a_process(asks) == 0
        np.testing.assert_array_equal(client.infer("scale", X)["y"], 2 * X)


def test_ctrl_c_ends_a_blocking_call(server: EmbeddedTriton) -> None:
    with Client(server.http_address) as client:
        client.model("scale")
        timer, rows = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)), np.tile(X, (20_000, 1))

        def asks() -> None:
            timer.start()
            client.infer("scale", rows, batch_size=1)

        with pytest.raises(KeyboardInterrupt):
            asks()
        timer.join()
        np.testing.assert_array_equal(client.infer("scale", X)["y"], 2 * X)
