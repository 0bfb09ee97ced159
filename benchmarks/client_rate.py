"""Our client beside tritonclient's own loop, at eight rows a request on the embedded Triton, in one run.

``python benchmarks/client_rate.py [--rows 100000] [--rounds 5] [--output json]``

The ways of asking take turns, round by round, against the same server, so that a noisy machine disturbs all of them
alike; rows/s are medians over the rounds, and every row of every answer is compared with ONNX Runtime's. Processor time
is the asking process's own for one request: it says what a way costs even where the machine is shared.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from embedded_server import DIRECT, network, repository
from numpy.typing import NDArray
from rich.table import Table
from tritonclient.grpc import InferenceServerClient, InferInput, service_pb2

from gravswell.cli.output import Output, emit
from gravswell.serving import Client
from gravswell.serving.triton import EmbeddedTriton, ensure_triton

BATCH, IN_FLIGHT = 8, 32
PEER = "tritonclient: async_infer, 32 in flight"
OURS = "gravswell: infer"
BAR = 2.5

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


def our_stream(client: Client) -> Way:
    """The same rows from a generator of single batches."""

    def ask(model: str, rows: Rows) -> Rows:
        def batches() -> Iterator[Rows]:
            for start in range(0, len(rows), BATCH):
                yield rows[start : start + BATCH]

        return np.concatenate([part.outputs["y"] for part in client.stream(model, batches(), batch_size=BATCH)])

    return ask


def measure(rows: int, rounds: int) -> dict[str, Any]:
    """Rows/s and microseconds of processor time for a request, by model and way, and their ratio to the peer."""
    ensure_triton()
    graph = network()
    x = np.random.default_rng(0).normal(size=(rows // BATCH * BATCH, 64)).astype(np.float32)
    expected = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    figures: dict[str, Any] = {"rows": len(x), "rounds": rounds, "models": {}}
    with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as scratch:
        folder = repository(Path(scratch), graph)
        with EmbeddedTriton(folder) as server, Client(server.http_address, in_flight=IN_FLIGHT) as client:
            ways = {
                PEER: tritonclient_loop(server.grpc_address),
                "gRPC, requests built by hand": prepared_grpc(server.grpc_address),
                OURS: ours(client, BATCH),
                "gravswell: stream": our_stream(client),
                "gravswell: infer, batch size left to it": ours(client, None),
            }
            for model in ("plain", "batching"):
                taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
                for _ in range(rounds):
                    for way, ask in ways.items():
                        began, spent = time.perf_counter(), time.process_time()
                        y = ask(model, x)
                        seconds, spent = time.perf_counter() - began, time.process_time() - spent
                        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4, err_msg=way)
                        taken[way].append((len(x) / seconds, spent / (len(x) / BATCH) * 1e6))
                peer = statistics.median(rate for rate, _ in taken[PEER])
                figures["models"][model] = {
                    way: {
                        "rowsPerSecond": round(rate := statistics.median(rate for rate, _ in figure)),
                        "ratioToPeer": round(rate / peer, 2),
                        "cpuMicrosecondsPer8Rows": round(statistics.median(spent for _, spent in figure)),
                        "allRounds": [round(rate) for rate, _ in figure],
                    }
                    for way, figure in taken.items()
                }
    figures["bar"] = {"atLeast": BAR, "reached": figures["models"]["plain"][OURS]["ratioToPeer"]}
    return figures


def table(figures: dict[str, Any]) -> Table:
    """The figures for a person."""
    shown = Table(title=f"{figures['rows']:,} rows, {BATCH} in a request, every one checked", title_justify="left")
    shown.add_column("rows/s (x peer; processor time for 8 rows)")
    for model in figures["models"]:
        shown.add_column({"plain": "no scheduler", "batching": "dynamic batching"}[model], justify="right")
    for way in figures["models"]["plain"]:
        found = [by[way] for by in figures["models"].values()]
        shown.add_row(
            way,
            *(f"{f['rowsPerSecond']:,} (x {f['ratioToPeer']}; {f['cpuMicrosecondsPer8Rows']} µs)" for f in found),
        )
    return shown


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    figures = measure(options.rows, options.rounds)
    emit(Output(options.output), figures, lambda: table(figures))


if __name__ == "__main__":
    main()
