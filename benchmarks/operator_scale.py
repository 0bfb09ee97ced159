"""The operator at scale: how fast, with how much memory, with which requests, beside the API server's own limit.

``python benchmarks/operator_scale.py ready [--kserve]|rest|restart|edit|growth [--servers N] [--output json]``

On the real control plane with simulated (kwok) nodes, so that pods are ready at once and what is measured is control.
Each measurement has a control plane of its own, and the operator is a process of its own. ``ready`` applies, before
it, the very same objects, each InferenceServer and its children (and, as a second row, a plain Deployment with a
Service), from here without an operator: the limit of this machine. With ``--kserve`` it does the same with KServe in
that run, beside the objects that KServe makes (see ``kserve.py``). Compare the ratios: seconds depend on the machine
and on who shares it. Each is held to its bars, with whatever number of servers, and ends with 1 where one is missed;
``growth``, whose servers are in namespaces of 100, where a further server costs more the more there are.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import kserve
from applying import Manifest, Result, apply_all, child_objects, limit, percentile, plain, ready, server_names, spent
from bars import at_least, at_most, hold
from rich.table import Table
from simulated_cluster import (
    NAMESPACE,
    Operator,
    cluster_of,
    cpu_by_process,
    requests,
    server,
    usage,
    writes,
)

from gravswell.cli.output import Output, emit
from gravswell.kube import credentials
from gravswell.kube.client import Client
from gravswell.kube.resources import Selection
from gravswell.kube.watch import Listed
from gravswell_operator.cluster import resources
from gravswell_operator.devcluster import ControlPlane
from gravswell_operator.runtime import RESYNC_SECONDS

A_NAMESPACE = 100
"""So many servers are in each namespace where growth is measured. Controllers of Kubernetes' own list a namespace for
each change in it, which costs with the square of what is there, whoever made it: one of 3,000 would measure them."""
PAUSE_SECONDS = 15.0
"""For the controllers' own last words."""
REST_SECONDS = 1.25 * RESYNC_SECONDS
"""At least one of the operator's looks at everything is in it: they are 0.8 to 1.2 times that apart."""
EDITS = 300
SEED = 7
OF_LIMIT, OF_A_CORE, MEMORY_MB, RESTART_SECONDS, EDIT_SECONDS = 0.8, 0.02, 250.0, 20.0, 1.0
"""The bars; and nothing is written at rest, nor by an operator that starts anew."""
LINEAR = 1.5
"""How many times the first further servers' cost of time, CPU and memory each later one may have: what grows with the
square of their number costs three times as much from 1,000 to 3,000 as from 300 to 1,000."""


def create(
    cluster: ControlPlane,
    operator: Operator,
    servers: Sequence[str],
    namespace_of: Callable[[str], str] = lambda _: NAMESPACE,
) -> Result:
    """All servers at once, until each is Ready and the operator has nothing left to do; and what that took."""
    manifests = {name: [server(name, namespace_of(name))] for name in servers}
    before, cpu, asked = usage(operator.pid), cpu_by_process(), requests(cluster)
    sent = operator.metric("gravswell_api_requests_total")
    result = asyncio.run(apply_all(cluster, resources.INFERENCE_SERVER, manifests, ready))
    operator.until_settled()
    after, answered = usage(operator.pid), requests(cluster)
    answered.subtract(asked)
    return result | {
        "cpuSeconds": spent(cpu, cpu_by_process()),
        "memoryIdleMiB": before.memory_mib,
        "memoryMiB": after.memory_mib,
        "memoryPeakMiB": after.peak_mib,
        "kilobytesPerServer": 1024 * (after.memory_mib - before.memory_mib) / len(servers),
        "requestsPerServer": (operator.metric("gravswell_api_requests_total") - sent) / len(servers),
        "writesPerServer": {what: n / len(servers) for what, n in writes(answered).items()},
    }


def measure_ready(folder: Path, count: int, *, beside_kserve: bool = False) -> Result:
    """From first create to all Ready, beside the limit; and the same of KServe, beside its own."""
    same = limit(folder / "same", count, lambda name, owner: [server(name), *child_objects(name, owner)])
    least = limit(folder / "plain", count, lambda name, _: plain(name))
    with cluster_of(folder / "operator", count) as cluster, Operator(cluster, folder / "operator.log") as operator:
        operator.until_settled()
        mine = create(cluster, operator, server_names(count))
    result = {
        "servers": count,
        "limit": same,
        "plain": least,
        "operator": mine,
        "ofLimit": mine["perSecond"] / same["perSecond"],
        "ofPlain": mine["perSecond"] / least["perSecond"],
    }
    if beside_kserve:
        peer, limit_of_peer = measure_kserve(folder, count)
        result |= {
            "kserveLimit": limit_of_peer,
            "kserve": peer,
            "kserveOfLimit": peer["perSecond"] / limit_of_peer["perSecond"],
            "kserveOfPlain": peer["perSecond"] / least["perSecond"],
        }
    return result


