"""The control plane, simulated nodes and operator that the operator's benchmarks run on, and what they read off it."""

import json
import math
import os
import re
import resource
import socket
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from gravswell.serving.contracts import LISTING_KEY, ListedEntry, ListedVersion, Listing
from gravswell_operator import names
from gravswell_operator.devcluster import ControlPlane
from gravswell_operator.devcluster.kwok import KwokNodes
from gravswell_operator.devcluster.processes import Child

ROOT = Path(__file__).parents[1]
NAMESPACE = "bench"
API = "gravswell.dev/v1alpha1"
POOL, REPOSITORY = "simulated", "models"
URL = "pvc://models/repository"
PODS_PER_NODE = 200
WAIT_SECONDS = 1800.0
MIB = 1024.0

Counts = Counter[tuple[str, str]]
"""Requests that the API server answered, by verb and resource."""

_REQUESTS = "gravswell_api_requests_total"
_READS = {"GET", "LIST", "WATCH", "CONNECT"}
_REQUEST = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
_SERIES = re.compile(r"^(\w+)(?:\{.*\})? (\S+)$", re.MULTILINE)


@contextmanager
def cluster_of(folder: Path, pods: int, namespaces: Sequence[str] = (NAMESPACE,)) -> Iterator[ControlPlane]:
    """A control plane of its own in ``folder``, with simulated nodes enough for ``pods``, prepared for servers in these
    ``namespaces``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, hard), hard) if soft < 65536 else (soft, hard))
    nodes = math.ceil(pods / PODS_PER_NODE) + 1
    with ControlPlane(folder) as cluster, KwokNodes(cluster, count=nodes):
        cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        pool = {"apiVersion": API, "kind": "GPUNodePool", "metadata": {"name": POOL}, "spec": pool_spec()}
        documents = [pool, *(document for namespace in namespaces for document in _prepared(namespace))]
        cluster.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(document) for document in documents))
        yield cluster


def _prepared(namespace: str) -> list[dict[str, Any]]:
    """A namespace, the repository there that every server of it refers to, and one model in that."""
    entry = ListedEntry(name="model", versions=(ListedVersion(number=1, digest=f"{1:064x}"),))
    listing = Listing(repository=URL, observed_at=datetime.now(UTC), accessible=True, entries=(entry,))
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_REPOSITORY: REPOSITORY}
    volume = f"models-{namespace}"
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {
            "apiVersion": API,
            "kind": "ModelRepository",
            "metadata": {"name": REPOSITORY, "namespace": namespace},
            "spec": repository_spec(),
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": names.listing_configmap(REPOSITORY), "namespace": namespace, "labels": labels},
            "data": {LISTING_KEY: listing.to_json()},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadOnlyMany"],
                "hostPath": {"path": "/nowhere"},
                "claimRef": {"name": "models", "namespace": namespace},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models", "namespace": namespace},
            "spec": {
                "accessModes": ["ReadOnlyMany"],
                "storageClassName": "",
                "volumeName": volume,
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
    ]


def pool_spec() -> dict[str, Any]:
    """The simulated nodes as a pool."""
    return {
        "provider": {"type": "Static", "static": {"matchLabels": {"type": "kwok"}}},
        "accelerator": {"type": "Simulated-GPU", "count": 8},
        "taints": [{"key": "kwok.x-k8s.io/node"}],
    }


def repository_spec() -> dict[str, Any]:
    """Suspended: a lister without a node that takes it would only be noise. What it would say is said for it."""
    return {"url": URL, "suspend": True}


def server(name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
    """An InferenceServer of one replica on the CPU."""
    spec = {
        "repositoryRef": {"name": REPOSITORY},
        "nodePoolRef": {"name": POOL},
        "models": "All",
        "tag": "24.08",
        "vcpus": "1m",
        "memory": "1Mi",
        "replicas": 1,
    }
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": API, "kind": "InferenceServer", "metadata": metadata, "spec": spec}


class Operator:
    """``gravswell operator run`` as a process of its own, without a Lease."""

    def __init__(self, cluster: ControlPlane, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "gravswell",
            "operator",
            "run",
            "--kubeconfig",
            cluster.kubeconfig,
        ]
        self.begun = time.perf_counter()
        arguments = (*command, "--listen", self._address, "--no-lease", "--log-level=warning")
        self._child = Child("operator", arguments, log=log)
        self._log = log

    @property
    def pid(self) -> int:
        """Its process."""
        return self._child.process.pid

    def __enter__(self) -> "Operator":
        return self

    def __exit__(self, *_: object) -> None:
        self._child.process.terminate()
        self._child.process.wait(60)

    def _check_alive(self) -> None:
        assert self._child.process.poll() is None, f"the operator has ended: {self._log.read_text()[-2000:]}"

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; 0 where nobody answers yet."""
        try:
            text = self._metrics()
        except urllib.error.URLError:
            return 0.0
        return sum(float(value) for series, value in _SERIES.findall(text) if series == name)

    def writes(self) -> Counter[str]:
        """:func:`own_writes` so far."""
        return own_writes(self._metrics())

    def _metrics(self) -> str:
        self._check_alive()
        with urllib.request.urlopen(f"http://{self._address}/metrics", timeout=60) as answer:
            text: str = answer.read().decode()
        return text

    def ready(self) -> bool:
        """Whether it has looked at everything and watches."""
        self._check_alive()
        try:
            with urllib.request.urlopen(f"http://{self._address}/readyz", timeout=60) as answer:
                return bool(answer.status == 200)
        except urllib.error.URLError:
            return False

    def settled(self) -> bool:
        """Whether it is ready and has no work left."""
        return self.ready() and self.metric("gravswell_queue_length") == 0

    def until_settled(self) -> float:
        """Wait for :meth:`settled`; the seconds since it was started."""
        end = time.monotonic() + WAIT_SECONDS
        while not self.settled():
            assert time.monotonic() < end, f"not settled within {WAIT_SECONDS} s: {self._log.read_text()[-2000:]}"
            time.sleep(0.1)
        return time.perf_counter() - self.begun


