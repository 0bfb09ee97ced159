"""An installation that lives: upgraded under traffic, scaled by what the kubelet measures, refused by its namespace.

The tests are one story in the order in which they stand, on the real node. Servers read a folder of the node, as a
volume.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import onnx
import pytest

from gravswell import quiver as qv
from gravswell_operator.devcluster.realnode import ADDRESS

from ..quiver.stores import emulators
from ..serving.agent.versions import scaling_graph
from . import forbidden, release_before
from .metrics import ensure_metrics_server, metrics_server
from .operating import NAMESPACE, RealCluster, named
from .prepared import CHART, install, make_volume
from .removal import SYSTEM, remove

pytestmark = pytest.mark.timeout(1200)  # the bounds of the waits in one test add up to as much

API = "gravswell.dev/v1alpha1"
ENTRY, SERVER = "digits", "digits"
ROLL_SECONDS = 300

TRAFFIC = """
import http.client, json, socket, sys, time

host, entry, last = socket.gethostbyname(sys.argv[1]), sys.argv[2], float(sys.argv[3])
question = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0] * 4}]})
seen, requests = set(), 0
while last not in seen:
    alone = http.client.HTTPConnection(host, 8000, timeout=60)
    alone.request("POST", f"/v2/models/{entry}/infer", question)
    answer = alone.getresponse()
    text = answer.read()
    assert answer.status == 200, (answer.status, text)
    alone.close()
    requests += 1
    number = json.loads(text)["outputs"][0]["data"][0]
    if number not in seen:
        seen.add(number)
        print(json.dumps({"seen": sorted(seen), "requests": requests}), flush=True)
    time.sleep(0.01)
"""
"""A client that knows nothing of replicas: a connection for each request, and none is tried again."""

LOAD = """
import sys
import numpy as np
from gravswell.serving import Client

with Client(sys.argv[1]) as client:
    while True:
        client.infer(sys.argv[2], {"x": np.ones((1000, 4), np.float32)}, batch_size=1)
"""


def server(namespace: str = NAMESPACE, **changes: Any) -> dict[str, Any]:
    spec = {"repositoryRef": {"name": "models"}, "tag": "24.10", "vcpus": "200m", "memory": "1Gi", "replicas": 2}
    return named(API, "InferenceServer", SERVER, namespace, spec={**spec, **changes})


def publish(url: str, number: int) -> None:
    """Publish a version that multiplies by ``number``."""
    repo = qv.ModelRepository(url)
    entry = repo.models[ENTRY] if ENTRY in repo.models else repo.add(ENTRY, platform=qv.Platform.ONNX)
    path = entry.export_version(onnx.load_from_string(scaling_graph(float(number))))
    assert path.endswith(f"/{number}/model.onnx")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the volume, with the first version in its repository."""
    folder = tmp_path_factory.mktemp("volume")
    publish(str(folder / "repository"), 1)
    return folder


@pytest.fixture(scope="module")
def earlier(
    real_cluster: RealCluster, images: Path, published: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealCluster]:
    """The release before, by its own chart and program, with two replicas that serve."""
    cluster = real_cluster
    name = f"{cluster.image.rpartition(':')[0]}:{release_before.TAG}"
    archive = tmp_path_factory.mktemp("earlier") / "image.tar"
    cluster.node.import_image(release_before.make_image(images / "gravswell.tar", archive, name))
    archive.unlink()
    try:
        with cluster.network():
            install(cluster, release_before.CHART, {"image.tag": release_before.TAG})
            repository = make_volume(cluster, published)
            model = {"serverRef": {"name": SERVER}, "entry": ENTRY, "version": "latest"}
            cluster.apply(
                named(API, "ModelRepository", "models", spec=repository),
                server(),
                named(API, "Model", ENTRY, spec=model),
            )
            cluster.until_condition("model", ENTRY)
            cluster.until(lambda: len(cluster.endpoints(SERVER)) == 2)
        yield cluster
    finally:
        with cluster.network():
            remove(cluster)


