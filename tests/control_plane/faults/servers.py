"""The control plane's own servers, as they fail: killed, started again with the same data, their history compacted."""

import json
import os
import signal
import ssl
import time
import urllib.request
from pathlib import Path
from typing import Any

from gravswell_operator.devcluster import ControlPlane
from gravswell_operator.devcluster.processes import Child

from ..operating import api_of, wait_until
from .busy import patiently

READY_SECONDS = 120


def kill(cluster: ControlPlane, name: str) -> None:
    """End a server of the control plane at once. Its data is kept: only a machine that crashes would lose it."""
    child = _child(cluster, name)
    os.kill(child.pid, signal.SIGKILL)
    child.process.wait(READY_SECONDS)


def start(cluster: ControlPlane, name: str) -> None:
    """Start a server that was killed again, as it was started before."""
    children = cluster._children
    old = _child(cluster, name)
    arguments = old.process.args
    assert isinstance(arguments, list)
    children[children.index(old)] = Child(name, [str(part) for part in arguments], log=old.log)


def restart(cluster: ControlPlane, *names: str, down: float = 1.0) -> None:
    """Kill servers, and start them again ``down`` seconds later, the last one first; return when all is ready."""
    for name in names:
        kill(cluster, name)
    time.sleep(down)
    for name in reversed(names):
        start(cluster, name)
    until_ready(cluster)


def until_ready(cluster: ControlPlane) -> None:
    """Wait until the API server answers."""
    context = ssl.create_default_context(cafile=str(cluster.pki / "ca.crt"))
    wait_until(lambda: cluster._get("/readyz", context) == 200, READY_SECONDS)
    patiently(lambda: api_of(cluster).list("namespaces", ""))  # on a new connection


def compact(cluster: ControlPlane) -> int:
    """Let etcd forget all but the present; the revision that is the first one it knows."""
    revision = int(_etcd(cluster, "range", {"key": "AA=="})["header"]["revision"])
    _etcd(cluster, "compaction", {"revision": str(revision), "physical": True})
    return revision


def _etcd(cluster: ControlPlane, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    """etcd's own API, by its JSON gateway."""
    arguments = _child(cluster, "etcd").process.args
    assert isinstance(arguments, list)
    url = next(a.partition("=")[2] for a in map(str, arguments) if a.startswith("--listen-client-urls="))
    pki: Path = cluster.pki
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "etcd.crt", pki / "etcd.key")
    request = urllib.request.Request(f"{url}/v3/kv/{verb}", json.dumps(body).encode(), method="POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def _child(cluster: ControlPlane, name: str) -> Child:
    return next(child for child in cluster._children if child.name == name)
