"""The notebook's cells of ``gravswell.cloudbreak``, as they stand: a real API server in a simulated Google.

The cloud is simulated: its server speaks the Container API's gRPC, and its machines are kwok nodes on which nothing
runs. The API server, its controllers, and the exchange of a service account's key for a token are real.
"""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gravswell.errors import InvalidInputError, NotFoundError, UnavailableError
from gravswell_operator.devcluster import ControlPlane

from ...cloudbreak.gke import SimulatedGke
from ..api import Api
from ..operating import api_of, conditions, wait_until
from .conftest import node_document

CLUSTER_CELL = """
from gravswell.cloudbreak import google as cb
from google.cloud import container_v1 as container

manager = cb.ClusterManager(project="gunny-multi-instance-dev", zone="us-east4-b")

cluster_config = container.Cluster(
    name="ligo-demo-cluster",
    node_pools=[container.NodePool(
        name="default-pool",
        initial_node_count=2,
        config=container.NodeConfig()
    )]
)
cluster = manager.create_resource(cluster_config)
cluster.deploy_gpu_drivers()
"""
POOL_CELL = """
node_pool_config = container.NodePool(
    name="tritonserver-t4-pool",
    initial_node_count=1,
    config=cb.create_gpu_node_pool_config(
        vcpus=16,
        gpus=4,
        gpu_type="t4"
    )
)
node_pool = cluster.create_resource(node_pool_config)
"""
DEPLOY_CELL = """
cluster.deploy(
    "triton.yaml",
    name="tritonserver",
    tag="20.11",
    bucket="ligo-quiver-demo",
    gpus=4,
    vcpus=15  # at least come cpu has to go to running kubernetes
)
cluster.k8s_client.wait_for_deployment("tritonserver")
"""
SERVICE_CELL = """
ip = cluster.k8s_client.wait_for_service("tritonserver")
"""


