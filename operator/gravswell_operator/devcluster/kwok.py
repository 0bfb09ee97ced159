"""Simulated nodes for scale: kwok keeps them alive and their pods ready; nothing of those pods runs."""

import asyncio
from pathlib import Path
from typing import Any

from gravswell.errors import InvalidInputError
from gravswell.kube import credentials
from gravswell.kube.client import Client
from gravswell.kube.errors import ApiConflictError
from gravswell.kube.resources import NODE
from gravswell_operator.devcluster.binaries import ensure_binaries
from gravswell_operator.devcluster.controlplane import HOST, ControlPlane
from gravswell_operator.devcluster.node.registration import GPU, GPU_PRODUCT, SIMULATED
from gravswell_operator.devcluster.node.states import timestamp
from gravswell_operator.devcluster.processes import Servers

STAGES = Path(__file__).with_name("stages.yaml")
TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
SELECTOR = "type=kwok"

_PARALLEL = 50  # nodes created at a time


class KwokNodes(Servers):
    """``count`` simulated nodes ``kwok-0000``... with ``gpus`` simulated GPUs each, and kwok, which keeps them alive.

    Pods come to them only if they tolerate the taint ``kwok.x-k8s.io/node=fake:NoSchedule``; their label is
    ``type=kwok``. ``start`` creates the nodes, ready; after ``stop`` they stay as objects and turn not ready.
    """

    def __init__(
        self, control_plane: ControlPlane, *, count: int, gpus: int = 8, gpu_product: str = GPU_PRODUCT
    ) -> None:
        if count < 1:
            raise InvalidInputError(f"{count} kwok nodes cannot be; give at least one")
        super().__init__(control_plane.logs, stop_timeout=5.0)
        self._control_plane = control_plane
        self._count = count
        self._gpus = gpus
        self._product = gpu_product

    def _start(self) -> None:
        binary = ensure_binaries(names=["kwok"])["kwok"]
        asyncio.run(self._create())
        self._spawn(
            "kwok",
            [
                binary,
                f"--kubeconfig={self._control_plane.kubeconfig}",
                f"--config={STAGES}",
                f"--manage-nodes-with-label-selector={SELECTOR}",
                "--node-lease-duration-seconds=40",
                "--cidr=10.128.0.0/9",
                "--v=WARN",
            ],
            log="kwok.log",
        )

    async def _create(self) -> None:
        free = asyncio.Semaphore(_PARALLEL)

        async def create(index: int) -> None:
            async with free:
                try:
                    await client.create(NODE, node_document(f"kwok-{index:04d}", self._gpus, self._product))
                except ApiConflictError:
                    return  # from an earlier start

        account = await credentials.from_kubeconfig(self._control_plane.kubeconfig)
        async with Client(account, name="gravswell-kwok") as client, asyncio.TaskGroup() as group:
            for index in range(self._count):
                group.create_task(create(index))


def node_document(name: str, gpus: int, product: str) -> dict[str, Any]:
    """Return one simulated node, ready at once."""
    now = timestamp()
    resources = {"cpu": "64", "memory": "512Gi", "pods": "250", "ephemeral-storage": "1Ti", GPU: str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "type": "kwok",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                f"{GPU}.product": product,
                f"{GPU}.count": str(gpus),
                f"{GPU}.present": "true",
            },
            "annotations": {"kwok.x-k8s.io/node": "fake", SIMULATED: "everything"},
        },
        "spec": {"taints": [TAINT]},
        "status": {
            "phase": "Running",
            "capacity": resources,
            "allocatable": resources,
            "addresses": [{"type": "InternalIP", "address": HOST}, {"type": "Hostname", "address": name}],
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "KubeletReady",
                    "message": "simulated by kwok",
                    "lastHeartbeatTime": now,
                    "lastTransitionTime": now,
                }
            ],
        },
    }
