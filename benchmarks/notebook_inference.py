"""The notebook's inference, on this machine: its own loops beside the served model, every row checked, in one run.

``python benchmarks/notebook_inference.py [--rows 500000] [--jobs 2,4] [--instances 1,2] [--servers 1,2] [--plot FILE]``

Its data set, 500,000 rows of 64, goes eight rows at a time through its network: naively in this process, in four
threads, in processes that start together once each has the model, with the notebook's own client cell
(``async_infer`` without a bound), and with our client for each number of instances and of servers. Then several slow
users, a millisecond for a row each as in the notebook, share one server: their rows/s should grow with them until the
server is saturated. Compare ratios: it all runs on the processors of one machine, so more instances than those cannot
show more.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tritonclient.grpc as triton
from embedded_server import DIRECT
from numpy.typing import NDArray
from rich.table import Table

from gravswell import quiver as qv
from gravswell.cli.output import Output, emit
from gravswell.notebook import MLP, do_some_inference, parallel_inference_task
from gravswell.serving import Client
from gravswell.serving.triton import EmbeddedTriton, ensure_triton

INPUT_SIZE, HIDDEN_SIZES, BATCH = 64, [256, 128, 64], 8
NAIVE = "naive, in this process"
ANSWERS_SECONDS = 300.0
"""For the last answers to the notebook's client, which asks for all rows at once."""

Rows = NDArray[np.float32]


def naive(model: torch.nn.Module, rows: Rows) -> Rows:
    """The notebook's first loop."""
    return np.concatenate(list(do_some_inference(model, rows, BATCH)))


def threaded(model: torch.nn.Module, rows: Rows, threads: int = 4) -> Rows:
    """Its second."""
    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(lambda share: naive(model, share), np.array_split(rows, threads))))


