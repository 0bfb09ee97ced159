"""A fusion beside its single models: one call of eight rows, and what the number of models costs, in one run.

``python benchmarks/fusion.py [--models 1,4,16,64,256] [--calls 300] [--rounds 7] [--plot fusion.png]
[--output json]``

A call is of eight rows: all for one model, or each for another one. The ways take turns, round by round, so that a
noisy machine disturbs all of them alike, and a figure is the median over the rounds. What is served is asked by
tritonclient over HTTP, one request at a time, and timed by the clock. In process it is ONNX Runtime with one thread,
whose processor time is what counts, for that hardly changes where others use the machine too. The bar holds for what is
served, and in process for the network of ordinary size: why not for the tiny one, :data:`NOT_HELD` says. The cost of
the number of models is measured in a process of its own for each, beside as many sessions of single models.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton_http
from bars import at_most, hold
from embedded_server import session_of
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from rich.console import Group
from rich.table import Table

from gravswell import quiver as qv
from gravswell.cli.output import Output, emit
from gravswell.serving.triton import EmbeddedTriton, ensure_triton

BATCH = 8
BESIDE = 8
"""Models of the fusion whose calls are compared."""
BAR = 2.0
"""A call of a fusion with one id takes at most so many times what the single model takes."""
TINY = "MLP 64-256-1"
SIZES = {TINY: (64, 256), "MLP 1024-2048-1": (1024, 2048)}
NOT_HELD = f"{TINY}, in process"
"""The way that is not held to the bar, which leaves 6 µs there, and ONNX Runtime's operators have fixed costs.

Nested ``If`` s that choose one of eight, without anything else, take 1.7 times what the single model does, and some 1.9
with what checks ids and rows. To find that a batch has one id, and an ``If`` around all that, would go beyond 2, and
hold every model twice, for mixed batches have to go another way. A ``Loop`` of no turn costs as much as an ``If`` that
does nothing. So what a fusion costs there is shown in microseconds; they grow with the size of rows alone."""

Rows = NDArray[np.float32]
Call = Callable[[], Any]


def network(size: int, hidden: int, seed: int) -> ModelProto:
    """``y`` of rows ``x`` of ``size`` values, with random weights."""
    random = np.random.default_rng(seed)
    shapes = {"w1": (size, hidden), "b1": (hidden,), "w2": (hidden, 1), "b2": (1,)}
    weights = [numpy_helper.from_array((random.normal(size=s) / 8).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", size), ("y", 1)))
    graph = helper.make_graph(nodes, "mlp", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def ids(models: int, *, mixed: bool) -> NDArray[np.int64]:
    """Of a call's rows: the last model's, or as many different ones as there are."""
    return np.arange(BATCH, dtype=np.int64) % models + 1 if mixed else np.full(BATCH, models, np.int64)


def in_turns(
    ways: Mapping[str, Call], calls: int, rounds: int, clock: Callable[[], float] = time.thread_time
) -> dict[str, float]:
    """Microseconds of one call of each by ``clock``: the median over the rounds."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for call in ways.values():
        for _ in range(20):
            call()
    for _ in range(rounds):
        for way, call in ways.items():
            began = clock()
            for _ in range(calls):
                call()
            taken[way].append((clock() - began) / calls * 1e6)
    return {way: round(statistics.median(found), 1) for way, found in taken.items()}


