"""What a partition costs beside the whole model: in this process, served as one entry, and in memory, in one run.

``python benchmarks/partitions.py [--seconds 1] [--rounds 3] [--no-server] [--output json]``

The network is dense, 256 → 1024 → 1024 → 1024 → 256. *One after the other* is the time of all parts on one core.
*Side by side* is what it takes where every rank has a core of its own: of each stage the slowest rank, and what puts
the answers together; nothing is counted for the way between them. Its limit is the whole model's time divided by the
ranks where these work at the same time, by column and row, and that time itself where they wait for one another.
Served, every part is a model of one Triton. All ways take turns, round by round, and each figure is the median over
the rounds: compare the ratios.
"""

import argparse
import multiprocessing
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
from embedded_server import session_of
from onnx import ModelProto, TensorProto, helper, numpy_helper
from rich.console import Group
from rich.table import Table

from gravswell import quiver as qv
from gravswell.cli.output import Output, emit
from gravswell.partitions import Partition
from gravswell.partitions.rank import Device, Rank, give_back, inputs_of
from gravswell.partitions.records import By
from gravswell.serving import Client
from gravswell.serving.triton import EmbeddedTriton, ensure_triton

WIDTHS = (256, 1024, 1024, 1024, 256)
RANKS = (2, 4)
BATCHES = (8, 256)
SHARED_WIDTHS = (2048, 2048, 2048, 2048)
"""Of the two models that have all matrices but the last alike: 48 MiB."""


