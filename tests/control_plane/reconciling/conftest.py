"""The operator as a process on the real control plane, under the chart's own role, with simulated nodes.

The pods run on kwok nodes: they are scheduled, become ready and go, but nothing in them runs. So the tests write into
the listing and report ConfigMaps what a lister and agents would; the documents are the library's own.

``operator``    the running operator; ``restart()``, ``stop()``, ``start()``, ``metric(name)``
``world``       a namespace of the test's own, with ``apply``, ``get``, ``ready``, ``publish``, ``report``...
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from gravswell.errors import GravswellError
from gravswell.serving.contracts import (
    LISTING_KEY,
    ListedEntry,
    ListedVersion,
    Listing,
    ModelReport,
    ModelState,
    Report,
)
from gravswell_operator.devcluster import ControlPlane
from gravswell_operator.devcluster.kwok import KwokNodes

from ..operating import Namespace, OperatorProcess, control_plane, operator_of_cluster, wait_until

GPUS = 8
"""Of each simulated node."""


def digest(number: int) -> str:
    """The digest of version ``number`` in these tests."""
    return f"{number:064x}"


def node_document(name: str, **labels: str) -> dict[str, Any]:
    """A node that is ready, takes every pod, and has kwok to make its pods ready."""
    resources = {"cpu": "64", "memory": "256Gi", "pods": "500", "nvidia.com/gpu": str(GPUS)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"type": "kwok", "gravswell.dev/local-node": "true", **labels}},
        "status": {
            "allocatable": resources,
            "capacity": resources,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Simulated"}],
        },
    }


cluster = control_plane("reconciling")  # the nodes would take the pods that others mean for the local node


@pytest.fixture(scope="session")
def nodes(cluster: ControlPlane) -> Iterator[None]:
    """Two tainted kwok nodes, and one that takes every pod, also those of ``file://`` repositories."""
    with KwokNodes(cluster, count=2, gpus=GPUS):
        node = node_document("plain")
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(node))
        status = json.dumps({"status": node["status"]})
        cluster.kubectl("patch", "node", "plain", "--subresource=status", "--type=merge", "-p", status)
        # The pods of file:// repositories may run on all three.
        cluster.kubectl("label", "node", "-l", "type=kwok", "gravswell.dev/local-node=true", "--overwrite")
        yield


class World(Namespace):
    """One namespace with everything that a test does in it."""

    # What users apply.

    def make_pool(self, **spec: Any) -> None:
        """A pool of the three simulated nodes, of this test alone."""
        defaults = {
            "provider": {"type": "Static", "static": {"matchLabels": {"type": "kwok"}}},
            "accelerator": {"type": "Simulated-GPU", "count": GPUS},
            "taints": [{"key": "kwok.x-k8s.io/node"}],
        }
        self.apply("GPUNodePool", self.pool, **{**defaults, **spec})

    def make_repository(self, name: str = "models", **spec: Any) -> None:
        self.apply("ModelRepository", name, **{"url": "file:///srv/models", **spec})

    def make_server(self, name: str = "server", **spec: Any) -> None:
        defaults: dict[str, Any] = {"repositoryRef": {"name": "models"}, "tag": "24.08", "vcpus": "100m"}
        if "autoscaling" not in spec:
            defaults["replicas"] = 1
        self.apply("InferenceServer", name, **{**defaults, **spec})

    def make_model(self, name: str = "digits", **spec: Any) -> None:
        self.apply("Model", name, **{"serverRef": {"name": "server"}, "entry": "digits", **spec})

    def refusal(self, body: dict[str, Any]) -> str:
        """What the API server would say to who makes this object; an empty text where it would make it."""
        try:
            self._api.admit(self.namespace, body)
        except GravswellError as error:
            return str(error)
        return ""

    def rolled_out(self) -> None:
        """Wait until every pod of the server is of its latest specification and ready, also where it has no Model.

        Ready it is only where there is something to serve, and a simulated pod is ready without.
        """
        self.condition("inferenceserver", "server", "Progressing", status="False", reason="RolledOut")

    # What the pods would do.

    def publish(
        self,
        *numbers: int,
        repository: str = "models",
        url: str = "file:///srv/models",
        accessible: bool = True,
        **other: Any,
    ) -> None:
        """As the lister: the entry ``digits`` has these versions."""
        versions = tuple(ListedVersion(number=n, digest=digest(n), size=n) for n in sorted(numbers, reverse=True))
        listing = Listing(
            repository=url,
            observed_at=datetime.now(UTC),
            accessible=accessible,
            entries=(ListedEntry(name="digits", versions=versions),) if versions else (),
            **other,
        )
        self._write(f"{repository}-listing", LISTING_KEY, listing.to_json())

    def report(self, pod: str, loaded: int | None, desired: int | None = None, **other: Any) -> None:
        """As the agent of ``pod``: version ``loaded`` of ``digits`` serves, and ``desired`` is wanted."""
        wanted = desired or loaded
        assert wanted is not None
        said = ModelReport(
            name="digits",
            state=other.pop("state", ModelState.SERVING),
            desired_version=wanted,
            desired_digest=digest(wanted),
            loaded_version=loaded,
            loaded_digest=digest(loaded) if loaded is not None else None,
            verified=loaded == wanted,
            **other,
        )
        document = Report(pod=pod, ready=True, triton="2.51.0", simulated_gpus=True, models=(said,))
        self._write("server-report", pod, document.to_json())

    def _write(self, configmap: str, key: str, text: str) -> None:
        wait_until(lambda: self.get("configmap", configmap))
        self.patch("configmap", configmap, {"data": {key: text}})


operator = operator_of_cluster("nodes")


@pytest.fixture
def world(cluster: ControlPlane, namespace: str, operator: OperatorProcess) -> Iterator[World]:
    made = World(cluster, namespace)
    yield made
    made.delete("gpunodepool", made.pool)
    for kind in ("isrv", "mdl", "mr"):
        made.delete(kind)
