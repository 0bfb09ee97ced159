"""The real Karpenter with its kwok provider: it launches and removes simulated nodes for pods that wait.

Its controllers are those that run in a cloud; what a cloud would make, a machine, is a node that kwok keeps alive.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gravswell_operator.devcluster.binaries import KARPENTER, ensure_binaries
from gravswell_operator.devcluster.controlplane import HOST, ControlPlane
from gravswell_operator.devcluster.gobuild import module_folder
from gravswell_operator.devcluster.kwok import STAGES
from gravswell_operator.devcluster.node.registration import GPU
from gravswell_operator.devcluster.processes import Servers

NODE_STAGES = Path(__file__).with_name("karpenter-nodes.yaml")
NODE_CLASS = {"apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass", "metadata": {"name": "default"}}
INSTANCE_LABELS = {
    "acceleratorType": "karpenter.kwok.sh/instance-family",
    "acceleratorCount": "karpenter.kwok.sh/instance-size",
    "vcpus": "karpenter.kwok.sh/instance-cpu",
}
"""For a GPUNodePool's ``instanceLabels``. The simulated cloud knows no label for GPUs, and takes the number of vCPUs
for a machine's size: so a :class:`Machine` has as many of them as GPUs."""
_CRDS = ("pkg/apis/crds", "kwok/apis/crds")


@dataclass(frozen=True)
class Machine:
    """One type of machine that the simulated cloud offers: as many GPUs as vCPUs."""

    family: str
    """What its GPUs are called: lower-case letters and digits."""
    gpus: int
    price: float = 1.0
    """By which Karpenter chooses."""

    def document(self) -> dict[str, Any]:
        """As Karpenter's kwok provider reads it."""
        place = {"topology.kubernetes.io/zone": "test-zone-a", "karpenter.sh/capacity-type": "on-demand"}
        wanted = [{"key": key, "operator": "In", "values": [value]} for key, value in place.items()]
        size = {"cpu": str(self.gpus), "memory": f"{16 * self.gpus}Gi", "ephemeral-storage": "500Gi"}
        return {
            "name": f"{self.family}-{self.gpus}",
            "offerings": [{"Price": self.price, "Available": True, "Requirements": wanted}],
            "architecture": "amd64",
            "operatingSystems": ["linux"],
            "resources": {**size, GPU: str(self.gpus)},
        }


def install_definitions(control_plane: ControlPlane) -> None:
    """Apply Karpenter's definitions, as its chart would, and a node class ``default`` of the simulated cloud."""
    folder = module_folder(KARPENTER)
    for part in _CRDS:
        control_plane.kubectl("apply", "--server-side", "-f", str(folder / part))
    names = ("nodepools.karpenter.sh", "nodeclaims.karpenter.sh", "kwoknodeclasses.karpenter.kwok.sh")
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in names))
    control_plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(NODE_CLASS))


class KarpenterKwok(Servers):
    """Karpenter beside a control plane that has its definitions, and a kwok that keeps its nodes alive.

    Its ports are on every interface, for Karpenter has no setting for that; what they show is metrics and health.

    Args:
        control_plane: see :func:`install_definitions`.
        machines: what the simulated cloud offers.
        static_capacity: whether Karpenter keeps NodePools with a fixed number of replicas, an alpha feature of its.
    """

    def __init__(
        self, control_plane: ControlPlane, machines: Sequence[Machine], *, static_capacity: bool = True
    ) -> None:
        super().__init__(control_plane.logs)
        self._control_plane = control_plane
        self._machines = tuple(machines)
        self._gates = f"StaticCapacity={str(static_capacity).lower()}"

    def _start(self) -> None:
        binaries = ensure_binaries(names=["kwok", "karpenter"])
        offered = self._control_plane.directory / "machines.json"
        offered.write_text(json.dumps([machine.document() for machine in self._machines]))
        port = self._free_port(HOST)
        self._spawn(
            "kwok",
            [
                binaries["kwok"],
                f"--kubeconfig={self._control_plane.kubeconfig}",
                f"--config={STAGES}",
                f"--config={NODE_STAGES}",
                "--manage-nodes-with-label-selector=karpenter.sh/nodepool",
                "--node-lease-duration-seconds=40",
                "--cidr=10.64.0.0/10",
                "--v=WARN",
            ],
            log="kwok-karpenter.log",
        )
        environment = {
            "KUBECONFIG": str(self._control_plane.kubeconfig),
            "SYSTEM_NAMESPACE": "kube-system",
            "DISABLE_LEADER_ELECTION": "true",
            "METRICS_PORT": "0",
            "HEALTH_PROBE_PORT": str(port),
            "FEATURE_GATES": self._gates,
            "INSTANCE_TYPES_FILE_PATH": str(offered),
            "KUBERNETES_MIN_VERSION": "1.19.0-0",
        }
        child = self._spawn(
            "karpenter", [binaries["karpenter"]], log="karpenter.log", environment={**os.environ, **environment}
        )
        self._wait(child, lambda: _ready(port))


def _ready(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{HOST}:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
