"""How the demo's client reaches the replicas: at their own addresses, or through kubectl's port-forward."""

import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gravswell.errors import ConflictError, UnavailableError
from gravswell_operator.demo.objects import NAMESPACE
from gravswell_operator.devcluster.kubectl import Kubectl
from gravswell_operator.devcluster.node.addresses import Addresses, refusal
from gravswell_operator.devcluster.processes import Child
from gravswell_operator.names import PORT_GRPC, PORT_HTTP, PORT_METRICS

SERVER = "digits"
FORWARD_TIMEOUT = 60.0
"""Seconds for kubectl to listen; it asks the API server first, which may be far away."""


def replicas(kubectl: Kubectl, stack: ExitStack) -> list[str]:
    """gRPC addresses of the server's ready replicas, for as long as ``stack`` is open.

    A pod of the development cluster has a loopback address of its own (and EndpointSlices refuse those, so there is no
    Service to go through); to any other cluster's pods kubectl forwards a port.
    """
    pods = kubectl.items("pods", f"--namespace={NAMESPACE}", f"--selector=gravswell.dev/server={SERVER}")
    ready = [pod for pod in pods if _is_ready(pod)]
    if not ready:
        raise UnavailableError(f"no pod of InferenceServer {SERVER} is ready; kubectl describe isrv {SERVER} says why")
    return [_address(kubectl, stack, pod) for pod in ready]


def require_free_ports(ports: Sequence[int] = (PORT_HTTP, PORT_GRPC, PORT_METRICS)) -> None:
    """Raise :class:`ConflictError` where no pod of the development cluster could listen on ``ports``."""
    address = Addresses().take()
    for port in ports:
        if (error := refusal(address, port)) is not None:
            raise ConflictError(
                f"port {port} is taken on every address of this machine, and Triton's pods listen there: stop the "
                f"program that has it (ss -ltnp 'sport = :{port}' names it), or leave Kubernetes out (--no-cluster)"
            ) from error


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def _address(kubectl: Kubectl, stack: ExitStack, pod: dict[str, Any]) -> str:
    address = pod["status"]["podIP"]
    if ip_address(address).is_loopback:
        return f"{address}:{PORT_GRPC}"
    return forward(kubectl, stack, f"pod/{pod['metadata']['name']}", PORT_GRPC, namespace=NAMESPACE)


def forward(kubectl: Kubectl, stack: ExitStack, target: str, port: int, *, namespace: str) -> str:
    """A loopback address, ``IP:port``, that leads to ``port`` of ``target`` for as long as ``stack`` is open.

    ``target`` is ``pod/NAME`` or ``service/NAME``. Raises :class:`UnavailableError` with kubectl's words.
    """
    # To a file, since it goes on writing: a line for each connection.
    log = Path(stack.enter_context(TemporaryDirectory(prefix="gravswell-forward-"))) / "kubectl.log"
    command = kubectl.command("port-forward", f"--namespace={namespace}", target, f":{port}")
    child = Child(f"kubectl port-forward to {target}", command, log=log)
    stack.callback(child.stop)
    deadline = time.monotonic() + FORWARD_TIMEOUT
    while True:
        ended = not child.running  # read before its last words
        said = log.read_text(errors="replace")
        if match := re.search(r"127\.0\.0\.1:(\d+) -> ", said):
            return f"127.0.0.1:{match[1]}"
        if ended or time.monotonic() > deadline:
            silent = "it ended" if ended else f"it did not listen within {FORWARD_TIMEOUT:.0f} s"
            raise UnavailableError(f"{child.name} failed: {said.strip() or silent}")
        time.sleep(0.05)