def measure_kserve(folder: Path, count: int) -> tuple[Result, Result]:
    """KServe's way from first create to all Ready, and its limit: the same objects from here, without it."""
    names = server_names(count)
    with cluster_of(folder / "kserve", count) as cluster:
        kserve.install_definitions(cluster)
        with kserve.KServe(cluster) as peer:
            services = {name: [kserve.service(name)] for name in names}
            before, cpu, asked = usage(peer.pid), cpu_by_process(), requests(cluster)
            result = asyncio.run(apply_all(cluster, kserve.INFERENCE_SERVICE, services, ready))
            after, answered = usage(peer.pid), requests(cluster)
            answered.subtract(asked)
            result |= {
                "cpuSeconds": spent(cpu, cpu_by_process()),
                "memoryIdleMiB": before.memory_mib,
                "memoryPeakMiB": after.peak_mib,
                "writesPerServer": {what: n / count for what, n in writes(answered).items()},
            }
            first = kserve.objects_of(cluster, names[0])

    def same(name: str, _: Manifest) -> list[Manifest]:
        text = json.dumps(first).replace(names[0], name)
        return [kserve.service(name), *json.loads(text)]

    return result, limit(folder / "kserve-limit", count, same, kserve.install_definitions)


def measure_rest(folder: Path, count: int) -> Result:
    """What ``count`` servers cost while nothing happens; the looks at everything are part of it."""
    with cluster_of(folder / "cluster", count) as cluster, Operator(cluster, folder / "operator.log") as operator:
        operator.until_settled()
        create(cluster, operator, server_names(count))
        time.sleep(PAUSE_SECONDS)
        before, asked, written = usage(operator.pid), requests(cluster), operator.writes()
        time.sleep(REST_SECONDS)
        after, answered, mine = usage(operator.pid), requests(cluster), operator.writes()
    answered.subtract(asked)
    mine.subtract(written)
    return {
        "servers": count,
        "seconds": REST_SECONDS,
        "ofACore": (after.cpu_seconds - before.cpu_seconds) / REST_SECONDS,
        "memoryMiB": after.memory_mib,
        "memoryPeakMiB": after.peak_mib,
        "writes": dict(+mine),
        "writesOfAll": writes(answered),
    }


def measure_restart(folder: Path, count: int) -> Result:
    """The operator starts anew beside ``count`` servers: when it has looked at each, and what it wrote."""
    with cluster_of(folder / "cluster", count) as cluster:
        with Operator(cluster, folder / "first.log") as operator:
            operator.until_settled()
            create(cluster, operator, server_names(count))
        time.sleep(PAUSE_SECONDS)
        asked = requests(cluster)
        with Operator(cluster, folder / "second.log") as operator:
            seconds = operator.until_settled()
            known = operator.metric("gravswell_objects_known")
            time.sleep(PAUSE_SECONDS)
            after, answered, mine = usage(operator.pid), requests(cluster), operator.writes()
    answered.subtract(asked)
    return {
        "servers": count,
        "seconds": seconds,
        "objectsKnown": known,
        "cpuSeconds": after.cpu_seconds,
        "memoryMiB": after.memory_mib,
        "memoryPeakMiB": after.peak_mib,
        "writes": dict(+mine),
        "writesOfAll": writes(answered),
    }


async def edit(cluster: ControlPlane, count: int) -> list[float]:
    """Seconds from the edit of a random server until its Deployment is seen changed, :data:`EDITS` times, in order."""
    chosen = random.Random(SEED).sample(server_names(count), min(EDITS, count))
    changed: dict[str, asyncio.Event] = {name: asyncio.Event() for name in chosen}
    account = await credentials.from_kubeconfig(cluster.kubeconfig)
    taken: list[float] = []
    async with Client(account, name="benchmark") as client:

        async def watch() -> None:
            async for seen in client.follow(Selection(resources.DEPLOYMENT, NAMESPACE)):
                for body in seen.items if isinstance(seen, Listed) else [seen.object]:
                    name = body["metadata"]["name"]
                    if name in changed and "edited" in json.dumps(body["spec"]["template"]):
                        changed[name].set()

        watching = asyncio.create_task(watch())
        for name in chosen:
            spec = {"podTemplate": {"env": [{"name": "edited", "value": "yes"}]}}
            started = time.perf_counter()
            await client.merge(resources.INFERENCE_SERVER, NAMESPACE, name, {"spec": spec})
            await asyncio.wait_for(changed[name].wait(), 60)
            taken.append(time.perf_counter() - started)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    return sorted(taken)


def measure_edit(folder: Path, count: int) -> Result:
    """How soon an edit of one server among ``count`` reaches its Deployment."""
    with cluster_of(folder / "cluster", 2 * count) as cluster, Operator(cluster, folder / "operator.log") as operator:
        operator.until_settled()
        create(cluster, operator, server_names(count))
        taken = asyncio.run(edit(cluster, count))
    return {
        "servers": count,
        "edits": len(taken),
        "median": statistics.median(taken),
        "percentile99": percentile(taken, 0.99),
        "worst": taken[-1],
    }


