"""Pipelines on the embedded Triton beside the same steps in one process, and an init graph that runs once, in one run.

``python benchmarks/pipelines.py [--calls 20] [--rounds 5] [--steps 16] [--output json]``

Three steps of two layers each, at a size where a step is work and at one where it is next to none, so that the cost of
the pipeline itself shows: as an ensemble and as business logic, each asked over gRPC and over REST by tritonclient, one
request at a time. In process it is ONNX Runtime with one thread, as every instance in the server has. The second part
runs an init graph once and a step graph ``--steps`` times, beside both as often, in the server both. The ways take
turns, round by round, so that a noisy machine disturbs all of them alike; a figure is the median over the rounds.
*In the graphs* is the part of a call's time in which the members compute, by Triton's own count: the rest is the way of
the tensors, between client and server and between Triton and the processes of its models.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from embedded_server import DIRECT, session_of
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from rich.console import Group
from rich.table import Table

from gravswell import quiver as qv
from gravswell.cli.output import Output, emit
from gravswell.serving.triton import EmbeddedTriton, ensure_triton

BAR = 0.8
"""The part of the speed in one process that three steps in the server have, where a step is work."""
SEED_CLAIMS = (5, 6)
"""How many times faster the init graph run once is, by the seed."""
ROWS = 128
SIZES = {"work": (512, 2048), "little work": (64, 64)}
"""Values a row, and values between the layers."""
INIT_LAYERS = 12
"""Of the init graph, where the step graph has one: a prompt beside one more word."""
IN_PROCESS = "in one process"

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


def timed(ways: dict[str, Call], calls: int, rounds: int) -> dict[str, float]:
    """Seconds of a call of each, which take turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for call in ways.values():
        call()
    for _ in range(rounds):
        for name, call in ways.items():
            started = time.perf_counter()
            for _ in range(calls):
                call()
            taken[name].append((time.perf_counter() - started) / calls)
    return {name: statistics.median(values) for name, values in taken.items()}


def computing(server: EmbeddedTriton, call: Call, calls: int) -> float:
    """The part of a call's time in which the members' graphs run, by Triton's own count."""

    def counted() -> int:
        members = (server.control.statistics(name, 1)["inference_stats"] for name in server.members)
        return sum(int(stats["compute_infer"].get("ns", 0)) for stats in members)

    before, started = counted(), time.perf_counter()
    for _ in range(calls):
        call()
    taken = time.perf_counter() - started
    return (counted() - before) / 1e9 / taken


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
            "business": qv.Pipeline(three, inputs=inputs, output_names=["z"], compile_to="python"),
        },
        {"x": x},
    )
    first, second, third = (session(model) for _ in range(3))  # each with its weights, as in the server
    with EmbeddedTriton(folder) as server, clients(server) as asked:
        ways: dict[str, Call] = {IN_PROCESS: lambda: third(second(first(x)))}
        for entry, what in (("ensemble", "ensemble"), ("business", "business logic")):
            for protocol, ask in asked.items():
                np.testing.assert_allclose(ask(entry, "z", x=x), ways[IN_PROCESS](), rtol=1e-4, atol=1e-5)
                ways[f"{what}, {protocol}"] = lambda ask=ask, entry=entry: ask(entry, "z", x=x)  # type: ignore[misc]
        seconds = timed(ways, calls, rounds)
        graphs = {way: computing(server, call, calls) for way, call in ways.items() if way != IN_PROCESS}
    return {
        "milliseconds": {way: round(value * 1e3, 3) for way, value in seconds.items()},
        "part_in_members": {way: round(part, 3) for way, part in graphs.items()},
        "part_of_in_process": {way: round(seconds[IN_PROCESS] / value, 3) for way, value in seconds.items()},
    }


def init_and_step(root: Path, steps: int, calls: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a call either way, and how many times faster the init graph run once is."""
    values, hidden = SIZES["work"]
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
        seconds = timed(
            {
                name: lambda name=name: asked["gRPC"](name, "z", x=x, steps=count)  # type: ignore[misc]
                for name in ("once", "always")
            },
            calls,
            rounds,
        )
    return {
        "steps": steps,
        "milliseconds": {name: round(value * 1e3, 3) for name, value in seconds.items()},
        "times_faster": round(seconds["always"] / seconds["once"], 2),
        "limit": round(steps * (INIT_LAYERS + 1) / (INIT_LAYERS + steps), 2),
        "seed_claims": list(SEED_CLAIMS),
    }


def measure(calls: int, rounds: int, steps: int) -> dict[str, Any]:
    """All figures."""
    ensure_triton()
    with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as scratch:
        return {
            "three_steps": {
                name: three_steps(Path(scratch) / f"three{k}", *size, calls, rounds)
                for k, (name, size) in enumerate(SIZES.items())
            },
            "bar": BAR,
            "init_once": init_and_step(Path(scratch) / "loop", steps, max(1, calls // 4), rounds),
        }


def shown(figures: dict[str, Any]) -> Group:
    """The figures for a person."""
    table = Table(title=f"A pipeline of three steps, {ROWS} rows: ms (part of the speed in one process)")
    table.title_justify = "left"
    table.add_column("")
    for name in figures["three_steps"]:
        table.add_column(f"steps of {name}", justify="right")
    for way in next(iter(figures["three_steps"].values()))["milliseconds"]:
        cells = [
            f"{one['milliseconds'][way]:,.2f} ({one['part_of_in_process'][way]:.2f})"
            + (f", {one['part_in_members'][way]:.0%} in the graphs" if way in one["part_in_members"] else "")
            for one in figures["three_steps"].values()
        ]
        table.add_row(way, *cells)
    once = figures["init_once"]
    told = (
        f"Where a step is work the bar is {figures['bar']}.\n\n"
        f"Init once and {once['steps']} steps: {once['milliseconds']['once']:,.1f} ms; both {once['steps']} times: "
        f"{once['milliseconds']['always']:,.1f} ms; {once['times_faster']} times faster, of {once['limit']} that the "
        f"graphs' work allows (the seed claims {once['seed_claims'][0]} to {once['seed_claims'][1]})."
    )
    return Group(table, told)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20, help="calls for each figure in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16, help="how often the step graph runs")
    parser.add_argument("--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    figures = measure(options.calls, options.rounds, options.steps)
    emit(Output(options.output), figures, lambda: shown(figures))


if __name__ == "__main__":
    main()
