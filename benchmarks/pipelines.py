"""Pipelines on the embedded Triton beside the same steps in one process, and an init graph that runs once, in one run.

``python benchmarks/pipelines.py [--calls 20] [--rounds 5] [--steps 16] [--awake] [--output json]``

Three steps of two layers each, of sizes from one at which a step is next to no work, so that the cost of the pipeline
itself shows, to one at which that is lost in it: as an ensemble and as business logic, each asked over gRPC and over
REST by tritonclient, one request at a time. In process it is ONNX Runtime with one thread, as every instance in the
server has. The second part runs an init graph once and a step graph ``--steps`` times, beside both as often, in the
server both, for the two larger sizes. The ways take turns, round by round, so that a noisy machine disturbs all of them
alike; a figure is the median over the rounds.

*In the server* is the pipeline from the request's arrival to its answer, and *in the graphs* the time in which its
members compute, with the way into their processes and back, both by Triton's own count. What is between the two is
Triton's work around the members, and of business logic the function's process; what is beside them is the protocol,
with what tritonclient and the network take. All of this depends on how large the tensors are and not on how much the
steps compute. So *work* and *much work* are held to the bar, the pipeline in the server and the whole call. *Little
work* is shown without a verdict: its step computes for less than any protocol takes, so that no server could meet one.

A call goes from process to process, and who waits for it sleeps. On a machine with nothing else to do its processor
then sleeps too, and in a virtual machine it may take long to wake: ``--awake`` keeps all of them busy with what gives
way to everything else, to tell this from what a pipeline itself costs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from bars import at_least, hold
from embedded_server import DIRECT, session_of
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from rich.console import Group
from rich.table import Table

from gravswell import quiver as qv
from gravswell.cli.output import Output, emit
from gravswell.serving.triton import EmbeddedTriton, ensure_triton

BAR = 0.8
"""The part of the speed in one process that three steps in the server are to have at least."""
CLAIMED = (5, 6)
"""How many times faster it is to run the init graph once, by MindSpore Serving, whose pipelines these follow."""
ROWS = 128
SIZES = {"little work": (64, 64), "work": (512, 2048), "much work": (1024, 4096)}
"""Values a row, and values between the layers."""
HELD = ("work", "much work")
"""The sizes that are held to the bars."""
COUNTED_SECONDS = 60.0
"""Until Triton has counted what it answered."""
INIT_LAYERS = 12
"""Of the init graph, where the step graph has one: a prompt beside one more word."""
IN_PROCESS = "in one process"
PIPELINES = {"ensemble": "ensemble", "business logic": "business-logic"}
"""The entries of the three steps."""

LOOP = """
import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while os.getppid() == {parent}:
    pass
