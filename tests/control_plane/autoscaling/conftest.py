"""Autoscaling with real parts: Kubernetes' own controller, KEDA and Prometheus, and real Tritons under load.

``cluster``      a control plane of these tests' own, with the local node
``gateway``      what counts the requests that wait, for want of a real gateway
``duty``         how busy the GPUs are, which are simulated
``prometheus``   scrapes the Tritons as the chart's PodMonitor says, the gateway, and the GPUs
``operator``     the running operator, which knows Prometheus
``keda``         installs KEDA's definitions and starts it, once and for the rest of the session
``adapter``      prometheus-adapter, not started
``place``        a namespace of the test module's own, and a folder of published versions
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache

import pytest

from gravswell.serving.triton.ports import held_port
from gravswell_operator.devcluster import ControlPlane, LocalNode, ensure_binaries
from gravswell_operator.devcluster.controlplane import HOST
from gravswell_operator.devcluster.keda import Keda, install_definitions

from ...serving.agent.versions import publish
from ..operating import (
    WAIT_SECONDS,
    OperatorProcess,
    conditions,
    control_plane,
    install,
    node_of_cluster,
    rendered,
    running_operator,
    wait_until,
)
from ..serving.conftest import ENTRY, Place
from .adapter import PrometheusAdapter
from .load import DELAYED, Gateway, SimulatedDuty, clients
from .prometheus import Prometheus

PATIENCE = 300
"""Seconds for what an autoscaler does: KEDA looks every 15, and the load of a whole minute counts."""


LIMIT = 3 * PATIENCE + 10 * WAIT_SECONDS
"""Seconds for one test: more than its waits add up to, so that the one that fails says so itself."""


class Scaled(Place):
    """A place whose server is scaled by its load: each request takes it a while, and no processor's time."""

    def publish(self, number: int) -> None:
        """Publish a version that answers with what is sent."""
        publish(self.repository, ENTRY, number, 1.0, python=DELAYED)

    def addresses(self) -> list[str]:
        """Of the replicas that are ready."""
        pods = self.objects("pods", selector="app.kubernetes.io/name=triton")
        ready = [p for p in pods if "deletionTimestamp" not in p["metadata"] and _ready(p)]
        return [pod["status"]["podIP"] for pod in ready]

    def load(self) -> AbstractContextManager[None]:
        """Keep the server busy during the block."""
        return clients(self.addresses, ENTRY)

    def until_replicas(self, number: int) -> None:
        """Wait until so many replicas are wanted, and run, and the status says so."""

        def there() -> bool:
            status = (self.get("inferenceserver", "server") or {})["status"]
            return bool(status["replicas"] == status["readyReplicas"] == number)

        wait_until(there, PATIENCE)

    def until_autoscaling(self, status: str, reason: str) -> None:
        """Wait until the condition Autoscaling is so: an autoscaler takes longer than most."""

        def there() -> bool:
            found = conditions(self.get("inferenceserver", "server") or {}).get("Autoscaling", {})
            return (found.get("status"), found.get("reason")) == (status, reason)

        wait_until(there, PATIENCE)

    def wanted(self) -> int:
        """Replicas of the Deployment's spec."""
        return int((self.get("deployment", "server") or {})["spec"]["replicas"])

    def measured(self, name: str) -> dict[str, str]:
        """What the server's status says of one target."""
        status = (self.get("inferenceserver", "server") or {})["status"]
        return next((m for m in status.get("autoscaling", {}).get("metrics", ()) if m["name"] == name), {})


def _ready(pod: dict) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


cluster = control_plane("autoscaling")


local_node = node_of_cluster()


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    with Gateway() as running:
        yield running


@pytest.fixture(scope="session")
def duty(cluster: ControlPlane) -> Iterator[SimulatedDuty]:
    with SimulatedDuty(cluster) as running:
        yield running


@pytest.fixture(scope="session")
def prometheus(
    cluster: ControlPlane, gateway: Gateway, duty: SimulatedDuty, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    monitoring = ("servers.enabled=true", "servers.interval=2s")
    flags = ["--api-versions=monitoring.coreos.com/v1/PodMonitor", *(f"--set=monitoring.{v}" for v in monitoring)]
    (monitor,) = (made for made in rendered(tmp_path_factory, *flags) if made["kind"] == "PodMonitor")
    folder = tmp_path_factory.mktemp("prometheus")
    with Prometheus(cluster, folder, monitor, gateway.address, duty.address) as running:
        yield running


@pytest.fixture(scope="session")
def operator(
    cluster: ControlPlane, local_node: LocalNode, prometheus: Prometheus, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    kubeconfig = install(cluster, tmp_path_factory)
    with running_operator(kubeconfig, f"--prometheus=http://{prometheus.address}") as process:
        yield process


@pytest.fixture(scope="session")
def keda(cluster: ControlPlane) -> Iterator[Callable[[], Keda]]:
    """Installs KEDA's definitions and starts it, once."""
    ensure_binaries(names=["keda-operator", "keda-adapter"])  # a cold machine builds them: not within a test's time
    running = Keda(cluster)

    @cache
    def start() -> Keda:
        install_definitions(cluster)
        running.start()
        return running

    yield start
    running.stop()


@pytest.fixture(scope="module")
def adapter(
    cluster: ControlPlane, prometheus: Prometheus, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusAdapter]:
    ensure_binaries(names=["prometheus-adapter"])  # as KEDA's
    folder = tmp_path_factory.mktemp("adapter")
    with held_port(HOST) as port:
        running = PrometheusAdapter(cluster, folder, prometheus.address, port)
        yield running
        running.stop()


@pytest.fixture(scope="module")
def place(
    cluster: ControlPlane, operator: OperatorProcess, local_node: LocalNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scaled]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    folder = tmp_path_factory.mktemp("repository") / "zoo"
    folder.mkdir()
    cluster.kubectl("create", "namespace", name)
    made = Scaled(cluster, name, local_node, folder)
    made.publish(1)
    yield made
    made.delete("isrv")
    wait_until(lambda: made.get("deployment", "server") is None)  # as long as KEDA is there to let its objects go
    cluster.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")