def beside(folder: Path, calls: int, rounds: int) -> dict[str, Any]:
    """A call of a fusion of eight beside its single model: in process, and on the embedded Triton."""
    figures: dict[str, Any] = {}
    repo = qv.ModelRepository(folder / "repository")
    feeds: dict[str, Rows] = {}
    for k, (name, (size, hidden)) in enumerate(SIZES.items()):
        models = [network(size, hidden, seed) for seed in range(BESIDE)]
        fused = repo.add(f"fused{k}")
        fused_path = Path(fused.export_version(qv.fuse(models, "zoo")))
        single = repo.add(f"single{k}")
        with single.config.editing() as config:
            config.max_batch_size = 64
            config.dynamic_batching.SetInParent()
        single_path = Path(single.export_version(models[-1]))
        x = feeds[name] = np.random.default_rng(0).normal(size=(BATCH, size)).astype(np.float32)
        alone, many = session_of(str(single_path)), session_of(str(fused_path))
        one, mixed = ({"x": x, "model_id": ids(BESIDE, mixed=mixed)} for mixed in (False, True))
        assert alone.run(["y"], {"x": x})[0].tobytes() == many.run(["y"], one)[0].tobytes()
        ways: dict[str, Call] = {
            "single": lambda alone=alone, x=x: alone.run(["y"], {"x": x}),  # type: ignore[misc]
            "one id": lambda many=many, one=one: many.run(["y"], one),  # type: ignore[misc]
            "mixed": lambda many=many, mixed=mixed: many.run(["y"], mixed),  # type: ignore[misc]
        }
        figures[f"{name}, in process"] = in_turns(ways, calls, rounds)
    with (
        EmbeddedTriton(folder / "repository") as server,
        triton_http.InferenceServerClient(server.http_address) as client,
    ):
        for k, (name, x) in enumerate(feeds.items()):
            figures[f"{name}, served"] = in_turns(
                {
                    "single": asking(client, f"single{k}", x, None),
                    "one id": asking(client, f"fused{k}", x, ids(BESIDE, mixed=False)),
                    "mixed": asking(client, f"fused{k}", x, ids(BESIDE, mixed=True)),
                },
                calls,
                rounds,
                time.perf_counter,
            )
    for row in figures.values():
        row["ratio"] = round(row["one id"] / row["single"], 2)
        row["more"] = round(row["one id"] - row["single"], 1)
        row["mixedRatio"] = round(row["mixed"] / row["single"], 2)
    return figures


def asking(client: Any, model: str, x: Rows, which: NDArray[np.int64] | None) -> Call:
    """One request, prepared once."""
    inputs = [triton_http.InferInput("x", list(x.shape), "FP32")]
    inputs[0].set_data_from_numpy(x)
    if which is not None:
        inputs.append(triton_http.InferInput("model_id", [len(which), 1], "INT64"))
        inputs[1].set_data_from_numpy(which[:, None])
    return lambda: client.infer(model, inputs).as_numpy("y")


def memory() -> int:
    """Bytes that this process holds."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def loaded(small: Path, paths: list[Path], feeds: list[dict[str, Any]], calls: int, rounds: int) -> dict[str, Any]:
    """In a process of its own: load these graphs, and call the last one with each of ``feeds``."""
    first = session_of(str(small))  # what the first session of a process costs is not the models'
    first.run(None, {"x": feeds[0]["x"]})
    before, began = memory(), time.perf_counter()
    sessions = [session_of(str(path)) for path in paths]
    seconds, held = time.perf_counter() - began, memory() - before
    ways: dict[str, Call] = {str(k): lambda feed=feed: sessions[-1].run(None, feed) for k, feed in enumerate(feeds)}  # type: ignore[misc]
    return {"seconds": seconds, "bytes": held, "calls": list(in_turns(ways, calls, rounds).values())}


def scaling(folder: Path, counts: list[int], calls: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each number of models."""
    size, hidden = SIZES[TINY]
    x = np.random.default_rng(0).normal(size=(BATCH, size)).astype(np.float32)
    models = [network(size, hidden, seed) for seed in range(max(counts))]
    singles = []
    for seed, model in enumerate(models):
        path = folder / f"{seed}.onnx"
        path.write_bytes(model.SerializeToString())
        singles.append(path)
    repo, rows = qv.ModelRepository(folder / "scaling"), []
    for count in counts:
        began = time.perf_counter()
        path = Path(repo.add(f"of{count}").export_version(qv.fuse(models[:count], "zoo")))
        exported = time.perf_counter() - began
        feeds = [{"x": x, "model_id": ids(count, mixed=mixed)} for mixed in (False, True)]
        fused = apart(loaded, singles[0], [path], feeds, calls, rounds)
        alone = apart(loaded, singles[0], singles[:count], [{"x": x}], calls, rounds)
        rows.append(
            {
                "models": count,
                "exportSeconds": round(exported, 1),
                "fileBytes": path.stat().st_size,
                "loadSeconds": round(fused["seconds"], 3),
                "loadSecondsApart": round(alone["seconds"], 3),
                "bytes": fused["bytes"],
                "bytesApart": alone["bytes"],
                "oneIdMicroseconds": fused["calls"][0],
                "mixedMicroseconds": fused["calls"][1],
                "singleMicroseconds": alone["calls"][0],
            }
        )
    return rows


