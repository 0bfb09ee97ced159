"""What a call of a pipeline takes, and what part of the speed in one process that is: for the benchmarks of pipelines.

*In the server* is the pipeline from the request's arrival to its answer, and *in the graphs* the time in which its
members compute, with the way into their processes and back, both by Triton's own count. What is between the two is
Triton's work around the members, and of business logic the function's process; what is beside them is the protocol,
with what tritonclient and the network take.

A call goes from process to process, and who waits for it sleeps. On a machine with nothing else to do its processor
then sleeps too, and in a virtual machine it may take long to wake: :func:`awake` keeps all of them busy with what gives
way to everything else, to tell this from what a pipeline itself costs.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from bars import at_least
from embedded_server import DIRECT
from numpy.typing import NDArray
from rich.table import Table
from tritonclient.utils import np_to_triton_dtype

from gravswell.serving.triton import EmbeddedTriton

BAR = 0.8
"""The part of the speed in one process that three steps in the server are to have at least."""
COUNTED_SECONDS = 60.0
"""Until Triton has counted what it answered."""

LOOP = """
import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while os.getppid() == {parent}:
    pass
"""

Call = Callable[[], Any]
Array = NDArray[Any]
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
    ways: Mapping[str, Call], calls: int, rounds: int, counted: Callable[[str], Counts] = lambda _: {}
) -> dict[str, Spent]:
    """What a call of each of the ways takes, which take turns: medians over the rounds.

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


def counts(server: EmbeddedTriton, pipeline: str, members: Mapping[str, int]) -> Counts:
    """What ``server`` has counted of a pipeline, whole requests, and of all ``members`` (with their versions), in their
    graphs.
    """

    def counted(model: str, version: int, what: str) -> tuple[int, int]:
        stats = server.control.statistics(model, version)["inference_stats"][what]
        return int(stats.get("ns", 0)), int(stats.get("count", 0))

    return {pipeline: counted(pipeline, 1, "success")} | {
        member: counted(member, version, "compute_infer") for member, version in members.items()
    }


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


@contextmanager
def clients(server: EmbeddedTriton) -> Iterator[dict[str, Callable[..., list[Array]]]]:
    """Ways to ask for outputs of a model: its name and theirs, then its inputs by name."""

    def asking(client: Any, kind: Any) -> Callable[..., list[Array]]:
        def ask(model: str, *outputs: str, **inputs: Array) -> list[Array]:
            tensors = []
            for name, value in inputs.items():
                tensor = kind.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
                tensor.set_data_from_numpy(value)
                tensors.append(tensor)
            answer = client.infer(model, tensors)
            return [answer.as_numpy(output) for output in outputs]

        return ask

    with (
        triton_grpc.InferenceServerClient(server.grpc_address, channel_args=DIRECT) as by_grpc,
        triton_http.InferenceServerClient(server.http_address) as by_rest,
    ):
        yield {"gRPC": asking(by_grpc, triton_grpc), "REST": asking(by_rest, triton_http)}


def beside(here: float, served: Mapping[str, Spent]) -> dict[str, Any]:
    """Figures of the ways that were ``served``, beside ``here``, the seconds in one process."""
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
            for way, one in served.items()
        },
    }


def judged(three: Mapping[str, Any], *, held: bool) -> dict[str, Any]:
    """The bar, and what was reached of it: by the pipeline in the server, and by the whole call.

    :param held: a miss is to end the benchmark with 1; otherwise it is reported only.
    """
    reached = {}
    for way, one in three["served"].items():
        reached[f"{way}, in the server"], reached[way] = one["part_in_server"], one["part_of_in_process"]
    met = {way: part >= BAR for way, part in reached.items()}
    return {"atLeast": BAR, "held": held, "reached": reached, "met": met}


def missed(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each way that misses the bar, of those figures, by name, that are held to it."""
    return [
        line
        for name, three in figures.items()
        if three["bar"]["held"]
        for way, part in three["bar"]["reached"].items()
        for line in at_least(f"{way}, {name}, part of the speed in one process", part, BAR)
    ]


def table(title: str, three: Mapping[str, Any]) -> Table:
    """Figures for a person, with their verdicts."""
    bar = three["bar"]
    told = f"{title}; in one process {three['in_process_ms']:,.2f} ms" + ("" if bar["held"] else "; reported only")
    made = Table(title=told, box=None, title_justify="left")
    times = ("ms", "in the server", "in the graphs", "protocol")
    for column in ("", *times, f"part of the speed (bar {bar['atLeast']})", f"in the server (bar {bar['atLeast']})"):
        made.add_column(column, justify="right" if column else "left")
    for way, one in three["served"].items():
        parts = ((one["part_of_in_process"], way), (one["part_in_server"], f"{way}, in the server"))
        made.add_row(
            way,
            *(f"{one[key]:,.2f}" for key in ("ms", "in_server_ms", "in_graphs_ms", "protocol_ms")),
            *(f"{part:.2f} {'met' if bar['met'][told] else 'missed'}" for part, told in parts),
        )
    return made
