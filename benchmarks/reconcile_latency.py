"""How fast the operator makes servers Ready and what that costs: memory, CPU and requests, beside the machine's limit.

``python benchmarks/reconcile_latency.py [--servers 200] [--output json]``

On the real control plane with simulated (kwok) nodes, so that pods are ready at once and what is measured is control:
first ``--servers`` plain Deployments with a Service each, applied from here, until each is available (the limit of
this machine), then as many ``InferenceServer`` objects until each is Ready. The second does more for each: nine
objects and a status. Compare the ratio: seconds depend on the machine and on who shares it. The operator runs as a
process of its own.
"""

import argparse
import asyncio
import json
import math
import re
import resource
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from gravswell.cli.output import Output, emit
from gravswell.kube import credentials
from gravswell.kube.client import Client
from gravswell.kube.resources import Selection
from gravswell.serving.contracts import LISTING_KEY, ListedEntry, ListedVersion, Listing
from gravswell_operator import names
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.resources import ResourceType
from gravswell_operator.devcluster import ControlPlane
from gravswell_operator.devcluster.kwok import KwokNodes
from gravswell_operator.devcluster.processes import Child

ROOT = Path(__file__).parents[1]
NAMESPACE = "bench"
PODS_PER_NODE = 50
WAIT_SECONDS = 600
API = "gravswell.dev/v1alpha1"
TOLERATION = {"key": "kwok.x-k8s.io/node", "operator": "Exists"}


def plain(name: str) -> list[dict[str, Any]]:
    """A Deployment of one pod, and a Service: the least that a server is."""
    labels = {"app": name}
    container = {"name": "c", "image": "none", "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}
    pod = {"containers": [container], "tolerations": [TOLERATION], "nodeSelector": {"type": "kwok"}}
    metadata = {"name": name, "namespace": NAMESPACE}
    template = {"metadata": {"labels": labels}, "spec": pod}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": 8001}]},
        },
    ]


def server(name: str) -> list[dict[str, Any]]:
    """An InferenceServer of one replica on the CPU."""
    spec = {
        "repositoryRef": {"name": "models"},
        "nodePoolRef": {"name": "simulated"},
        "models": "All",
        "tag": "24.08",
        "vcpus": "1m",
        "memory": "1Mi",
        "replicas": 1,
    }
    return [
        {"apiVersion": API, "kind": "InferenceServer", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}
    ]


def available(body: dict[str, Any]) -> bool:
    """Whether a Deployment's pod is ready."""
    return bool((body.get("status") or {}).get("availableReplicas"))


def ready(body: dict[str, Any]) -> bool:
    """Whether an object's condition Ready is True."""
    found = (body.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found)


async def measure(
    client: Client,
    kind: ResourceType,
    made: dict[str, list[dict[str, Any]]],
    done: Callable[[dict[str, Any]], bool],
) -> dict[str, float]:
    """Apply everything at once, and watch until the object of ``kind`` of each name is done."""
    applied: dict[str, float] = {}
    finished: dict[str, float] = {}
    complete = asyncio.Event()

    async def watch() -> None:
        async for change in client.watch(Selection(kind, NAMESPACE), "0", seconds=2 * WAIT_SECONDS):
            name = change.object["metadata"].get("name")  # a bookmark has none
            if name in made and name not in finished and done(change.object):
                finished[name] = time.perf_counter()
                if len(finished) == len(made):
                    complete.set()

    async def apply(name: str) -> None:
        for manifest in made[name]:
            of = next(k for k in (*resources.OWN, *resources.CHILDREN) if k.kind == manifest["kind"])
            await client.apply(of, manifest)
        applied[name] = time.perf_counter()

    watching = asyncio.create_task(watch())
    started = time.perf_counter()
    await asyncio.gather(*(apply(name) for name in made))
    await asyncio.wait_for(complete.wait(), WAIT_SECONDS)
    seconds = time.perf_counter() - started
    watching.cancel()
    latencies = sorted(max(finished[name] - applied[name], 0.0) for name in made)
    return {
        "seconds": seconds,
        "perSecond": len(made) / seconds,
        "latencyMedian": statistics.median(latencies),
        "latency95": latencies[math.ceil(0.95 * len(latencies)) - 1],
    }


