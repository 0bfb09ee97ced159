"""Our client beside tritonclient's own loop, at eight rows a request on the embedded Triton, in one run.

``python benchmarks/client_rate.py [--rows 60000] [--rounds 5] [--output json]``

The ways of asking take turns, round by round, against the same server, so that a noisy machine disturbs all of them
alike; rows/s are medians over the rounds, and every row of every answer is compared with ONNX Runtime's. Beside them is
the server's own limit, as far as a client in Python can tell: one request that was packed once, over and over, whose
answers nobody reads; and once more with its input in a region of the system's shared memory, so that the request only
names it. No client is faster than those at eight rows a request: where the server itself stays below the bar, only
larger requests, or its scheduler, reach that, and our client is held to nine tenths of the server's limit. Our client
is asked with several numbers of connections. Processor time is that of the asking process and of the server's processes
for one request: it says what a way costs even where the machine is shared, and who the limit is.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from bars import at_least, hold
from embedded_server import CONFIG, DIRECT, network, repository
from numpy.typing import NDArray
from rich.table import Table
from tritonclient.grpc import InferenceServerClient, InferInput, service_pb2
from tritonclient.utils import shared_memory

from gravswell.cli.output import Output, emit
from gravswell.serving import Client
from gravswell.serving.client import packed
from gravswell.serving.triton import EmbeddedTriton, ensure_triton
from gravswell.tuning.load import drive

BATCH, IN_FLIGHT = 8, 32
OTHERS_IN_FLIGHT = (8, 16, 64)
PEER = "tritonclient: async_infer, 32 in flight"
OURS = "gravswell: infer"
LIMIT = "the same request over and over, unread"
SHARED = "the same, its input in shared memory"
REGION = "gravswell-benchmark"
BAR = 2.5
OF_LIMIT = 0.9
"""What our client must reach of the server's own limit where that is below the bar."""
MODELS = {"plain": "no scheduler", "pair": "two instances", "batching": "dynamic batching"}
"""Names in the repository, and what is special of each: they are the same network."""

Rows = NDArray[np.float32]
Way = Callable[[str, Rows], Rows]


def tritonclient_loop(address: str) -> Way:
    """What its documentation shows: a new input and a callback for each request."""

    def ask(model: str, rows: Rows) -> Rows:
        out = np.empty((len(rows), 1), np.float32)
        free, failures = threading.Semaphore(IN_FLIGHT), []
        with InferenceServerClient(address, channel_args=DIRECT) as client:
            for start in range(0, len(rows), BATCH):
                batch = rows[start : start + BATCH]
                tensor = InferInput("x", list(batch.shape), "FP32")
                tensor.set_data_from_numpy(batch)

                def answered(result: Any, error: Any, start: int = start) -> None:
                    if error:
                        failures.append(error)
                    else:
                        y = result.as_numpy("y")
                        out[start : start + len(y)] = y
                    free.release()

                free.acquire()
                client.async_infer(model, [tensor], answered)
            for _ in range(IN_FLIGHT):
                free.acquire()
        if failures:
            raise failures[0]
        return out

    return ask