"""

Call = Callable[[], Any]
Rows = NDArray[np.float32]


def network(values: int, hidden: int, layers: int = 1) -> ModelProto:
    """``y`` of rows ``x``, as many values in as out: so many times two matrices with a ReLU between them."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((random.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32), name)
        for shape, name in (((values, hidden), "up"), ((hidden, values), "down"))
    ]
    nodes, last = [], "x"
    for k in range(layers):
        made = "y" if k == layers - 1 else f"y{k}"
        nodes += [
            helper.make_node("MatMul", [last, "up"], [f"h{k}"]),
            helper.make_node("Relu", [f"h{k}"], [f"r{k}"]),
            helper.make_node("MatMul", [f"r{k}", "down"], [made]),
        ]
        last = made
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", values]) for name in "xy")
    graph = helper.make_graph(nodes, "layers", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def three(x, *, first, second, third):  # type: ignore[no-untyped-def]  # source that goes to the server
    """Three steps, one after the other."""
    return third(second(first(x)))


def init_once(x, steps, *, init, step):  # type: ignore[no-untyped-def]
    """The init graph once, the step graph as often as asked."""
    state = init(x)
    for _ in range(int(steps[0])):
        state = step(state)
    return state


def init_always(x, steps, *, init, step):  # type: ignore[no-untyped-def]
    """Both as often as asked."""
    state = x
    for _ in range(int(steps[0])):
        state = step(init(state))
    return state


Counts = Mapping[str, tuple[int, int]]
"""Triton's own, of a pipeline and its members by name: nanoseconds so far, and for how many requests."""


@dataclass(frozen=True)
class Spent:
    """Seconds of a call."""

    whole: float
    server: float = 0.0
    """Of these, from the request's arrival to its answer."""
    graphs: float = 0.0
    """Of these, in the graphs of the members."""


def timed(
    ways: dict[str, Call], calls: int, rounds: int, counted: Callable[[str], Counts] = lambda _: {}
) -> dict[str, Spent]:
    """What a call of each of the ways takes, which take turns.

    :param counted: of a way: what the server has counted so far, of its pipeline first. A call asks each member once.
    """

    def once(name: str, calls: int) -> Spent:
        before, started = counted(name), time.perf_counter()
        for _ in range(calls):
            ways[name]()
        whole = (time.perf_counter() - started) / calls
        after = all_counted(lambda: counted(name), before, calls)
        parts = [(ns - before[model][0]) / calls / 1e9 for model, (ns, _) in after.items()]
        return Spent(whole, *((parts[0], sum(parts[1:])) if parts else ()))

    for name in ways:
        once(name, 1)
    taken: dict[str, list[Spent]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, found in taken.items():
            found.append(once(name, calls))
    return {
        name: Spent(*(statistics.median(getattr(one, part) for one in found) for part in ("whole", "server", "graphs")))
        for name, found in taken.items()
    }


def all_counted(counted: Callable[[], Counts], before: Counts, calls: int) -> Counts:
    """What the server has counted once it is ``calls`` more than ``before``: the last comes just after its answer."""
    end = time.monotonic() + COUNTED_SECONDS
    while True:
        now = counted()
        if all(n - before[model][1] >= calls for model, (_, n) in now.items()):
            return now
        if time.monotonic() > end:
            raise TimeoutError(f"Triton counted {before} before {calls} calls, and {now} {COUNTED_SECONDS:g} s later")
        time.sleep(0.001)


def counts(server: EmbeddedTriton, pipeline: str) -> Counts:
    """What ``server`` has counted of a pipeline, whole requests, and of the members of all, in their graphs."""

    def counted(model: str, what: str) -> tuple[int, int]:
        stats = server.control.statistics(model, 1)["inference_stats"][what]
        return int(stats.get("ns", 0)), int(stats.get("count", 0))

    return {pipeline: counted(pipeline, "success")} | {m: counted(m, "compute_infer") for m in server.members}


@contextmanager
def awake() -> Iterator[None]:
    """No processor sleeps: on each there is a loop, which runs while nothing else would."""
    loop = [sys.executable, "-c", LOOP.format(parent=os.getpid())]
    loops = [subprocess.Popen(loop) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for one in loops:
            one.kill()
            one.wait()


def session(model: ModelProto) -> Callable[[Rows], Rows]:
    """The model in this process, threaded as the server's are."""
    opened = session_of(model.SerializeToString())
    return lambda x: opened.run(None, {"x": x})[0]


@contextmanager
def clients(server: EmbeddedTriton) -> Iterator[dict[str, Callable[..., Rows]]]:
    """Ways to ask for a model's only output: its name, then its inputs."""

    def asking(client: Any, kind: Any) -> Callable[..., Rows]:
        def ask(model: str, output: str, **inputs: NDArray[Any]) -> Rows:
            tensors = []
            for name, value in inputs.items():
                tensor = kind.InferInput(name, list(value.shape), "INT64" if value.dtype == np.int64 else "FP32")
                tensor.set_data_from_numpy(value)
                tensors.append(tensor)
            answer: Rows = client.infer(model, tensors).as_numpy(output)
            return answer

        return ask

    with (
        triton_grpc.InferenceServerClient(server.grpc_address, channel_args=DIRECT) as by_grpc,
        triton_http.InferenceServerClient(server.http_address) as by_rest,
    ):
        yield {"gRPC": asking(by_grpc, triton_grpc), "REST": asking(by_rest, triton_http)}


def published(root: Path, models: dict[str, ModelProto], pipelines: dict[str, qv.Pipeline], samples: Any) -> Path:
    """A repository of these."""
    repository = qv.ModelRepository(root)
    for name, model in models.items():
        repository.add(name).export_version(model)
        repository.models[name].config.add_instance_group(count=1, kind="cpu")
    for name, pipeline in pipelines.items():
        repository.add(name, qv.Platform.PIPELINE).export_version(pipeline, sample_inputs=samples)
    return root


def three_steps(root: Path, values: int, hidden: int, calls: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a call by every way, and the part of the speed in process that each has."""
    x = np.random.default_rng(1).normal(size=(ROWS, values)).astype(np.float32)
    model = network(values, hidden)
    inputs = {"x": ("FP32", (None, values))}
    folder = published(
        root,
        dict.fromkeys(("first", "second", "third"), model),
        {
            "ensemble": qv.Pipeline(three, output_names=["z"]),
            "business-logic": qv.Pipeline(three, inputs=inputs, output_names=["z"], compile_to="python"),
        },
        {"x": x},
    )
    first, second, third = (session(model) for _ in range(3))  # each with its weights, as in the server
    with EmbeddedTriton(folder) as server, clients(server) as asked:
        ways: dict[str, Call] = {IN_PROCESS: lambda: third(second(first(x)))}
        entries: dict[str, str] = {}
        for told, entry in PIPELINES.items():
            for protocol, ask in asked.items():
                way = f"{told}, {protocol}"
                np.testing.assert_allclose(ask(entry, "z", x=x), ways[IN_PROCESS](), rtol=1e-4, atol=1e-5)
                ways[way] = lambda ask=ask, entry=entry: ask(entry, "z", x=x)  # type: ignore[misc]
                entries[way] = entry
        taken = timed(ways, calls, rounds, lambda way: counts(server, entries[way]) if way in entries else {})
    here = taken.pop(IN_PROCESS).whole
    return {
        "in_process_ms": round(here * 1e3, 3),
        "served": {
            way: {
                "ms": round(one.whole * 1e3, 3),
                "in_server_ms": round(one.server * 1e3, 3),
                "in_graphs_ms": round(one.graphs * 1e3, 3),
                "protocol_ms": round((one.whole - one.server) * 1e3, 3),
                "part_of_in_process": round(here / one.whole, 3),
                "part_in_server": round(here / one.server, 3),
            }
            for way, one in taken.items()
        },
    }


def held(sizes: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The figures of three steps by size, with the bar where a size is held to it."""
    return {name: three | {"bar": judged(three)} if name in HELD else three for name, three in sizes.items()}


def judged(three: Mapping[str, Any]) -> dict[str, Any]:
    """The bar, and what was reached of it: by the pipeline in the server, and by the whole call."""
    reached = {}
    for way, one in three["served"].items():
        reached[f"{way}, in the server"], reached[way] = one["part_in_server"], one["part_of_in_process"]
    return {"atLeast": BAR, "reached": reached, "met": {way: part >= BAR for way, part in reached.items()}}


def init_and_step(root: Path, values: int, hidden: int, steps: int, calls: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a call either way, and how many times faster the init graph run once is."""
    x = np.random.default_rng(1).normal(size=(ROWS // 8, values)).astype(np.float32)
    count = np.array([steps])
    inputs = {"x": ("FP32", (None, values)), "steps": ("INT64", (1,))}
    folder = published(
        root,
        {"init": network(values, hidden, INIT_LAYERS), "step": network(values, hidden)},
        {
            "once": qv.Pipeline(init_once, inputs=inputs, output_names=["z"]),
            "always": qv.Pipeline(init_always, inputs=inputs, output_names=["z"]),
        },
        {"x": x, "steps": count},
    )
    with EmbeddedTriton(folder) as server, clients(server) as asked:
        taken = timed(
            {
                name: lambda name=name: asked["gRPC"](name, "z", x=x, steps=count)  # type: ignore[misc]
                for name in ("once", "always")
            },
            calls,
            rounds,
        )
    faster = taken["always"].whole / taken["once"].whole
    return {
        "steps": steps,
        "milliseconds": {name: round(one.whole * 1e3, 3) for name, one in taken.items()},
        "times_faster": round(faster, 2),
        "limit": round(steps * (INIT_LAYERS + 1) / (INIT_LAYERS + steps), 2),
        "claimed": list(CLAIMED),
        "met": round(faster, 2) >= CLAIMED[0],
    }


def measure(calls: int, rounds: int, steps: int) -> dict[str, Any]:
    """All figures."""
    ensure_triton()
    with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as scratch:
        return {
            "three_steps": held(
                {
                    name: three_steps(Path(scratch) / f"three{k}", *size, calls, rounds)
                    for k, (name, size) in enumerate(SIZES.items())
                }
            ),
            "init_once": {
                name: init_and_step(Path(scratch) / f"loop{k}", *SIZES[name], steps, max(1, calls // 4), rounds)
                for k, name in enumerate(HELD)
            },
        }


def missed(figures: Mapping[str, Any]) -> list[str]:
    """A line for each way of a size that is held to the bar, and for the init graph that runs once, that misses it."""
    lines = [
        line
        for size, three in figures["three_steps"].items()
        if "bar" in three
        for way, part in three["bar"]["reached"].items()
        for line in at_least(f"{way}, three steps of {size}, part of the speed in one process", part, BAR)
    ]
    for size, once in figures["init_once"].items():
        lines += at_least(f"init once, {once['steps']} steps of {size}, times faster", once["times_faster"], CLAIMED[0])
    return lines


def shown(figures: dict[str, Any]) -> Group:
    """The figures for a person."""
    tables: list[Any] = []
    for name, three in figures["three_steps"].items():
        bar = f" (bar {three['bar']['atLeast']})" if "bar" in three else ""
        verdicts = {way: " met" if met else " missed" for way, met in three.get("bar", {}).get("met", {}).items()}
        table = Table(
            title=f"A pipeline of three steps of {name}, {ROWS} rows; in one process {three['in_process_ms']:,.2f} ms",
            box=None,
        )
        table.title_justify = "left"
        times = ("ms", "in the server", "in the graphs", "protocol")
        for column in ("", *times, f"part of the speed{bar}", f"in the server{bar}"):
            table.add_column(column, justify="right" if column else "left")
        for way, one in three["served"].items():
            parts = ((one["part_of_in_process"], way), (one["part_in_server"], f"{way}, in the server"))
            table.add_row(
                way,
                *(f"{one[key]:,.2f}" for key in ("ms", "in_server_ms", "in_graphs_ms", "protocol_ms")),
                *(f"{part:.2f}{verdicts.get(told, '')}" for part, told in parts),
            )
        tables += [table, ""]
    told = [
        f"Init once and {once['steps']} steps of {name}: {once['milliseconds']['once']:,.1f} ms; both {once['steps']} "
        f"times: {once['milliseconds']['always']:,.1f} ms; {once['times_faster']} times faster, of {once['limit']} "
        f"that the graphs' work allows (bar {once['claimed'][0]} to {once['claimed'][1]}: "
        f"{'met' if once['met'] else 'missed'})."
        for name, once in figures["init_once"].items()
    ]
    return Group(*tables, *told)


def main() -> None:
    """Measure and print; exits with 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20, help="calls for each figure in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16, help="how often the step graph runs")
    parser.add_argument("--awake", action="store_true", help="let no processor sleep meanwhile")
    parser.add_argument("--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    with awake() if options.awake else nullcontext():
        figures = measure(options.calls, options.rounds, options.steps)
    emit(Output(options.output), figures, lambda: shown(figures))
    hold(missed(figures))


if __name__ == "__main__":
    main()