@dataclass(frozen=True)
class Usage:
    """What a process has used so far."""

    cpu_seconds: float
    memory_mib: float
    peak_mib: float


def usage(pid: int) -> Usage:
    """CPU time so far, memory now and at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return Usage(
        (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / MIB,
        int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / MIB,
    )


def cpu_by_process() -> dict[str, float]:
    """CPU seconds so far of this process and of each of its children, by their programs' names."""
    found: dict[str, float] = {"benchmark": usage(os.getpid()).cpu_seconds}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = status.read_text().split(" (", 1)
        except OSError:
            continue  # it has ended meanwhile
        name, fields = rest.rsplit(")", 1)
        if int(fields.split()[1]) == os.getpid():
            found["operator" if name.startswith(("python", "gravswell")) else name] = usage(int(pid)).cpu_seconds
    return found


def requests(cluster: ControlPlane) -> Counts:
    """What the API server has answered so far."""
    counts: Counts = Counter()
    for labels, value in _REQUEST.findall(cluster.kubectl("get", "--raw", "/metrics")):
        found = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        name = found["resource"] + (f"/{found['subresource']}" if found["subresource"] else "")
        counts[found["verb"], name] += float(value)  # type: ignore[assignment]
    return counts


def own_writes(metrics: str) -> Counter[str]:
    """Of an operator's requests by its ``metrics``, those that may change something, by ``VERB kind``."""
    families = text_string_to_metric_families(metrics)
    counts: Counter[str] = Counter()
    for sample in (sample for family in families for sample in family.samples if sample.name == _REQUESTS):
        verb = sample.labels["verb"].upper()
        if verb not in _READS:
            counts[f"{verb} {sample.labels['kind']}"] += int(sample.value)
    return counts


def writes(counts: Counts) -> dict[str, int]:
    """Of these, those that may change something, by ``VERB resource``."""
    return {f"{verb} {name}": int(n) for (verb, name), n in sorted(counts.items()) if verb not in _READS and n > 0}