def process_costs(pid: int, address: str) -> dict[str, float]:
    """Memory now and at most (MiB), CPU seconds, and requests of the operator so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found = re.search(r"^gravswell_api_requests_total (\S+)$", text, re.MULTILINE)
    assert found is not None
    return {
        "memoryMiB": int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024,
        "memoryPeakMiB": int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024,
        "cpuSeconds": ticks / 100,
        "requests": float(found[1]),
    }


async def run(cluster: ControlPlane, operator: Child, address: str, count: int) -> dict[str, Any]:
    """Both measurements, one after the other."""
    account = await credentials.from_kubeconfig(cluster.kubeconfig)
    async with Client(account, name="benchmark") as client:
        limit = await measure(
            client,
            resources.DEPLOYMENT,
            {f"plain-{i:04}": plain(f"plain-{i:04}") for i in range(count)},
            available,
        )
        before = process_costs(operator.process.pid, address)
        servers = await measure(
            client,
            resources.INFERENCE_SERVER,
            {f"server-{i:04}": server(f"server-{i:04}") for i in range(count)},
            ready,
        )
        after = process_costs(operator.process.pid, address)
    return {
        "servers": count,
        "plain": limit,
        "operator": servers
        | {
            "memoryIdleMiB": before["memoryMiB"],
            "memoryMiB": after["memoryMiB"],
            "memoryPeakMiB": after["memoryPeakMiB"],
            "kilobytesPerServer": 1024 * (after["memoryMiB"] - before["memoryMiB"]) / count,
            "cpuSeconds": after["cpuSeconds"] - before["cpuSeconds"],
            "requestsPerServer": (after["requests"] - before["requests"]) / count,
        },
    }


def prepare(cluster: ControlPlane) -> None:
    """The definitions, a namespace, the pool and repository that every server refers to, and one model in it."""
    cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
    cluster.kubectl("create", "namespace", NAMESPACE)
    pool = {
        "provider": {"type": "Static", "static": {"matchLabels": {"type": "kwok"}}},
        "accelerator": {"type": "Simulated-GPU", "count": 8},
        "taints": [{"key": "kwok.x-k8s.io/node"}],
    }
    # Suspended: a lister without a node that takes it would only be noise here. What it would say is said for it.
    url = "pvc://models/repository"
    repository = {"url": url, "suspend": True}
    entry = ListedEntry(name="model", versions=(ListedVersion(number=1, digest=f"{1:064x}"),))
    listing = Listing(repository=url, observed_at=datetime.now(UTC), accessible=True, entries=(entry,))
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_REPOSITORY: "models"}
    documents = [
        {"apiVersion": API, "kind": "GPUNodePool", "metadata": {"name": "simulated"}, "spec": pool},
        {
            "apiVersion": API,
            "kind": "ModelRepository",
            "metadata": {"name": "models", "namespace": NAMESPACE},
            "spec": repository,
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": names.listing_configmap("models"), "namespace": NAMESPACE, "labels": labels},
            "data": {LISTING_KEY: listing.to_json()},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "models"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadOnlyMany"],
                "hostPath": {"path": "/nowhere"},
                "claimRef": {"name": "models", "namespace": NAMESPACE},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models", "namespace": NAMESPACE},
            "spec": {
                "accessModes": ["ReadOnlyMany"],
                "storageClassName": "",
                "volumeName": "models",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
    ]
    cluster.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(document) for document in documents))


def table(result: dict[str, Any]) -> Table:
    """The result for a person."""
    made = Table(title=f"{result['servers']} servers on kwok nodes")
    for heading in ("", "plain Deployment + Service", "InferenceServer, by the operator"):
        made.add_column(heading, justify="right" if heading else "left")
    for key, words in (
        ("seconds", "until all are ready, s"),
        ("perSecond", "servers/s"),
        ("latencyMedian", "apply to ready, median, s"),
        ("latency95", "apply to ready, 95 %, s"),
    ):
        made.add_row(words, f"{result['plain'][key]:.2f}", f"{result['operator'][key]:.2f}")
    for key, words in (
        ("memoryIdleMiB", "operator's memory before, MiB"),
        ("memoryMiB", "operator's memory after, MiB"),
        ("memoryPeakMiB", "operator's memory at most, MiB"),
        ("kilobytesPerServer", "memory for each server, KiB"),
        ("cpuSeconds", "operator's CPU, s"),
        ("requestsPerServer", "requests for each server"),
    ):
        made.add_row(words, "", f"{result['operator'][key]:.1f}")
    return made


def main() -> None:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=200)
    parser.add_argument("--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, hard), hard) if soft < 65536 else (soft, hard))
    nodes = math.ceil(2 * options.servers / PODS_PER_NODE) + 1
    with (
        tempfile.TemporaryDirectory() as folder,
        ControlPlane(Path(folder) / "cluster") as cluster,
        KwokNodes(cluster, count=nodes),
    ):
        prepare(cluster)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        command = [sys.executable, "-m", "gravswell", "operator", "run", "--kubeconfig", cluster.kubeconfig]
        log = Path(folder) / "operator.log"
        operator = Child("operator", [*command, "--listen", address, "--no-lease", "--log-level=warning"], log=log)
        try:
            cluster.kubectl("wait", "--for=jsonpath={.status.readyNodes}", "gpunodepool/simulated", "--timeout=60s")
            result = asyncio.run(run(cluster, operator, address, options.servers))
        finally:
            operator.process.terminate()
            operator.process.wait(60)
    emit(Output(options.output), result, lambda: table(result))


if __name__ == "__main__":
    main()
