"""The operator as a process, under the chart's role for GKE, with a simulated Google whose machines are kwok nodes.

``rack``      the controller of a rack of machines, with which a provider of others' talks
``google``    the server that speaks the Container API; its one cluster ``demo`` is the control plane
``operator``  the running operator; ``restart()``, ``stop()``, ``start()``
``pools``     makes and looks at GPUNodePools; what a test leaves is deleted
"""

from collections.abc import Iterator
from typing import Any

import pytest
from google.cloud import container_v1 as container

from gravswell.cloudbreak import google as cb
from gravswell_operator.devcluster import ControlPlane
from gravswell_operator.devcluster.kwok import KwokNodes

from ...cloudbreak.gke import SimulatedGke
from ...providers.rack import RackServer
from ...providers.rack import install as install_rack
from ..api import Api
from ..operating import OperatorProcess, api_of, conditions, install, running_operator, wait_until
from ..reconciling.conftest import node_document

GROUP = "cloud.google.com/gke-nodepool"
STUCK = """
import time
from pathlib import Path
from rack import Rack

class Stuck(Rack):
    async def reconcile(self, ask):
        while not Path(ask.pool.spec.provider.custom.parameters["until"]).exists():
            time.sleep(0.1)
        return await super().reconcile(ask)
"""
"""A provider that blocks until there is a file of the name that its pool says."""
CLUSTER = "projects/demo/locations/us-east4-b/clusters/demo"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of these tests' own: the operator of others knows no cloud."""
    with ControlPlane(tmp_path_factory.mktemp("clouds")) as running, KwokNodes(running, count=1, gpus=1):
        yield running


def have_nodes(api: Api, group: str, labels: dict[str, str], count: int) -> None:
    """Make the nodes of a group ``count``: ready, and alive by kwok."""
    there = {node["metadata"]["name"] for node in api.list("node", "", f"{GROUP}={group}")}
    wanted = {f"{group}-{number}" for number in range(count)}
    for name in there - wanted:
        api.delete("node", "", name)
    for name in wanted - there:
        document = node_document(name, **labels, **{GROUP: group})
        api.apply("", {key: value for key, value in document.items() if key != "status"})
        api.patch("node", "", name, {"status": document["status"]}, subresource="status")


@pytest.fixture(scope="session")
def rack(cluster: ControlPlane) -> Iterator[RackServer]:
    """The controller of a rack, for the provider of the documentation, whose machines are kwok nodes too."""
    api = api_of(cluster)
    with RackServer(lambda name, labels, count: have_nodes(api, f"rack-{name[:8]}", labels, count)) as server:
        yield server


@pytest.fixture(scope="session")
def google(cluster: ControlPlane) -> Iterator[SimulatedGke]:
    api = api_of(cluster)

    def change(where: str, pool: str, count: int) -> None:
        labels = dict(server.pool(f"{where}/nodePools/{pool}").config.labels) if count else {}
        have_nodes(api, pool, labels, count)

    authority = (cluster.pki / "ca.crt").read_text()
    with SimulatedGke(seconds=0.3, authority=authority, on_nodes=change) as server:
        manager = cb.ClusterManager(project="demo", zone="us-east4-b", endpoint=server.url, owner="ann", seconds=60)
        manager.create_resource(container.Cluster(name="demo", initial_node_count=1))
        yield server


@pytest.fixture(scope="session")
def operator(
    cluster: ControlPlane, google: SimulatedGke, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    kubeconfig = install(cluster, tmp_path_factory, "gke.enabled=true", "drivers.enabled=true")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAVSWELL_GKE_ENDPOINT", google.url)
        packages = install_rack(tmp_path_factory.mktemp("packages"))
        (packages / "stuck.py").write_text(STUCK)
        with (packages / "rack-1.0.dist-info/entry_points.txt").open("a") as points:
            points.write("stuck = stuck:Stuck\n")
        patch.setenv("PYTHONPATH", str(packages))
        with running_operator(kubeconfig) as process:
            yield process


class Pools:
    """GPUNodePools of one test."""

    def __init__(self, cluster: ControlPlane, google: SimulatedGke) -> None:
        self.api, self.google, self.names = api_of(cluster), google, set[str]()

    def apply(self, name: str, **spec: Any) -> None:
        """Make or change a pool of T4s; ``provider`` is what its member says besides."""
        gke = {"project": "demo", "location": "us-east4-b", "cluster": "demo", **spec.pop("provider", {})}
        whole = {
            "provider": {"type": "GKE", "gke": gke},
            "accelerator": {"type": "t4", "count": 4},
            "vcpus": 16,
            **({} if "autoscaling" in spec else {"size": 1}),
            **spec,
        }
        body = {
            "apiVersion": "gravswell.dev/v1alpha1",
            "kind": "GPUNodePool",
            "metadata": {"name": name},
            "spec": whole,
        }
        self.names.add(name)
        self.api.apply("", body)

    def get(self, name: str) -> dict[str, Any]:
        found = self.api.get("gpunodepool", "", name)
        assert found is not None, f"there is no pool {name}"
        return found

    def delete(self, name: str) -> None:
        self.api.delete("gpunodepool", "", name)

    def until(self, name: str, **wanted: Any) -> dict[str, Any]:
        """The pool, once these fields of its status, and reasons of its conditions by their type, are so."""

        def fact() -> dict[str, Any] | None:
            body = self.get(name)
            said = {**body.get("status", {}), **{kind: c["reason"] for kind, c in conditions(body).items()}}
            return body if wanted.items() <= said.items() else None

        try:
            return wait_until(fact)  # type: ignore[no-any-return]
        except AssertionError:
            raise AssertionError(f"not {wanted}: {self.get(name).get('status')}") from None

    def until_gone(self, name: str) -> None:
        wait_until(lambda: self.api.get("gpunodepool", "", name) is None)

    def cloud(self, name: str) -> list[str]:
        """The paths of the node pools that were ever made for a pool of this name."""
        return [path for path in self.google.made if f"/nodePools/gw-{name}-" in path]


@pytest.fixture
def pools(cluster: ControlPlane, google: SimulatedGke, operator: OperatorProcess) -> Iterator[Pools]:
    made = Pools(cluster, google)
    yield made
    google.mend()
    for name in made.names:
        made.delete(name)
    for name in made.names:
        made.until_gone(name)
    assert {path.rpartition("/")[2] for path in google.pools()} == {"default-pool"}