def _with_weights(weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    torch.set_num_threads(1)
    model = MLP(INPUT_SIZE, HIDDEN_SIZES)
    model.load_state_dict(weights)
    return model


def _numbered(model: torch.nn.Module, rows: Rows, device_index: int) -> Iterator[Rows]:
    """The outputs beside their rows' numbers, which are the last column of ``rows``: jobs answer in any order."""
    numbers = iter(np.split(rows[:, -1:], range(BATCH, len(rows), BATCH)))
    for y in do_some_inference(model, np.ascontiguousarray(rows[:, :-1]), BATCH, device_index):
        yield np.hstack([next(numbers), y])


def together(model: torch.nn.Module, rows: Rows, jobs: int) -> tuple[Rows, float]:
    """Its third: processes that begin at the same moment. The outputs, and the seconds since that moment."""
    context = torch.multiprocessing.get_context("spawn")
    results, sync = context.Queue(), context.Value("d", 0.0)
    numbered = np.hstack([rows, np.arange(len(rows), dtype=np.float32)[:, None]])  # exact to 16 million
    arguments = (numbered, _with_weights, [model.state_dict()], _numbered, results, sync, jobs, 1)
    processes = torch.multiprocessing.spawn(parallel_inference_task, arguments, jobs, join=False)
    while sync.value < jobs:
        processes.join(0.01)  # raises what one of them raised
    began = time.perf_counter()
    sync.value += 1
    out, left = np.empty((len(rows), 1), np.float32), len(rows)
    while left:
        answer = results.get(timeout=ANSWERS_SECONDS)
        out[answer[:, 0].astype(int)] = answer[:, 1:]
        left -= len(answer)
    seconds = time.perf_counter() - began
    while not processes.join():
        pass
    return out, seconds


def notebook_cell(address: str, rows: Rows) -> Rows:
    """Its own client: every request at once, and a wait for the last."""
    out = np.empty((len(rows), 1), np.float32)
    left, done = [-(-len(rows) // BATCH)], threading.Event()
    failures: list[Exception] = []
    with triton.InferenceServerClient(address, channel_args=DIRECT) as client:
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            tensor = triton.InferInput("x", list(batch.shape), "FP32")
            tensor.set_data_from_numpy(batch)

            def callback(result: Any, error: Any, start: int = start) -> None:
                if error:
                    failures.append(error)
                else:
                    y = result.as_numpy("y")
                    out[start : start + len(y)] = y
                left[0] -= 1
                if not left[0]:
                    done.set()

            client.async_infer("my-model", [tensor], callback)
        if not done.wait(ANSWERS_SECONDS):
            raise TimeoutError(f"{left[0]} requests got no answer within {ANSWERS_SECONDS:.0f} s")
    if failures:
        raise failures[0]
    return out


def served(client: Client, rows: Rows) -> Rows:
    """Our client, at the same eight rows a request."""
    return client.infer("my-model", {"x": rows}, batch_size=BATCH)["y"]


def slow_users(address: str, rows: Rows, expected: Rows, users: int) -> float:
    """Rows/s of so many users together, each with a source that takes a millisecond for a row."""

    def use(k: int) -> int:
        def source() -> Iterator[Rows]:
            for start in range(0, len(rows), BATCH):
                batch = rows[start : start + BATCH]
                time.sleep(0.001 * len(batch))
                yield batch

        with Client(address, in_flight=4) as client:
            for part in client.stream("my-model", source(), batch_size=BATCH):
                _check(part.outputs["y"], expected[part.start : part.stop], f"user {k}")
        return len(rows)

    began = time.perf_counter()
    with ThreadPoolExecutor(users) as pool:
        asked = sum(pool.map(use, range(users)))
    return asked / (time.perf_counter() - began)


def measure(rows: int, jobs: list[int], instances: list[int], servers: list[int], users: list[int]) -> dict[str, Any]:
    """Rows/s of each way, and its ratio to the naive loop."""
    ensure_triton()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # as an instance of the server has
    model = MLP(INPUT_SIZE, HIDDEN_SIZES).eval()
    dataset = np.random.default_rng(0).normal(size=(rows, INPUT_SIZE)).astype(np.float32)
    expected = np.concatenate(list(do_some_inference(model, dataset, 4096)))  # at once, the hidden layers take 1 GB
    rates: dict[str, float] = {}

    def timed(way: str, ask: Callable[..., Rows], *arguments: Any) -> None:
        began = time.perf_counter()
        y = ask(*arguments)
        took(way, y, time.perf_counter() - began)

    def took(way: str, y: Rows, seconds: float) -> None:
        rates[way] = len(dataset) / seconds
        _check(y, expected, way)
        _told(f"{way}: {rates[way]:,.0f} rows/s")

    timed(NAIVE, naive, model, dataset)
    timed("4 threads, in this process", threaded, model, dataset)
    for count in jobs:
        took(f"{count} processes that start together", *together(model, dataset, count))
    slow: dict[str, float] = {}
    for count in instances:
        with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as scratch:
            entry = qv.ModelRepository(Path(scratch) / "my-repo").add("my-model", platform=qv.Platform.ONNX)
            entry.export_version(model, input_shapes={"x": (None, INPUT_SIZE)}, output_names=["y"])
            entry.config.add_instance_group(count=count)
            for number in servers:
                with ExitStack() as stack:
                    up = [stack.enter_context(EmbeddedTriton(Path(scratch) / "my-repo")) for _ in range(number)]
                    client = stack.enter_context(Client([server.http_address for server in up]))
                    if (count, number) == (instances[0], servers[0]):
                        timed("the notebook's client", notebook_cell, up[0].grpc_address, dataset)
                        for n in users:
                            few = slice(0, min(rows, 2000))
                            slow[str(n)] = slow_users(up[0].http_address, dataset[few], expected[few], n)
                            _told(f"{n} slow users: {slow[str(n)]:,.0f} rows/s")
                    name = f"gravswell, {number} x {count}"
                    timed(name, served, client, dataset)
    return {
        "rows": rows,
        "rowsPerSecond": {way: round(rate) for way, rate in rates.items()},
        "ratioToNaive": {way: round(rate / rates[NAIVE], 2) for way, rate in rates.items()},
        "ratioToNotebookClient": {way: round(rate / rates["the notebook's client"], 2) for way, rate in rates.items()},
        "slowUsersRowsPerSecond": {n: round(rate) for n, rate in slow.items()},
    }


def _told(line: str) -> None:
    """It takes minutes: who waits sees how far it is."""
    print(line, file=sys.stderr, flush=True)


def _check(got: Rows, expected: Rows, way: str) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5, err_msg=f"rows of: {way}")


def table(figures: dict[str, Any]) -> Table:
    """The figures for a person."""
    shown = Table(
        title=f"{figures['rows']:,} rows, every one checked; servers x instances of each", title_justify="left"
    )
    for column in ("", "rows/s", "to naive", "to the notebook's client"):
        shown.add_column(column, justify="right" if column else "left")
    for way, rate in figures["rowsPerSecond"].items():
        ratios = (figures[by][way] for by in ("ratioToNaive", "ratioToNotebookClient"))
        shown.add_row(way, f"{rate:,}", *map(str, ratios))
    for n, rate in figures["slowUsersRowsPerSecond"].items():
        shown.add_row(f"{n} slow users of one server", f"{rate:,}", "", "")
    return shown


def plot(figures: dict[str, Any], path: str) -> None:
    """Rows/s against instances, a line for each number of servers."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 - of the extra `plot`

    lines: dict[int, list[tuple[int, float]]] = {}
    for way, rate in figures["rowsPerSecond"].items():
        if way.startswith("gravswell, "):
            servers, count = map(int, way.removeprefix("gravswell, ").split(" x "))
            lines.setdefault(servers, []).append((count, rate))
    _, axes = plt.subplots()
    for servers, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=f"{servers} servers" if servers > 1 else "1 server")
    axes.axhline(figures["rowsPerSecond"][NAIVE], linestyle=":", label=NAIVE)
    axes.set(xlabel="instances on each server", ylabel="rows/s", ylim=(0, None))
    axes.legend()
    plt.savefig(path)


def main() -> None:
    """Measure and print."""

    def numbers(text: str) -> list[int]:
        return [int(number) for number in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--jobs", type=numbers, default=[2, 4], help="processes with the model in each, and no server")
    parser.add_argument("--instances", type=numbers, default=[1, 2], help="instances on each server")
    parser.add_argument("--servers", type=numbers, default=[1, 2], help="servers that the client balances over")
    parser.add_argument("--users", type=numbers, default=[1, 4, 16, 64], help="slow users that share one server")
    parser.add_argument("--plot", metavar="FILE", help="draw rows/s against instances")
    parser.add_argument("--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    figures = measure(options.rows, options.jobs, options.instances, options.servers, options.users)
    emit(Output(options.output), figures, lambda: table(figures))
    if options.plot:  # last: minutes of figures are told by then, whatever becomes of it
        plot(figures, options.plot)


if __name__ == "__main__":
    main()