def prepared_grpc(address: str) -> Way:
    """gRPC at its cheapest from Python: requests put together as bytes, answers cut out of theirs, four channels."""

    def ask(model: str, rows: Rows) -> Rows:
        out = np.empty((len(rows), 1), np.float32)
        data, answers = memoryview(rows).cast("B"), memoryview(out).cast("B")
        size, answer = BATCH * rows.shape[1] * 4, BATCH * 4
        request = service_pb2.ModelInferRequest(model_name=model)
        tensor = request.inputs.add(name="x", datatype="FP32")
        tensor.shape.extend([BATCH, rows.shape[1]])
        request.raw_input_contents.append(bytes(size))
        head = request.SerializeToString()[:-size]  # the tensor is the last field
        options = [*DIRECT, ("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.insecure_channel(address, options) for _ in range(4)]
        calls = [one.unary_unary("/inference.GRPCInferenceService/ModelInfer", None, None) for one in channels]
        free = threading.Semaphore(IN_FLIGHT)
        for k in range(len(rows) // BATCH):
            free.acquire()
            future = calls[k % 4].future(head + data[k * size : (k + 1) * size])

            def answered(done: Any, k: int = k) -> None:
                answers[k * answer : (k + 1) * answer] = done.result()[-answer:]
                free.release()

            future.add_done_callback(answered)
        for _ in range(IN_FLIGHT):
            free.acquire()
        for channel in channels:
            channel.close()
        return out

    return ask


def ours(client: Client, batch_size: int | None) -> Way:
    """A data set in memory."""
    return lambda model, rows: client.infer(model, rows, batch_size=batch_size)["y"]


def our_stream(client: Client, batch_size: int | None) -> Way:
    """The same rows from a generator of batches of eight."""

    def ask(model: str, rows: Rows) -> Rows:
        def batches() -> Iterator[Rows]:
            for start in range(0, len(rows), BATCH):
                yield rows[start : start + BATCH]

        return np.concatenate([part.outputs["y"] for part in client.stream(model, batches(), batch_size=batch_size)])

    return ask


def server_seconds(pid: int) -> float:
    """Processor time of a process and of all below it: the server and its models' processes."""
    folder = Path(f"/proc/{pid}")
    *_, user, system = (folder / "stat").read_text().rpartition(")")[2].split()[:13]
    below = " ".join(listed.read_text() for listed in folder.glob("task/*/children")).split()
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") + sum(server_seconds(int(child)) for child in below)


@contextmanager
def shared(address: str, batch: Rows) -> Iterator[None]:
    """Let the server at ``address`` (of gRPC) know a region of the system's shared memory in which ``batch`` lies."""
    key = f"/{REGION}-{os.getpid()}"
    region = shared_memory.create_shared_memory_region(REGION, key, batch.nbytes)
    try:
        shared_memory.set_shared_memory_region(region, [batch])
        with InferenceServerClient(address, channel_args=DIRECT) as client:
            client.register_system_shared_memory(REGION, key, batch.nbytes)
            yield
            client.unregister_system_shared_memory(REGION)
    finally:
        shared_memory.destroy_shared_memory_region(region)


def naming(address: str, model: str, batch: Rows) -> bytes:
    """The request for what lies in that region, as it goes over the wire; its answer comes as that of any other."""
    place = {"shared_memory_region": REGION, "shared_memory_byte_size": batch.nbytes}
    tensor = {"name": "x", "shape": [*batch.shape], "datatype": "FP32", "parameters": place}
    body = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    lines = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len(body)}\r\n\r\n"
    return lines.encode() + body


def limit(address: str, request: bytes, batch: Rows) -> float:
    """Rows/s of one request over and over."""
    load = asyncio.run(drive(address, request, concurrency=IN_FLIGHT, seconds=2, warm_up=0.2))
    return load.answered * len(batch) / load.seconds


def measure(rows: int, rounds: int) -> dict[str, Any]:
    """Rows/s and microseconds of processor time for a request, by model and way, and their ratio to the peer."""
    ensure_triton()
    graph = network()
    x = np.random.default_rng(0).normal(size=(rows // BATCH * BATCH, 64)).astype(np.float32)
    expected = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    figures: dict[str, Any] = {"rows": len(x), "rounds": rounds, "models": {}, "limits": {}}
    with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as scratch:
        folder = repository(Path(scratch), graph)
        (folder / "pair/1").mkdir(parents=True)
        (folder / "pair/1/model.onnx").write_bytes(graph)
        two = "instance_group { count: 2 kind: KIND_CPU }"
        (folder / "pair/config.pbtxt").write_text(f'name: "pair"\n{CONFIG}{two}\n')
        with ExitStack() as stack:
            server = stack.enter_context(EmbeddedTriton(folder))
            pid, address, first = server.process.pid, server.http_address, x[:BATCH]
            client = stack.enter_context(Client(address, in_flight=IN_FLIGHT))
            others = {n: stack.enter_context(Client(address, in_flight=n)) for n in OTHERS_IN_FLIGHT}
            stack.enter_context(shared(server.grpc_address, first))
            ways = {
                PEER: tritonclient_loop(server.grpc_address),
                "gRPC, requests built by hand": prepared_grpc(server.grpc_address),
                OURS: ours(client, BATCH),
                **{f"{OURS}, {n} in flight": ours(other, BATCH) for n, other in others.items()},
                "gravswell: stream": our_stream(client, BATCH),
                "gravswell: stream of batches of 8, request size left to it": our_stream(client, None),
                "gravswell: infer, batch size left to it": ours(client, None),
            }
            for model in MODELS:
                taken: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
                limits: dict[str, list[float]] = {LIMIT: [], SHARED: []}
                for _ in range(rounds):
                    for way, ask in ways.items():
                        began, spent, served = time.perf_counter(), time.process_time(), server_seconds(pid)
                        y = ask(model, x)
                        seconds, spent = time.perf_counter() - began, time.process_time() - spent
                        served = server_seconds(pid) - served
                        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4, err_msg=way)
                        requests = len(x) / BATCH
                        taken[way].append((len(x) / seconds, spent / requests * 1e6, served / requests * 1e6))
                    limits[LIMIT].append(limit(address, packed(address, model, "", {"x": first}), first))
                    limits[SHARED].append(limit(address, naming(address, model, first), first))
                peer = statistics.median(rate for rate, *_ in taken[PEER])
                figures["models"][model] = {
                    way: {
                        "rowsPerSecond": round(rate := statistics.median(rate for rate, *_ in figure)),
                        "ratioToPeer": round(rate / peer, 2),
                        "cpuMicrosecondsPer8Rows": round(statistics.median(spent for _, spent, _ in figure)),
                        "serverCpuMicrosecondsPer8Rows": round(statistics.median(served for *_, served in figure)),
                        "allRounds": [round(rate) for rate, *_ in figure],
                    }
                    for way, figure in taken.items()
                }
                most = statistics.median(limits[LIMIT])
                figures["limits"][model] = {
                    "rowsPerSecond": round(most),
                    "reached": round(figures["models"][model][OURS]["rowsPerSecond"] / most, 2),
                    "allRounds": [round(rate) for rate in limits[LIMIT]],
                    "inSharedMemory": round(statistics.median(limits[SHARED])),
                    "inSharedMemoryAllRounds": [round(rate) for rate in limits[SHARED]],
                }
    reached = {model: by[OURS]["ratioToPeer"] for model, by in figures["models"].items()}
    peers = {model: by[PEER]["rowsPerSecond"] for model, by in figures["models"].items()}
    for model, most in figures["limits"].items():
        most["ratioToPeer"] = round(most["rowsPerSecond"] / peers[model], 2)
    bars = {model: bar_of(most["ratioToPeer"]) for model, most in figures["limits"].items()}
    met = {model: ratio >= bars[model] for model, ratio in reached.items()}
    figures["bar"] = {"atLeast": bars, "reached": reached, "met": met}
    return figures


def bar_of(limit: float) -> float:
    """What our client is held to, times the peer, where the server answers ``limit`` times what the peer gets."""
    return BAR if limit >= BAR else round(OF_LIMIT * limit, 2)


def missed(figures: dict[str, Any]) -> list[str]:
    """A line for each model with which our client misses its bar."""
    bars, reached = figures["bar"]["atLeast"], figures["bar"]["reached"].items()
    what = f"{{}}: rows/s of {OURS!r}, times those of {PEER!r}"
    return [line for model, ratio in reached for line in at_least(what.format(MODELS[model]), ratio, bars[model])]


def table(figures: dict[str, Any]) -> Table:
    """The figures for a person."""
    shown = Table(title=f"{figures['rows']:,} rows, {BATCH} in a request, every one checked", title_justify="left")
    shown.add_column("rows/s (x peer; processor time of client and server for 8 rows)")
    for model in figures["models"]:
        shown.add_column(MODELS[model], justify="right")
    for way in figures["models"]["plain"]:
        found = [by[way] for by in figures["models"].values()]
        shown.add_row(
            way,
            *(
                f"{f['rowsPerSecond']:,} (x {f['ratioToPeer']}; {f['cpuMicrosecondsPer8Rows']} + "
                f"{f['serverCpuMicrosecondsPer8Rows']} µs)"
                for f in found
            ),
        )
    limits = (
        f"{one['rowsPerSecond']:,} (x {one['ratioToPeer']}; infer: {one['reached']:.0%} of it)"
        for one in figures["limits"].values()
    )
    shown.add_row(LIMIT, *limits)
    shown.add_row(
        SHARED,
        *(
            f"{one['inSharedMemory']:,} ({one['inSharedMemory'] / one['rowsPerSecond']:.0%} of that)"
            for one in figures["limits"].values()
        ),
    )
    bar = figures["bar"]
    shown.add_row(
        f"infer, bar x {BAR}, or {OF_LIMIT} of the server's limit where that is below it",
        *(
            f"{ratio}: {'met' if bar['met'][model] else 'missed'} ({bar['atLeast'][model]})"
            for model, ratio in bar["reached"].items()
        ),
    )
    return shown


def main() -> None:
    """Measure and print; exits with 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    figures = measure(options.rows, options.rounds)
    emit(Output(options.output), figures, lambda: table(figures))
    hold(missed(figures))


if __name__ == "__main__":
    main()