def measure_growth(folder: Path, counts: list[int]) -> Result:
    """Time and memory until all are Ready, for each count."""
    rows = []
    for count in counts:
        names = server_names(count)
        place = {name: f"{NAMESPACE}-{index // A_NAMESPACE:04}" for index, name in enumerate(names)}
        with (
            cluster_of(folder / str(count), count, sorted(set(place.values()))) as cluster,
            Operator(cluster, folder / f"{count}.log") as operator,
        ):
            operator.until_settled()
            row = {"servers": count} | create(cluster, operator, names, place.__getitem__)
            time.sleep(2 * PAUSE_SECONDS)  # the operator has given back what it no longer needs
            rows.append(row | {"memoryRestMiB": usage(operator.pid).memory_mib})
    return {"rows": rows, "furtherServers": [further(*pair) for pair in itertools.pairwise(rows)]}


def further(fewer: Result, more: Result) -> Result:
    """What each further server costs from one count to the next: where growth is linear, the same everywhere."""
    added: int = more["servers"] - fewer["servers"]

    def each(value: Callable[[Result], float]) -> float:
        return (value(more) - value(fewer)) / added

    return {
        "from": fewer["servers"],
        "to": more["servers"],
        "milliseconds": 1000 * each(lambda row: row["seconds"]),
        "operatorCpuMilliseconds": 1000 * each(lambda row: row["cpuSeconds"]["operator"]),
        "kilobytes": 1024 * each(lambda row: row["memoryRestMiB"]),
    }


def draw(result: Result, path: Path) -> None:
    """The growth as a picture: time, CPU and memory over the number of servers."""
    from matplotlib.figure import Figure  # noqa: PLC0415  an extra, and slow to import

    rows = result["rows"]
    servers = [row["servers"] for row in rows]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(servers, [row["seconds"] for row in rows], marker="o", label="until all are Ready")
    left.plot(servers, [row["cpuSeconds"]["operator"] for row in rows], marker="o", label="the operator's CPU")
    left.set_ylabel("seconds")
    left.legend()
    right.plot(servers, [row["memoryRestMiB"] for row in rows], marker="o", label="at rest")
    right.plot(servers, [row["memoryPeakMiB"] for row in rows], marker="o", label="at most")
    right.set_ylabel("the operator's memory, MiB")
    right.legend()
    for axes in (left, right):
        axes.set_xlabel("InferenceServers")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    figure.savefig(path)


def missed(what: str, result: Result) -> list[str]:
    """The bars that are missed."""
    if what == "ready":
        return at_least("servers that become Ready, of the limit", result["ofLimit"], OF_LIMIT)
    if what == "rest":
        lines = at_most("of a core at rest", result["ofACore"], OF_A_CORE)
        lines += at_most("memory at rest", result["memoryMiB"] * 2**20 / 1e6, MEMORY_MB, " MB")
        return lines + at_most("writes at rest", sum(result["writes"].values()), 0)
    if what == "restart":
        lines = at_most("until all are looked at after a restart", result["seconds"], RESTART_SECONDS, " s")
        return lines + at_most("writes of a restart", sum(result["writes"].values()), 0)
    if what == "edit":
        return at_most(
            "edits until their Deployment is changed, 99th percentile", result["percentile99"], EDIT_SECONDS, " s"
        )
    first, *later = result["furtherServers"] or [{}]
    return [
        line
        for row in later
        for name in ("milliseconds", "operatorCpuMilliseconds", "kilobytes")
        for line in at_most(
            f"{name} of a further server, {row['from']} to {row['to']}", row[name], LINEAR * first[name]
        )
    ]


def flat(result: Result, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Every number with the way to it."""
    for key, value in result.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flat(value, f"{name}.")
        elif isinstance(value, list):
            for index, row in enumerate(value):
                yield from flat(row, f"{name}[{index}].")
        else:
            yield name, value


def table(title: str, result: Result) -> Table:
    """The result for a person."""
    made = Table(title=title)
    made.add_column("")
    made.add_column("", justify="right")
    for name, value in flat(result):
        made.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    return made


MEASUREMENTS: dict[str, tuple[Callable[[Path, int], Result], int]] = {
    "ready": (measure_ready, 1000),
    "rest": (measure_rest, 3000),
    "restart": (measure_restart, 3000),
    "edit": (measure_edit, 1000),
}


def main() -> None:
    """Run one and print the result; exits with 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*MEASUREMENTS, "growth"))
    parser.add_argument("--servers", type=int, nargs="+", help="how many; of growth: several")
    parser.add_argument("--kserve", action="store_true", help="of ready: KServe in the same run, built here if need be")
    parser.add_argument("--plot", type=Path, help="of growth: a picture, .png or .svg")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    if options.kserve and options.what != "ready":
        parser.error("--kserve is of ready alone")
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "growth":
            result = measure_growth(Path(folder), options.servers or [300, 1000, 3000])
            if options.plot is not None:
                draw(result, options.plot)
        else:
            measurement, count = MEASUREMENTS[options.what]
            if options.kserve:
                kserve.manager()  # the build is no part of what is measured
                measurement = partial(measure_ready, beside_kserve=True)
            result = measurement(Path(folder), options.servers[0] if options.servers else count)
    emit(Output(options.output), result, lambda: table(options.what, result))
    hold(missed(options.what, result))


if __name__ == "__main__":
    main()
