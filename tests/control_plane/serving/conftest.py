"""The operator as a process under the chart's own role, and the local node, whose pods are real: a real Triton answers.

``cluster``     a control plane of these tests' own, with the local node and nothing else
``operator``    the running operator
``place``       a namespace of the test module's own, and a folder of published versions
"""

import json
import os
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gravswell_operator.devcluster import ControlPlane, LocalNode
from gravswell_operator.devcluster.controlplane import NODE_NAME

from ...serving.agent.versions import WIDTH, publish
from ..operating import Namespace, OperatorProcess, conditions, control_plane, node_of_cluster, operator_of_cluster

ENTRY = "scale"


class Place(Namespace):
    """A namespace whose pods are real, and a repository of one entry, ``scale``, beside it."""

    def __init__(self, cluster: ControlPlane, namespace: str, node: LocalNode, folder: Path) -> None:
        super().__init__(cluster, namespace)
        self.repository, self._pods = folder, node.directory / "pods" / namespace
        self.volumes: list[str] = []
        """What it has made outside of the namespace."""

    def publish(self, number: int) -> None:
        """Publish a version whose answers are ``number`` times what is sent."""
        publish(self.repository, ENTRY, number, float(number))

    def make_repository(self, name: str = "models", **spec: Any) -> None:
        self.apply("ModelRepository", name, **{"url": self.repository.as_uri(), "syncInterval": "5s", **spec})

    def make_server(self, name: str = "server", **spec: Any) -> None:
        defaults: dict[str, Any] = {"repositoryRef": {"name": "models"}, "tag": "24.08", "vcpus": "100m"}
        if "autoscaling" not in spec:
            defaults["replicas"] = 1
        self.apply("InferenceServer", name, **{**defaults, **spec})

    def make_model(self, name: str = ENTRY, **spec: Any) -> None:
        self.apply("Model", name, **{"serverRef": {"name": "server"}, "entry": ENTRY, **spec})

    def make_claim(self, name: str, folder: Path) -> None:
        """A volume of the local node that holds ``folder``, and a claim for it."""
        here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
        size, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
        volume = {
            "capacity": size,
            "accessModes": modes,
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        }
        claim = {
            "accessModes": modes,
            "resources": {"requests": size},
            "storageClassName": "",
            "volumeName": f"{self.namespace}-{name}",
        }
        self.create("v1", "PersistentVolume", f"{self.namespace}-{name}", spec=volume)
        self.volumes.append(f"{self.namespace}-{name}")
        self.create("v1", "PersistentVolumeClaim", name, spec=claim)

    def until_serving(self, version: int) -> None:
        """Wait until everything is Ready and the Model's ``version`` is what the pods serve."""
        self.condition("modelrepository", "models", status="True")
        self.condition("inferenceserver", "server", status="True")
        self.until(lambda: self.model_status().get("loadedVersion") == version)
        self.condition("model", ENTRY, status="True")

    def model_status(self) -> dict[str, Any]:
        """Of the Model ``scale``; empty before the operator has seen it."""
        return (self.get("model", ENTRY) or {}).get("status") or {}

    def until_one_replica(self) -> None:
        """Wait until the server has one pod that is not going, and that takes traffic."""

        def one() -> bool:
            pods = self.objects("pods", selector="app.kubernetes.io/name=triton")
            staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
            return [conditions(pod).get("Ready", {}).get("status") for pod in staying] == ["True"]

        self.until(one)

    def pod(self, role: str = "triton") -> dict[str, Any]:
        """The one pod of a role that is not going."""
        (pod,) = (
            pod
            for pod in self.objects("pods", selector=f"app.kubernetes.io/name={role}")
            if "deletionTimestamp" not in pod["metadata"]
        )
        return pod

    def replaced(self, *uids: str) -> bool:
        """Whether no pod of these is left, but for those that are going."""
        pods = (pod["metadata"] for pod in self.objects("pods"))
        return not {pod["uid"] for pod in pods if "deletionTimestamp" not in pod} & set(uids)

    def answer(self, entry: str = ENTRY) -> float:
        """By how much the model that serves ``entry`` multiplies, asked of the server's pod itself."""
        address = self.pod()["status"]["podIP"]
        ones = {"name": "x", "shape": [1, WIDTH], "datatype": "FP32", "data": [1.0] * WIDTH}
        request = urllib.request.Request(
            f"http://{address}:8000/v2/models/{entry}/infer", data=json.dumps({"inputs": [ones]}).encode()
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            (output,) = json.loads(response.read())["outputs"]
        (factor,) = set(output["data"])
        return float(factor)

    def environments(self, pod: dict[str, Any], container: str) -> list[dict[str, str]]:
        """The environments that a running container's processes were started with, the first one's first."""
        statuses = {status["name"]: status for status in pod["status"]["containerStatuses"]}
        first = int(statuses[container]["containerID"].rpartition("/")[2])
        everybody = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
        found = [_environment(first)]
        for process in everybody:
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
                if process != first and os.getsid(process) == first:  # as every process of a container is of its first
                    found.append(_environment(process))
        return found

    def token(self, pod: dict[str, Any]) -> str:
        """The token that is projected into a pod."""
        return (self._pods / pod["metadata"]["name"] / "volumes/token/token").read_text()


def _environment(process: int) -> dict[str, str]:
    variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return dict(variable.decode().split("=", 1) for variable in variables if b"=" in variable)


cluster = control_plane("serving")


local_node = node_of_cluster()


operator = operator_of_cluster("local_node")


@pytest.fixture(scope="module")
def place(
    cluster: ControlPlane, operator: OperatorProcess, local_node: LocalNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    folder = tmp_path_factory.mktemp("repository") / "zoo"
    folder.mkdir()
    cluster.kubectl("create", "namespace", name)
    made = Place(cluster, name, local_node, folder)
    made.publish(1)
    yield made
    cluster.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")
    for volume in made.volumes:
        cluster.kubectl("delete", "persistentvolume", volume, "--wait=false")