def pods(cluster: RealCluster) -> list[dict[str, Any]]:
    """The server's."""
    return cluster.kubectl.items("pods", "-n", NAMESPACE, "-l", f"gravswell.dev/server={SERVER}")


def agents(cluster: RealCluster) -> list[str]:
    """The images of the agents of the server's pods."""
    return [c["image"] for pod in pods(cluster) for c in pod["spec"]["containers"] if c["name"] == "agent"]


def uids(cluster: RealCluster) -> dict[str, str]:
    """Of what a client or an autoscaler knows of the server."""
    kinds = "isrv,mr,mdl,deployments,services,serviceaccounts,poddisruptionbudgets"
    found = cluster.kubectl.items(kinds, "-n", NAMESPACE)
    return {f"{body['kind']}/{body['metadata']['name']}": body["metadata"]["uid"] for body in found}


def test_an_upgrade_of_the_chart_replaces_every_pod_and_fails_no_request(earlier, published):
    cluster = earlier
    assert set(agents(cluster)) == {f"{cluster.image.rpartition(':')[0]}:{release_before.TAG}"}
    before = uids(cluster)
    cluster.pod("traffic", cluster.image, "python", "-c", TRAFFIC, f"{SERVER}.{NAMESPACE}.svc", ENTRY, "2")
    cluster.until(lambda: "requests" in cluster.kubectl("logs", "traffic", check=False))
    same = ("--reset-then-reuse-values", "--set=image.tag=")
    cluster.helm("upgrade", "gravswell", str(CHART), "-n", SYSTEM, *same, "--wait", "--timeout=180s")

    def replaced() -> bool:
        return agents(cluster) == [cluster.image] * 2 and len(cluster.endpoints(SERVER)) == 2

    cluster.until(replaced, ROLL_SECONDS)
    publish(str(published / "repository"), 2)
    said = json.loads(cluster.finished("traffic").splitlines()[-1])
    assert said["seen"] == [1.0, 2.0]
    assert uids(cluster).items() >= before.items(), "something was made anew"
    for kind, name in (("modelrepository", "models"), ("inferenceserver", SERVER), ("model", ENTRY)):
        cluster.until_condition(kind, name)


@pytest.fixture(scope="module")
def azurite() -> None:
    """Installed. Of the module, as all that is downloaded: tests are in the node's network, which leads nowhere."""
    emulators.ensure_azurite()


@pytest.mark.usefixtures("azurite")
def test_a_bucket_that_denies_is_named_in_the_status_until_it_lets_the_readers_in(earlier, tmp_path, monkeypatch):
    monkeypatch.setattr(emulators, "HOST", ADDRESS)  # where pods reach it
    repository = {"url": "az://shelf/models", "credentialsSecretRef": {"name": "shelf"}, "syncInterval": "5s"}
    with emulators.azure(tmp_path) as bucket:
        bucket.make_bucket("shelf")
        with mock.patch.dict(os.environ, bucket.environment):
            publish(repository["url"], 1)
        (key,) = bucket.environment.values()
        wrong = key.replace(emulators.KEY, emulators.KEY[::-1].strip("=") + "==")
        secret = named("v1", "Secret", "shelf")
        earlier.apply({**secret, "stringData": {"AZURE_STORAGE_CONNECTION_STRING": wrong}})
        earlier.apply(named(API, "ModelRepository", "denied", spec=repository))
        denied = {"type_": "Accessible", "status": "False", "reason": "AccessDenied"}
        message = earlier.until_condition("modelrepository", "denied", **denied)["message"]
        assert "az://shelf/models" in message
        assert "refused to these credentials" in message
        earlier.apply({**secret, "stringData": {"AZURE_STORAGE_CONNECTION_STRING": key}})
        earlier.kubectl("rollout", "restart", "deployment/denied-lister")
        earlier.until_condition("modelrepository", "denied", "Accessible", status="True")
        earlier.kubectl("delete", "modelrepository", "denied", "--timeout=60s")


