"""The Node object and its heartbeat."""

import asyncio
import logging
import os
import platform
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gravswell import __version__
from gravswell.errors import ConflictError, GravswellError, NotFoundError
from gravswell_operator.devcluster.api import STRATEGIC, Api
from gravswell_operator.devcluster.node.states import timestamp

log = logging.getLogger(__name__)

Document = dict[str, Any]

GPU = "nvidia.com/gpu"
GPU_PRODUCT = "Simulated-GPU"
SIMULATED = "gravswell.dev/simulated"
"""Annotation of nodes: what of their capacity is not there."""

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_LEASE_SECONDS = 40
_RENEW_SECONDS = 10


@dataclass(frozen=True)
class Capacity:
    """What the node offers to the scheduler. Nothing enforces it, so CPUs and memory may exceed the machine's."""

    gpus: int = 8
    cpus: int = max(64, os.cpu_count() or 1)
    memory_gib: int = 256
    pods: int = 200

    def resources(self, disk: Path) -> dict[str, str]:
        """Return it as Kubernetes writes it; storage is the real size of the disk of ``disk``."""
        return {
            "cpu": str(self.cpus),
            "memory": f"{self.memory_gib}Gi",
            "pods": str(self.pods),
            "ephemeral-storage": str(shutil.disk_usage(disk).total),
            GPU: str(self.gpus),
        }


def node_document(name: str, resources: dict[str, str], host: str, port: int) -> Document:
    """Return the Node as it is registered, ready at once."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "unknown"),
                "gravswell.dev/local-node": "true",
                f"{GPU}.product": GPU_PRODUCT,
                f"{GPU}.count": resources[GPU],
                f"{GPU}.present": "true",
            },
            "annotations": {SIMULATED: f"{GPU}, cpu, memory"},
        },
        "spec": {},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": conditions(ready=True),
            "addresses": [{"type": "InternalIP", "address": host}, {"type": "Hostname", "address": name}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "nodeInfo": {
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kernelVersion": platform.release(),
                "osImage": platform.system(),
                "containerRuntimeVersion": f"gravswell-processes://{__version__}",
                "kubeletVersion": f"gravswell-local-node/{__version__}",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "unknown"),
            },
        },
    }


def conditions(*, ready: bool) -> list[Document]:
    """Return the node's conditions."""
    now = timestamp()
    rows = [
        ("MemoryPressure", False, "KubeletHasSufficientMemory", ""),
        ("DiskPressure", False, "KubeletHasNoDiskPressure", ""),
        ("PIDPressure", False, "KubeletHasSufficientPID", ""),
        (
            "Ready",
            ready,
            "KubeletReady" if ready else "KubeletNotReady",
            "the local node runs pods as processes; its GPUs are simulated" if ready else "the local node was stopped",
        ),
    ]
    return [
        {
            "type": kind,
            "status": "True" if value else "False",
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        for kind, value, reason, message in rows
    ]


async def register(api: Api, node: Document) -> Document:
    """Create the Node, or bring an existing one up to date; return it."""
    path = f"/api/v1/nodes/{node['metadata']['name']}"
    try:
        return await api.create("/api/v1/nodes", node)
    except ConflictError:
        labels = {"metadata": {key: node["metadata"][key] for key in ("labels", "annotations")}}
        await api.patch(path, labels)
        return await api.patch(f"{path}/status", {"status": node["status"]}, kind=STRATEGIC)


async def leave(api: Api, name: str) -> None:
    """Say that the node is not ready, so that nothing waits for it; an API server that is gone needs no telling."""
    try:
        await api.patch(
            f"/api/v1/nodes/{name}/status", {"status": {"conditions": conditions(ready=False)}}, kind=STRATEGIC
        )
    except GravswellError as error:
        log.info("node %s could not be marked as stopped: %s", name, error)


async def heartbeat(api: Api, node: Document) -> None:
    """Renew the node's Lease, for ever."""
    name = node["metadata"]["name"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}
    while True:
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": _LEASE_SECONDS,
            "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        try:
            try:
                await api.patch(f"{_LEASES}/{name}", {"spec": spec})
            except NotFoundError:
                lease = {"metadata": {"name": name, "ownerReferences": [owner]}, "spec": spec}
                await api.create(_LEASES, lease)
        except GravswellError as error:
            log.warning("lease not renewed: %s", error)
            await asyncio.sleep(1)
        else:
            await asyncio.sleep(_RENEW_SECONDS)
