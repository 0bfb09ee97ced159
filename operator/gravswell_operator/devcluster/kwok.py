"""Simulated nodes for scale: kwok keeps them alive and their pods ready; nothing of those pods runs."""

import asyncio
from pathlib import Path
from typing import Any, Self

from gravswell.errors import InvalidInputError
from gravswell.kube import credentials
from gravswell.kube.client import Client
from gravswell.kube.errors import ApiConflictError
from gravswell.kube.resources import NODE
from gravswell_operator.devcluster.binaries import ensure_binaries
from gravswell_operator.devcluster.controlplane import HOST, ControlPlane
from gravswell_operator.devcluster.node.registration import GPU, GPU_PRODUCT, SIMULATED
from gravswell_operator.devcluster.node.states import timestamp
from gravswell_operator.devcluster.processes import Child

STAGES = Path(__file__).with_name("stages.yaml")
TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
SELECTOR = "type=kwok"

_PARALLEL = 50  # nodes created at a time


class KwokNodes:
    """``count`` simulated nodes ``kwok-0000``... with ``gpus`` simulated GPUs each; a context manager.

    Pods come to them only if they tolerate the taint ``kwok.x-k8s.io/node=fake:NoSchedule``; their label is
    ``type=kwok``. Start it from a thread that outlives it, as :class:`ControlPlane`.
    """

    def __init__(
        self, control_plane: ControlPlane, *, count: int, gpus: int = 8, gpu_product: str = GPU_PRODUCT
    ) -> None:
        if count < 1:
            raise InvalidInputError(f"{count} kwok nodes cannot be; give at least one")
        self._control_plane = control_plane
        self._count = count
        self._gpus = gpus
        self._product = gpu_product
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Create the nodes, ready, and start kwok for them."""
        binary = ensure_binaries(names=["kwok"])["kwok"]
        asyncio.run(self._create())
        self._child = Child(
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
            log=self._control_plane.logs / "kwok.log",
        )

    def require_running(self) -> None:
        """Raise :class:`UnavailableError` with the log's end if kwok has ended."""
        if self._child is not None:
            self._child.require_running()

    def stop(self) -> None:
        """Stop kwok; its nodes stay as objects and turn not ready. Idempotent."""
        if self._child is not None:
            self._child.stop(5)
            self._child = None

    async def _create(self) -> None:
        free = asyncio.Semaphore(_PARALLEL)

        async def create(index: int) -> None:
            async with free:
                try:
                    await client.create(NODE, node_document(f"kwok-{index:04d}", self._gpus, self._product))
                except ApiConflictError:
                    return  # from an earlier start

        configuration = await credentials.from_kubeconfig(self._control_plane.kubeconfig)
        async with Client(configuration, name="gravswell-kwok") as client, asyncio.TaskGroup() as group:
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