def apart(work: Callable[..., Any], *args: Any) -> Any:
    """``work`` in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


def measure(counts: list[int], calls: int, rounds: int) -> dict[str, Any]:
    """All figures."""
    ensure_triton()
    with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as folder:
        return {
            "batch": BATCH,
            "beside": (rows := beside(Path(folder), calls, rounds)),
            "bar": judged(rows),
            "scaling": scaling(Path(folder), counts, calls, rounds),
        }


def judged(rows: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The bar, what was reached of it, and whether that meets it, for each way that is held to it."""
    reached = {name: row["ratio"] for name, row in rows.items() if name != NOT_HELD}
    return {"atMost": BAR, "reached": reached, "met": {name: ratio <= BAR for name, ratio in reached.items()}}


def missed(figures: Mapping[str, Any]) -> list[str]:
    """A line for each way in which a call with one id misses the bar."""
    reached = figures["bar"]["reached"].items()
    return [line for way, ratio in reached for line in at_most(f"{way}, one id / single", ratio, BAR)]


def table(figures: Mapping[str, Any]) -> Group:
    """The figures for a person."""
    calls = Table("µs of a call of 8 rows", box=None)
    bar = figures["bar"]
    limit = f"bar {bar['atMost']:g}"
    for column in ("single", "one id", "mixed", "one id - single", "one id / single", limit, "mixed / single"):
        calls.add_column(column, justify="right")
    verdicts = {True: "met", False: "missed", None: "not held"}
    for name, row in figures["beside"].items():
        verdict = verdicts[bar["met"].get(name)]
        cells = [row["single"], row["one id"], row["mixed"], row["more"], row["ratio"], verdict, row["mixedRatio"]]
        calls.add_row(name, *map(str, cells))
    growth = Table("models", box=None)
    for column in (
        "export s",
        "file MB",
        "load s",
        "apart",
        "memory MB",
        "apart",
        "one id µs",
        "mixed µs",
        "single µs",
    ):
        growth.add_column(column, justify="right")
    for row in figures["scaling"]:
        growth.add_row(
            str(row["models"]),
            f"{row['exportSeconds']}",
            f"{row['fileBytes'] / 1e6:.1f}",
            f"{row['loadSeconds']}",
            f"{row['loadSecondsApart']}",
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['bytesApart'] / 1e6:.1f}",
            *(str(row[key]) for key in ("oneIdMicroseconds", "mixedMicroseconds", "singleMicroseconds")),
        )
    return Group(calls, "", growth)


def plot(figures: Mapping[str, Any], path: str) -> None:
    """Latency and load time against the number of models."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 - of the extra `plot`

    rows = figures["scaling"]
    counts = [row["models"] for row in rows]
    _, (calls, loads) = plt.subplots(1, 2, figsize=(10, 4))
    for key, label in (("oneId", "one id"), ("mixed", "mixed"), ("single", "a single model")):
        calls.plot(counts, [row[f"{key}Microseconds"] for row in rows], marker="o", label=label)
    calls.set(xscale="log", yscale="log", xlabel="models", ylabel="µs of a call of 8 rows")
    for key, label in (("loadSeconds", "one fusion"), ("loadSecondsApart", "as many sessions")):
        loads.plot(counts, [row[key] for row in rows], marker="o", label=label)
    loads.set(xscale="log", yscale="log", xlabel="models", ylabel="s to load")
    for axes in (calls, loads):
        axes.legend()
    plt.savefig(path)


def main() -> None:
    """Measure and print; exits with 1 if the bar is missed."""

    def numbers(text: str) -> list[int]:
        return [int(number) for number in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=numbers, default=[4**k for k in range(5)], help="numbers of models")
    parser.add_argument("--calls", type=int, default=300, help="calls of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--plot", metavar="FILE", help="draw latency and load time against the number of models")
    parser.add_argument("--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    figures = measure(options.models, options.calls, options.rounds)
    if options.plot:
        plot(figures, options.plot)
    emit(Output(options.output), figures, lambda: table(figures))
    hold(missed(figures))


if __name__ == "__main__":
    main()
