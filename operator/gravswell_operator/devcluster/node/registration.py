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
from gravswell.errors import GravswellError
from gravswell.kube.client import Client
from gravswell.kube.errors import ApiConflictError, ApiNotFoundError
from gravswell.kube.resources import LEASE, NODE
from gravswell_operator.devcluster.node.states import timestamp

log = logging.getLogger(__name__)

Document = dict[str, Any]

GPU = "nvidia.com/gpu"
GPU_PRODUCT = "Simulated-GPU"
SIMULATED = "gravswell.dev/simulated"
"""Annotation of nodes: what of their capacity is not there."""

_LEASE_NAMESPACE = "kube-node-lease"
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


async def register(client: Client, node: Document) -> Document:
    """Create the Node, or bring an existing one up to date; return it."""
    name = node["metadata"]["name"]
    try:
        return await client.create(NODE, node)
    except ApiConflictError:
        labels = {"metadata": {key: node["metadata"][key] for key in ("labels", "annotations")}}
        await client.merge(NODE, None, name, labels)
        status = {"status": node["status"]}
        return await client.merge(NODE, None, name, status, subresource="status", strategic=True)


async def leave(client: Client, name: str) -> None:
    """Say that the node is not ready, so that nothing waits for it; an API server that is gone needs no telling."""
    try:
        status = {"status": {"conditions": conditions(ready=False)}}
        await client.merge(NODE, None, name, status, subresource="status", strategic=True)
    except GravswellError as error:
        log.info("node %s could not be marked as stopped: %s", name, error)


async def heartbeat(client: Client, node: Document) -> None:
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
                await client.merge(LEASE, _LEASE_NAMESPACE, name, {"spec": spec})
            except ApiNotFoundError:
                metadata = {"name": name, "namespace": _LEASE_NAMESPACE, "ownerReferences": [owner]}
                await client.create(LEASE, {"metadata": metadata, "spec": spec})
        except GravswellError as error:
            log.warning("lease not renewed: %s", error)
            await asyncio.sleep(1)
        else:
            await asyncio.sleep(_RENEW_SECONDS)