@pytest.fixture(scope="module")
def forbidding(earlier: RealCluster) -> Iterator[RealCluster]:
    try:
        with earlier.network():
            forbidden.make(earlier)
        yield earlier
    finally:
        with earlier.network():
            forbidden.remove(earlier)


@pytest.mark.parametrize("what", forbidden.REFUSALS)
def test_a_namespace_that_forbids_the_pods_is_named_in_the_servers_status(forbidding, what):
    namespace = forbidden.namespace(what)
    repository = named(API, "ModelRepository", "models", namespace, spec={"url": "gs://shelf/models"})
    forbidding.apply(repository, server(namespace, replicas=1))
    words, way_out = forbidden.REFUSALS[what]
    message = forbidding.until_message("inferenceserver", SERVER, words, namespace)
    assert way_out in message


def replica_failure(cluster: RealCluster, deployment: str, namespace: str) -> str:
    """Why a Deployment's pods cannot be made, once it says so."""
    found = cluster.get("deployment", deployment, namespace).get("status", {}).get("conditions", [])
    return next((c["message"] for c in found if c["type"] == "ReplicaFailure"), "")


def test_helm_says_what_is_not_ready_where_a_namespace_forbids_the_operator_and_its_deployment_says_why(forbidding):
    namespace = forbidden.namespace("limits")
    values = ("--set=crds.install=false", "--set=drivers.enabled=false")
    try:
        said = forbidding.helm(
            *("install", "second", str(CHART), "-n", namespace, *values, "--wait", "--timeout=15s"), check=False
        )
        assert "second-gravswell" in said
        message = forbidding.until(lambda: replica_failure(forbidding, "second-gravswell", namespace))
        assert "maximum memory usage per Container is 512Mi" in message
    finally:
        forbidding.helm("uninstall", "second", "-n", namespace, "--wait", "--timeout=60s")


@pytest.fixture(scope="module")
def metrics() -> tuple[Path, Path]:
    """The program of metrics-server and its manifests; of the module as ``azurite`` is."""
    return ensure_metrics_server()


@pytest.fixture
def measured(earlier: RealCluster, metrics: tuple[Path, Path], tmp_path: Path) -> Iterator[RealCluster]:
    with earlier.network(), metrics_server(earlier, *metrics, tmp_path):
        yield earlier


def measured_metric(cluster: RealCluster) -> dict[str, Any] | None:
    """The one metric of the server's autoscaler, once it has a figure: after a look that failed it has none."""
    metrics = cluster.get("inferenceserver", SERVER)["status"]["autoscaling"].get("metrics", [])
    assert len(metrics) <= 1
    return next((metric for metric in metrics if metric.get("current")), None)


def test_replicas_follow_the_load_that_the_kubelet_measures(measured):
    cluster = measured
    scaling = {"minReplicas": 1, "maxReplicas": 2, "targetCPUUtilization": 80, "scaleDownDelay": "0s"}
    change = json.dumps({"spec": {"replicas": None, "autoscaling": scaling}})
    cluster.kubectl("patch", "isrv", SERVER, "--type=merge", "-p", change)
    cluster.until_condition("inferenceserver", SERVER, "Autoscaling", status="True", reason="AutoscalerActive")
    cluster.until(lambda: len(pods(cluster)) == 1)
    cluster.until(lambda: SERVER in cluster.kubectl("top", "pods", "-n", NAMESPACE, check=False))
    cluster.pod("load", cluster.image, "python", "-c", LOAD, f"{SERVER}.{NAMESPACE}.svc:8000", ENTRY)
    cluster.until(lambda: len(cluster.endpoints(SERVER)) == 2, ROLL_SECONDS)
    metric = cluster.until(lambda: measured_metric(cluster))
    assert (metric["name"], metric["target"]) == ("cpu", "80%")
    cluster.kubectl("delete", "pod", "load", "--wait=false")
    cluster.until(lambda: len(cluster.endpoints(SERVER)) == 1, ROLL_SECONDS)
