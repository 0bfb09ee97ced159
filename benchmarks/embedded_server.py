"""The embedded Triton beside ONNX Runtime in process: start-up time, and rows/s of an MLP 64 → 256 → 1, in one run.

``python benchmarks/embedded_server.py [--seconds 1.5] [--rounds 3] [--output json]``

The ways of asking take turns, round by round, so that a noisy machine disturbs all of them alike; each figure is the
median over the rounds. Compare the ratios: rows/s depend on the machine and on who shares it.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from rich.table import Table
from tritonclient.grpc import InferenceServerClient, InferInput

from gravswell.cli.output import Output, emit
from gravswell.serving import Client
from gravswell.serving.triton import EmbeddedTriton, ensure_triton

BATCHES = (8, 512)
IN_PROCESS = "ONNX Runtime in process, one thread"

DIRECT = [("grpc.enable_http_proxy", 0)]
"""What tritonclient's channels need: the server is on this machine, which no proxy reaches."""

CONFIG = """\
platform: "onnxruntime_onnx"
max_batch_size: 1024
input { name: "x" data_type: TYPE_FP32 dims: 64 }
output { name: "y" data_type: TYPE_FP32 dims: 1 }
"""


def network() -> bytes:
    """The graph, with random weights."""
    random = np.random.default_rng(0)
    shapes = {"w1": (64, 256), "b1": (256,), "w2": (256, 1), "b2": (1,)}
    weights = [numpy_helper.from_array(random.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", 64), ("y", 1)))
    graph = helper.make_graph(nodes, "mlp", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def repository(root: Path, model: bytes) -> Path:
    """Two entries of the same graph: without a scheduler, and with dynamic batching."""
    for name, more in (("plain", ""), ("batching", "dynamic_batching {}\n")):
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.onnx").write_bytes(model)
        (root / name / "config.pbtxt").write_text(f'name: "{name}"\n{CONFIG}{more}')
    return root


def start_up(folder: Path, models: list[str]) -> float:
    """Seconds from nothing to every model ready; the installation is there already."""
    started = time.perf_counter()
    with EmbeddedTriton(folder, models=models):
        return time.perf_counter() - started


def repeated(call: Callable[[], None], rows: int, seconds: float) -> float:
    """Rows/s of calling for ``seconds``."""
    call()
    calls, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        call()
        calls += 1
    return calls * rows / (time.perf_counter() - started)


def session_of(model: str | bytes) -> onnxruntime.InferenceSession:
    """The model, or the one in that file, in this process, with one thread as the server's instances have."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def in_process(model: bytes, batch: int, seconds: float) -> float:
    """Rows/s of a session in this process, threaded as the server's are."""
    session = session_of(model)
    x = np.ones((batch, 64), np.float32)
    return repeated(lambda: session.run(None, {"x": x}), batch, seconds)


def one_by_one(address: str, model: str, batch: int, seconds: float) -> float:
    """Rows/s of tritonclient's plain gRPC client, which waits for each answer."""
    x = np.ones((batch, 64), np.float32)
    with InferenceServerClient(address, channel_args=DIRECT) as client:

        def call() -> None:
            tensor = InferInput("x", [batch, 64], "FP32")
            tensor.set_data_from_numpy(x)
            client.infer(model, [tensor]).as_numpy("y")

        return repeated(call, batch, seconds)


def in_flight(address: str, model: str, batch: int, seconds: float) -> float:
    """Rows/s of our own client with 32 requests in flight, as many rows as take about ``seconds``."""
    with Client(address) as client:

        def run(requests: int) -> float:
            x = np.ones((batch * requests, 64), np.float32)
            started = time.perf_counter()
            client.infer(model, x, batch_size=batch)
            return len(x) / (time.perf_counter() - started)

        warm = run(64)
        return run(max(64, int(warm * seconds / batch)))


def measure(seconds: float, rounds: int) -> dict[str, Any]:
    """All figures: seconds to start, rows/s by way and batch, and each way's part of ONNX Runtime's rows/s."""
    ensure_triton()
    model = network()
    with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as scratch:
        folder = repository(Path(scratch), model)
        starts = {
            f"{len(models)} model{'s' if len(models) > 1 else ''}": statistics.median(
                start_up(folder, models) for _ in range(rounds)
            )
            for models in (["plain"], ["plain", "batching"])
        }
        with EmbeddedTriton(folder) as server:
            grpc, http = server.grpc_address, server.http_address
            ways: dict[str, Callable[[int], float]] = {
                IN_PROCESS: lambda batch: in_process(model, batch, seconds),
                "Triton, one request at a time": lambda batch: one_by_one(grpc, "plain", batch, seconds),
                "Triton, 32 in flight": lambda batch: in_flight(http, "plain", batch, seconds),
                "Triton, 32 in flight, dynamic batching": lambda batch: in_flight(http, "batching", batch, seconds),
            }
            taken = [{way: {batch: ways[way](batch) for batch in BATCHES} for way in ways} for _ in range(rounds)]
    rates = {way: {b: statistics.median(one[way][b] for one in taken) for b in BATCHES} for way in ways}
    return {
        "start_up_seconds": {name: round(value, 2) for name, value in starts.items()},
        "rows_per_second": {way: {str(b): round(rate) for b, rate in by.items()} for way, by in rates.items()},
        "ratio_to_in_process": {
            way: {str(b): round(rate / rates[IN_PROCESS][b], 4) for b, rate in by.items()} for way, by in rates.items()
        },
    }


def table(figures: dict[str, Any]) -> Table:
    """The figures for a person."""
    starts = ", ".join(f"{value:.2f} s with {name}" for name, value in figures["start_up_seconds"].items())
    shown = Table(title=f"Embedded Triton: ready in {starts}", title_justify="left")
    shown.add_column("rows/s (part of in process)")
    for batch in BATCHES:
        shown.add_column(f"batch {batch}", justify="right")
    for way, rates in figures["rows_per_second"].items():
        ratios = figures["ratio_to_in_process"][way]
        shown.add_row(way, *(f"{rates[str(b)]:,} ({ratios[str(b)]:.1%})" for b in BATCHES))
    return shown


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds for each figure in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    figures = measure(options.seconds, options.rounds)
    emit(Output(options.output), figures, lambda: table(figures))


if __name__ == "__main__":
    main()