def network(widths: tuple[int, ...], out: int) -> ModelProto:
    """Dense layers of those widths with a Relu between them, and one of ``out`` columns, which seeds its weights."""
    rng = np.random.default_rng(0)
    nodes, weights, read = [], [], "x"
    for k, (rows, columns) in enumerate(pairwise((*widths, out)), 1):
        matrix = rng.standard_normal((rows, columns)).astype(np.float32) / np.sqrt(rows)
        weights += [numpy_helper.from_array(matrix.astype(np.float32), f"w{k}")]
        weights += [numpy_helper.from_array(np.zeros(columns, np.float32), f"b{k}")]
        last = k == len(widths)
        nodes.append(helper.make_node("Gemm", [read, f"w{k}", f"b{k}"], ["y" if last else f"h{k}"], name=f"fc{k}"))
        if not last:
            nodes.append(helper.make_node("Relu", [f"h{k}"], [read := f"r{k}"]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in (("x", widths[0]), ("y", out))
    ]
    graph = helper.make_graph(nodes, "mlp", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def seconds_of(call: Callable[[], object], seconds: float) -> float:
    """The median time of a call, over at least five of them."""
    call()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 5 or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


class InProcess:
    """The parts of one partition, each with a session and what it is given."""

    def __init__(self, made: Partition) -> None:
        self._made = made
        self._sessions = [session_of(str(made.folder / part.file)) for part in made.plan.parts]
        self._chain = made.chain()

    def seconds(self, batch: int, seconds: float) -> tuple[float, float]:
        """One after the other, and side by side."""
        fed = self._chain.fed({"x": np.ones((batch, WIDTHS[0]), np.float32)})
        share = seconds / len(fed)
        each = [
            (part, seconds_of(lambda s=one, given=inputs: s.run(None, given), share))  # type: ignore[misc]
            for one, (part, inputs) in zip(self._sessions, fed, strict=True)
        ]
        beside = 0.0
        for stage in range(1, self._made.plan.stages + 1):
            of_stage = [(part, taken) for part, taken in each if part.stage == stage]
            beside += max(taken for part, taken in of_stage if part.rank is not None)
            beside += sum(taken for part, taken in of_stage if part.rank is None)
        return sum(taken for _, taken in each), beside


def limit(made: Partition) -> float:
    """The least that side by side can be of the whole model's time."""
    return 1.0 if made.plan.by == "layer" else round(1 / made.plan.ranks, 2)


def in_process(partitions: dict[str, Partition], whole: bytes, seconds: float, rounds: int) -> dict[str, Any]:
    """Milliseconds of the whole, and of each partition as its ratios to that, by batch."""
    alone = session_of(whole)
    ways = {name: InProcess(made) for name, made in partitions.items()}
    figures: dict[str, Any] = {}
    for batch in BATCHES:
        x = np.ones((batch, WIDTHS[0]), np.float32)
        taken: list[dict[str, Any]] = [
            {"whole": seconds_of(lambda: alone.run(None, {"x": x}), seconds)}  # noqa: B023 - called at once
            | {name: way.seconds(batch, seconds) for name, way in ways.items()}
            for _ in range(rounds)
        ]
        figures[str(batch)] = {
            "whole_ms": round(1e3 * statistics.median(one["whole"] for one in taken), 3),
            "one_after_the_other": {
                name: round(statistics.median(one[name][0] / one["whole"] for one in taken), 2) for name in ways
            },
            "side_by_side": {
                name: round(statistics.median(one[name][1] / one["whole"] for one in taken), 2) for name in ways
            },
            "limit": {name: limit(made) for name, made in partitions.items()},
        }
    return figures


def served(partitions: dict[str, Partition], whole: ModelProto, seconds: float, rounds: int) -> dict[str, Any]:
    """Milliseconds of a request to the whole, and to each partition beside it on a Triton of their own."""
    ensure_triton()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as root:
        repo = qv.ModelRepository(root)
        entry = repo.add("whole", qv.Platform.ONNX)
        entry.config.add_instance_group(count=1)
        entry.export_version(whole)
        for name, made in partitions.items():
            made.publish(repo)
            with (
                EmbeddedTriton(root, models=["whole", made.plan.model]) as server,
                Client(server.http_address) as asked,
            ):
                times: dict[str, list[float]] = {"whole": [], made.plan.model: []}
                for _ in range(rounds):
                    for model, taken in times.items():
                        x = np.ones((BATCHES[0], WIDTHS[0]), np.float32)
                        taken.append(seconds_of(lambda m=model: asked.request(m, {"x": x}), seconds))  # type: ignore[misc]  # noqa: B023
            alone, parted = map(statistics.median, times.values())
            figures[name] = {
                "models": len(made.plan.parts),
                "whole_ms": round(1e3 * alone, 3),
                "ms": round(1e3 * parted, 3),
                "ratio": round(parted / alone, 2),
            }
    return figures


def anonymous_mib() -> float:
    """Memory of this process that no file backs."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def share(folder: str, shared: bool) -> dict[str, float]:
    """In a process of its own: what two models take, and how long both need for one batch of each size."""
    device = Device.of("cpu", "cpu", 0)
    Rank([Path(folder) / "a.onnx"], device)  # what ONNX Runtime itself takes
    give_back()
    before = anonymous_mib()
    rank = Rank([Path(folder) / f"{name}.onnx" for name in "ab"], device, share_weights=shared)
    figures = {"mib": round(anonymous_mib() - before, 1)}
    for batch in (1, *BATCHES):
        given = [inputs_of(one, None, batch) for one in rank.sessions]
        figures[f"ms_at_{batch}"] = round(1e3 * seconds_of(lambda g=given: rank.predict(g), 0.5), 3)  # type: ignore[misc]
    return figures


def sharing() -> dict[str, Any]:
    """Two models with the same matrices in one process, each with its own and with one of each."""
    with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as folder:
        for name, out in (("a", 8), ("b", 16)):
            (Path(folder) / f"{name}.onnx").write_bytes(network(SHARED_WIDTHS, out).SerializeToString())
        size = sum(4 * rows * columns for rows, columns in pairwise(SHARED_WIDTHS)) / 2**20
        context = multiprocessing.get_context("spawn")
        figures: dict[str, Any] = {"weights_mib": round(size, 1)}
        for way, shared in (("apart", False), ("shared", True)):
            with context.Pool(1) as pool:
                figures[way] = pool.apply(share, (folder, shared))
    return figures


def measure(seconds: float, rounds: int, *, server: bool) -> dict[str, Any]:
    """All figures."""
    whole = network(WIDTHS[:-1], WIDTHS[-1])
    partitions = {
        f"{by}, {ranks} ranks": qv.partition(whole, ranks, by, name=f"{by}-{ranks}")
        for by in get_args(By)
        for ranks in RANKS
    }
    figures = {
        "in_process": in_process(partitions, whole.SerializeToString(), seconds, rounds),
        "shared_weights": sharing(),
    }
    if server:
        figures["served"] = served(partitions, whole, seconds, rounds)
    for made in partitions.values():
        made.close()
    return figures


def tables(figures: dict[str, Any]) -> Group:
    """The figures for a person."""
    inside = Table(title="In this process: times the whole model's time", title_justify="left")
    inside.add_column("")
    for batch, one in figures["in_process"].items():
        inside.add_column(f"batch {batch} ({one['whole_ms']} ms):\none after the other", justify="right")
        inside.add_column("\nside by side (limit)", justify="right")
    for name in figures["in_process"][str(BATCHES[0])]["side_by_side"]:
        cells = [
            cell
            for one in figures["in_process"].values()
            for cell in (
                f"{one['one_after_the_other'][name]:.2f} x",
                f"{one['side_by_side'][name]:.2f} x ({one['limit'][name]:g})",
            )
        ]
        inside.add_row(name, *cells)
    shared = figures["shared_weights"]
    memory = Table(title=f"Two models with the same {shared['weights_mib']} MiB of matrices", title_justify="left")
    for column in ("", "memory", *(f"batch {batch}" for batch in (1, *BATCHES))):
        memory.add_column(column, justify="right" if column else "left")
    for way in ("apart", "shared"):
        times = [f"{shared[way][f'ms_at_{batch}']:.2f} ms" for batch in (1, *BATCHES)]
        memory.add_row(way, f"{shared[way]['mib']} MiB", *times)
    shown = [inside, memory]
    if "served" in figures:
        asked = Table(title=f"On one Triton: a request of {BATCHES[0]} rows", title_justify="left")
        for column in ("", "models", "whole", "partition", "ratio"):
            asked.add_column(column, justify="right" if column else "left")
        for name, one in figures["served"].items():
            asked.add_row(name, str(one["models"]), f"{one['whole_ms']} ms", f"{one['ms']} ms", f"{one['ratio']:.2f} x")
        shown.append(asked)
    return Group(*shown)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds for each figure in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-server", dest="server", action="store_false", help="leave the Triton out")
    parser.add_argument("--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    figures = measure(options.seconds, options.rounds, server=options.server)
    emit(Output(options.output), figures, lambda: tables(figures))


if __name__ == "__main__":
    main()
