"""Pipelines on the embedded Triton beside the same steps in one process, and an init graph that runs once, in one run.

``python benchmarks/pipelines.py [--calls 20] [--rounds 5] [--steps 16] [--awake] [--output json]``

Three steps of two layers each, of sizes from one at which a step is next to no work, so that the cost of the pipeline
itself shows, to one at which that is lost in it: as an ensemble and as business logic, each asked over gRPC and over
REST by tritonclient, one request at a time. In process it is ONNX Runtime with one thread, as every instance in the
server has. The second part runs an init graph once and a step graph ``--steps`` times, beside both as often, in the
server both, for the two larger sizes. The ways take turns, round by round, so that a noisy machine disturbs all of them
alike; a figure is the median over the rounds.

What is beside the computing depends on how large the tensors are and not on how much the steps compute (see
``pipeline_calls.py``). So the bars hold *much work*, where a step takes some 10 ms, the pipeline in the server and the
whole call. *Work*, 2 to 3 ms a step, and *little work*, microseconds, are reported with the same verdicts and end
nothing: what a call costs is beside them a cost in itself, and of *little work* no protocol could keep 0.8. The real
three steps are ``pipeline_ocr.py``.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pipeline_calls
from bars import at_least, hold
from embedded_server import session_of
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from pipeline_calls import Call, awake, beside, clients, counts, judged, table, timed
from rich.console import Group

from gravswell import quiver as qv
from gravswell.cli.output import Output, emit
from gravswell.serving.triton import EmbeddedTriton, ensure_triton

CLAIMED = (5, 6)
"""How many times faster it is to run the init graph once, by MindSpore Serving, whose pipelines these follow."""
ROWS = 128
SIZES = {"little work": (64, 64), "work": (512, 2048), "much work": (1024, 4096)}
"""Values a row, and values between the layers."""
HELD = ("much work",)
"""The sizes that are held to the bars; the others are reported."""
LOOPED = ("work", "much work")
"""The sizes with which the init graph is measured."""
INIT_LAYERS = 12
"""Of the init graph, where the step graph has one: a prompt beside one more word."""
IN_PROCESS = "in one process"
PIPELINES = {"ensemble": "ensemble", "business logic": "business-logic"}
"""The entries of the three steps."""

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


def session(model: ModelProto) -> Callable[[Rows], Rows]:
    """The model in this process, threaded as the server's are."""
    opened = session_of(model.SerializeToString())
    return lambda x: opened.run(None, {"x": x})[0]


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
                np.testing.assert_allclose(*ask(entry, "z", x=x), ways[IN_PROCESS](), rtol=1e-4, atol=1e-5)
                ways[way] = lambda ask=ask, entry=entry: ask(entry, "z", x=x)  # type: ignore[misc]
                entries[way] = entry
        members = dict.fromkeys(server.members, 1)
        taken = timed(ways, calls, rounds, lambda way: counts(server, entries[way], members) if way in entries else {})
    return beside(taken.pop(IN_PROCESS).whole, taken)


def held(sizes: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The figures of three steps by size, beside the bar."""
    return {name: three | {"bar": judged(three, held=name in HELD)} for name, three in sizes.items()}


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
                for k, name in enumerate(LOOPED)
            },
        }


def missed(figures: Mapping[str, Any]) -> list[str]:
    """A line for each way, and for the init graph that runs once, that misses the bar with a size held to it."""
    lines = pipeline_calls.missed({f"three steps of {name}": of for name, of in figures["three_steps"].items()})
    for size, once in figures["init_once"].items():
        if size in HELD:
            what = f"init once, {once['steps']} steps of {size}, times faster"
            lines += at_least(what, once["times_faster"], CLAIMED[0])
    return lines


def shown(figures: dict[str, Any]) -> Group:
    """The figures for a person."""
    tables: list[Any] = []
    for name, three in figures["three_steps"].items():
        tables += [table(f"A pipeline of three steps of {name}, {ROWS} rows", three), ""]
    told = [
        f"Init once and {once['steps']} steps of {name}: {once['milliseconds']['once']:,.1f} ms; both {once['steps']} "
        f"times: {once['milliseconds']['always']:,.1f} ms; {once['times_faster']} times faster, of {once['limit']} "
        f"that the graphs' work allows (bar {once['claimed'][0]} to {once['claimed'][1]}: "
        f"{'met' if once['met'] else 'missed'}{'' if name in HELD else '; reported only'})."
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