@pytest.fixture(scope="module")
def key(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The key of a service account, for which a server on loopback gives the control plane's own token."""
    token = yaml.safe_load(cluster.kubeconfig.read_text())["users"][0]["user"]["token"]
    answer = json.dumps({"access_token": token, "expires_in": 3600, "token_type": "Bearer"}).encode()

    class Tokens(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tokens) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        path = tmp_path_factory.mktemp("google") / "key.json"
        document = {
            "type": "service_account",
            "project_id": "demo",
            "client_email": "demo@demo.iam.gserviceaccount.com",
            "private_key": private.decode(),
            "token_uri": f"http://127.0.0.1:{server.server_port}/token",
        }
        path.write_text(json.dumps(document))
        yield path
        server.shutdown()


@pytest.fixture(scope="module")
def google(cluster: ControlPlane, nodes: None) -> Iterator[SimulatedGke]:
    """A Google whose clusters all are the control plane, and whose machines are kwok nodes."""
    api = api_of(cluster)

    def change(where: str, pool: str, count: int) -> None:
        there = {n["metadata"]["name"] for n in api.list("node", "", f"cloud.google.com/gke-nodepool={pool}")}
        wanted = {f"gke-{pool}-{number}" for number in range(count)}
        for name in there - wanted:
            api.delete("node", "", name)
        for name in wanted - there:
            labels = {"cloud.google.com/gke-nodepool": pool}
            if "t4" in pool:
                labels |= {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}
            document = node_document(name, **labels)
            api.apply("", {k: v for k, v in document.items() if k != "status"})
            api.patch("node", "", name, {"status": document["status"]}, subresource="status")

    authority = (cluster.pki / "ca.crt").read_text()
    endpoint = cluster.server_url.removeprefix("https://")
    with SimulatedGke(seconds=0.2, endpoint=endpoint, authority=authority, on_nodes=change) as server:
        yield server


@pytest.fixture
def cells(google: SimulatedGke, key: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What the cells have made so far; the cluster goes at the end."""
    monkeypatch.setenv("GRAVSWELL_GKE_ENDPOINT", google.url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    yield made
    if "cluster" in made:
        for name in ("tritonserver", "other"):
            made["cluster"].remove_deployment(name)
        made["cluster"].delete()


@pytest.fixture
def api(cluster: ControlPlane) -> Api:
    return api_of(cluster)


def balance(api: Api, name: str, address: str) -> None:
    """What the cloud's load balancer does once a Service asks for one."""
    wait_until(lambda: api.get("service", "default", name))
    status = {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
    api.patch("service", "default", name, status, subresource="status")


def test_the_notebook_s_cells(cells: dict[str, Any], google: SimulatedGke, api: Api) -> None:
    exec(CLUSTER_CELL, cells)
    installer = api.get("daemonset", "kube-system", "nvidia-driver-installer")
    assert installer is not None
    exec(POOL_CELL, cells)
    exec(DEPLOY_CELL, cells)
    deployment = api.get("deployment", "default", "tritonserver")
    assert deployment is not None
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "nvcr.io/nvidia/tritonserver:20.11-py3"
    assert "--model-repository=gs://ligo-quiver-demo" in container["args"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert container["resources"]["requests"]["cpu"] == "15"
    assert deployment["status"]["readyReplicas"] == 1
    later = threading.Timer(0.5, balance, (api, "tritonserver", "203.0.113.7"))
    later.start()
    exec(SERVICE_CELL, cells)
    later.join()
    assert cells["ip"] == "203.0.113.7"
    # A person runs cells twice: nothing is made again.
    made = list(google.made)
    for cell in (CLUSTER_CELL, POOL_CELL, DEPLOY_CELL, SERVICE_CELL):
        exec(cell, cells)
    assert google.made == made
    # Where the installer's nodes come later, it is waited for on them.
    cells["node_pool"].resize(2)
    cells["cluster"].deploy_gpu_drivers()
    wait_until(lambda: api.get("daemonset", "kube-system", "nvidia-driver-installer")["status"]["numberReady"] == 2)  # type: ignore[index]
    cells["cluster"].remove_deployment("tritonserver")
    assert api.get("service", "default", "tritonserver") is None


def test_what_cannot_run_is_told_before_it_is_made(cells: dict[str, Any], api: Api) -> None:
    exec(CLUSTER_CELL, cells)
    cluster = cells["cluster"]
    values = {"name": "other", "tag": "20.11", "bucket": "b"}
    with pytest.raises(
        ValueError, match=r"asks for 4 GPUs, which no node of cluster ligo-demo-cluster .* has; its node"
    ):
        cluster.deploy("triton.yaml", gpus=4, vcpus=15, **values)
    exec(POOL_CELL, cells)
    with pytest.raises(
        ValueError, match=r"Deployment other asks for 16 vCPUs beside 4 GPUs; .*Kubernetes itself needs"
    ):
        cluster.deploy("triton.yaml", gpus=4, vcpus=16, **values)
    with pytest.raises(ValueError, match=r"triton.yaml needs a value for gpus"):
        cluster.deploy("triton.yaml", vcpus=15, **values)
    with pytest.raises(ValueError, match=r"triton.yaml has no place for cpus; it takes bucket, gpus, name, tag, vcpus"):
        cluster.deploy("triton.yaml", gpus=4, vcpus=15, cpus=1, **values)
    with pytest.raises(NotFoundError, match=r"there is no file nothing.yaml"):
        cluster.deploy("nothing.yaml")
    Path("odd.yaml").write_text("{apiVersion: odd/v1, kind: Odd, metadata: {name: other}}")
    with pytest.raises(InvalidInputError, match=r"odd/v1 Odd is not among what can be deployed .*kubectl"):
        cluster.deploy("odd.yaml")
    assert api.get("deployment", "default", "other") is None


def _is_unschedulable(pod: dict[str, Any]) -> bool:
    return conditions(pod).get("PodScheduled", {}).get("reason") == "Unschedulable"


def test_waits_say_what_is_waited_for(cells: dict[str, Any], api: Api) -> None:
    exec(CLUSTER_CELL, cells)
    exec(POOL_CELL, cells)
    client = cells["cluster"].k8s_client
    with pytest.raises(NotFoundError, match=r"Deployment default/none of cluster ligo-demo-cluster .* deploy it first"):
        client.wait_for_deployment("none")
    cells["cluster"].deploy("triton.yaml", name="other", tag="20.11", bucket="b", gpus=4, vcpus=15)
    with pytest.raises(UnavailableError, match=r"Service default/other .*the cloud has given it no address yet"):
        client.wait_for_service("other", seconds=1)
    Path("stuck.yaml").write_text(STUCK)
    cells["cluster"].deploy("stuck.yaml", name="other")
    wait_until(lambda: any(map(_is_unschedulable, api.list("pods", "default", "app.kubernetes.io/name=other"))))
    with pytest.raises(UnavailableError, match=r"0 of 1 replicas ready; Pod default/other-.*: Unschedulable: 0/"):
        client.wait_for_deployment("other", seconds=5)


async def test_in_a_notebook_whose_own_loop_runs(cells: dict[str, Any]) -> None:
    exec(CLUSTER_CELL, cells)
    assert not cells["cluster"].k8s_client.has_daemon_set("app=nvidia-driver-daemonset")


def test_the_gpu_operator_s_drivers_are_left_to_it(cells: dict[str, Any], api: Api) -> None:
    api.delete("daemonset", "kube-system", "nvidia-driver-installer")
    theirs = {"metadata": {"name": "nvidia-driver-daemonset", "labels": {"app": "nvidia-driver-daemonset"}}}
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": pod}
    api.apply("default", {"apiVersion": "apps/v1", "kind": "DaemonSet", **theirs, "spec": spec})
    try:
        exec(CLUSTER_CELL, cells)
        assert api.get("daemonset", "kube-system", "nvidia-driver-installer") is None
    finally:
        api.delete("daemonset", "default", "nvidia-driver-daemonset")


STUCK = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ name }}}
spec:
  strategy: {type: Recreate}
  selector: {matchLabels: {app.kubernetes.io/name: {{ name }}}}
  template:
    metadata: {labels: {app.kubernetes.io/name: {{ name }}}}
    spec:
      nodeSelector: {nowhere: "true"}
      containers: [{name: triton, image: nothing}]
"""
