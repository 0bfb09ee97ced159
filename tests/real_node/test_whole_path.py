"""The chart, the images and the Triton on a real kubelet: installed, served by name, released, and taken away again.

The tests are one story in the order in which they stand, on one cluster: the real node's, or with ``--context`` one of
the user's, such as kind's.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml

from gravswell import quiver as qv

from ..serving.agent.versions import scaling_graph
from . import ranked
from .operating import NAMESPACE, ROOT, Cluster
from .prepared import bucket_server, install, make_bucket
from .removal import STORAGE, SYSTEM, delete_objects, left, managed, remove

pytestmark = pytest.mark.timeout(1200)  # the bounds of the waits in one test add up to as much

ENTRY = "digits"
SERVICE = f"digits.{NAMESPACE}.svc:8000"

ASK = """
import json, sys
import numpy as np
from gravswell.serving import Client

with Client(sys.argv[1]) as client:
    print(json.dumps(client.infer(sys.argv[2], {"x": np.ones((2, 4), np.float32)})["y"].tolist()))
"""

TRAFFIC = """
import json, sys
import numpy as np
from gravswell.serving import Client

seen, requests, last = set(), 0, float(sys.argv[3])
with Client(sys.argv[1]) as client:
    while last not in seen:
        answers = client.infer(sys.argv[2], {"x": np.ones((8, 4), np.float32)}, batch_size=1)["y"]
        answers = set(np.unique(answers).tolist())
        requests += 8
        if answers - seen:
            seen |= answers
            print(json.dumps({"seen": sorted(seen), "requests": requests}), flush=True)
"""
"""Asks on and on until an answer says that it is of the version in the third argument; ends with the first error."""

BARE = """
import subprocess, sys, time
from urllib.request import urlopen

server = subprocess.Popen(["tritonserver", "--model-repository=/opt", "--model-control-mode=explicit"])
while server.poll() is None:
    try:
        urlopen("http://127.0.0.1:8000/v2/health/ready")
    except OSError:
        time.sleep(0.2)
    else:
        server.terminate()
        sys.exit(server.wait())
sys.exit(1)
"""
"""Starts a Triton, and ends it once it is ready."""


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[Cluster]:
    """The chart with its own values, but for where the images are: of Triton, the one for CPUs."""
    try:
        with cluster.network():
            install(cluster)
        yield cluster
    finally:
        with cluster.network():
            remove(cluster)


@pytest.fixture(scope="module")
def bucket(installed: Cluster) -> dict[str, Any]:
    """The spec of a repository in a bucket that is served in the cluster."""
    with installed.network():
        return make_bucket(installed, "shelf")


def publish(cluster: Cluster, bucket: dict[str, Any], number: int) -> None:
    """Publish a version that multiplies by ``number``."""
    with bucket_server(cluster):
        repo = qv.ModelRepository(bucket["url"])
        entry = repo.models[ENTRY] if ENTRY in repo.models else repo.add(ENTRY, platform=qv.Platform.ONNX)
        path = entry.export_version(onnx.load_from_string(scaling_graph(float(number))))
    assert path.endswith(f"/{number}/model.onnx")


def ask(cluster: Cluster, name: str, address: str = SERVICE) -> list[list[float]]:
    """What a pod gets that asks the server, by its Service's name unless said otherwise."""
    answer = cluster.run_in_pod(name, cluster.image, "python", "-c", ASK, address, ENTRY)
    cluster.kubectl("delete", "pod", name, "--wait=false")
    rows: list[list[float]] = json.loads(answer)
    return rows


def until_loaded(cluster: Cluster, number: int) -> None:
    """Until every replica serves that version, as the Model says."""

    def fact() -> bool:
        body = cluster.get("model", "digits")
        ready = {c["type"]: c for c in body["status"]["conditions"]}["Ready"]
        current = ready.get("observedGeneration") == body["metadata"]["generation"] and ready["status"] == "True"
        return current and body["status"].get("loadedVersion") == number

    cluster.until(fact)


@pytest.fixture(scope="module")
def serving(installed: Cluster, bucket: dict[str, Any]) -> Cluster:
    """The examples, on CPUs and on the bucket of the cluster, ready."""
    with installed.network():
        publish(installed, bucket, 1)
        repository = example("bucket/modelrepository.yaml", "ModelRepository", **bucket)
        server = example("kind/serving.yaml", "InferenceServer", vcpus="100m")  # a node of two cores takes two
        installed.apply(repository, server, example("model.yaml", "Model"))
        for kind, name in (("modelrepository", "models"), ("inferenceserver", "digits"), ("model", "digits")):
            installed.until_condition(kind, name)
    return installed


def example(file: str, kind: str, **changes: Any) -> dict[str, Any]:
    """The object of that kind in an example, in the tests' namespace and with other values in its spec."""
    documents = yaml.safe_load_all((ROOT / "examples" / file).read_text())
    found = next(document for document in documents if document["kind"] == kind)
    metadata = {**found["metadata"], "namespace": NAMESPACE}
    return {**found, "metadata": metadata, "spec": {**found["spec"], **changes}}


def test_the_chart_installs_under_the_restricted_standard(installed):
    pods = installed.kubectl.items("pods", "-n", SYSTEM)
    assert [pod["status"]["phase"] for pod in pods] == ["Running"]


def test_the_image_of_triton_starts_with_a_read_only_root_file_system(installed):
    installed.run_in_pod("bare", f"{installed.triton_repository}:24.10-py3", "python3", "-c", BARE)
    installed.kubectl("delete", "pod", "bare", "--wait=false")


def test_a_pod_gets_an_answer_from_the_service_by_its_name(serving):
    assert ask(serving, "first") == [[1.0] * 4] * 2


def test_no_container_of_the_examples_server_can_write_to_its_image(serving):
    pods = serving.kubectl.items("pods", "-n", NAMESPACE, "-l", "gravswell.dev/server=digits")
    containers = [c for pod in pods for c in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])]
    assert {"triton", "agent"} <= {container["name"] for container in containers}
    assert [c["name"] for c in containers if not c["securityContext"].get("readOnlyRootFilesystem")] == []


def test_the_examples_port_of_the_nodes_leads_to_the_server(serving):
    port = example("kind/serving.yaml", "InferenceServer")["spec"]["service"]["nodePorts"]["http"]
    addresses = [one for node in serving.kubectl.items("nodes") for one in node["status"]["addresses"]]
    address = next(one["address"] for one in addresses if one["type"] == "InternalIP")
    assert ask(serving, "by-node", f"{address}:{port}") == [[1.0] * 4] * 2


def test_helms_own_test_passes(serving):
    assert "Phase:          Succeeded" in serving.helm("test", "gravswell", "-n", SYSTEM)


def test_a_new_version_is_served_once_it_is_released(serving, bucket):
    publish(serving, bucket, 2)
    until_loaded(serving, 2)
    assert ask(serving, "second") == [[2.0] * 4] * 2


def test_a_server_is_scaled_through_its_scale_and_both_replicas_stand_behind_the_service(serving):
    serving.kubectl("scale", "isrv", "digits", "--replicas=2")
    serving.until(lambda: serving.get("inferenceserver", "digits")["status"].get("readyReplicas") == 2)
    serving.until(lambda: len(serving.endpoints("digits")) == 2)
    until_loaded(serving, 2)


def test_no_request_fails_while_versions_come_and_go_and_a_pod_is_killed(serving, bucket):
    serving.pod("traffic", serving.image, "python", "-c", TRAFFIC, SERVICE, ENTRY, "4")
    serving.until(lambda: "requests" in serving.kubectl("logs", "traffic", check=False))
    publish(serving, bucket, 3)
    until_loaded(serving, 3)
    serving.until(lambda: "3.0" in serving.kubectl("logs", "traffic"))
    serving.kubectl("patch", "model", "digits", "--type=merge", "-p", '{"spec": {"version": 2}}')
    until_loaded(serving, 2)
    before = serving.endpoints("digits")
    serving.kubectl("delete", "pod", min(before), "--force", "--grace-period=0")
    serving.until(lambda: len(now := serving.endpoints("digits")) == 2 and min(before) not in now)
    serving.kubectl("patch", "model", "digits", "--type=merge", "-p", '{"spec": {"version": "latest"}}')
    publish(serving, bucket, 4)
    until_loaded(serving, 4)
    said = json.loads(serving.finished("traffic").splitlines()[-1])
    assert said["seen"] == [2.0, 3.0, 4.0]


@pytest.fixture(scope="module")
def parts(serving: Cluster, bucket: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the client of the ranks needs; the example's server with ranks is told to serve them."""
    folder = tmp_path_factory.mktemp("ranks") / "parts"
    with serving.network():
        with bucket_server(serving):
            ranked.publish(bucket["url"], folder)
        small = {"tag": "24.10", "vcpus": "100m", "memory": "1Gi"}
        serving.apply(example("ranks/serving.yaml", "InferenceServer", **small), example("ranks/serving.yaml", "Model"))
        ranked.until_in_service(serving)
    return folder


def test_ranks_take_traffic_together_and_their_client_answers_as_the_whole(serving, parts):
    in_traffic, able = (ranked.moments(serving, type_) for type_ in ("Ready", "ContainersReady"))
    assert min(in_traffic.values()) >= max(able.values()), "none before all could"
    assert ranked.answers(serving, "whole", parts)


def test_a_rank_that_is_lost_takes_the_group_out_of_service_until_it_is_back(serving, parts, real_cluster):
    kept, lost = ranked.PODS
    before = serving.get("pod", kept)["metadata"]["uid"]
    nodes = [node["metadata"]["name"] for node in real_cluster.kubectl.items("nodes")]
    serving.kubectl("cordon", *nodes)  # so that the rank stays away as long as it is looked at
    try:
        serving.kubectl("delete", "pod", lost, "--force", "--grace-period=0")
        told = serving.until_condition("inferenceserver", ranked.SERVER, "RanksReady", status="False")["message"]
        assert "1 of 2 ranks ready, so none takes traffic; rank 1: " in told
        serving.until(lambda: serving.endpoints(ranked.HEADLESS) == set())
    finally:
        serving.kubectl("uncordon", *nodes)
    ranked.until_in_service(serving)
    assert serving.get("pod", kept)["metadata"]["uid"] == before
    assert ranked.answers(serving, "whole-again", parts)


def test_ranks_go_with_their_server(serving, parts):
    serving.kubectl("delete", "isrv", ranked.SERVER, "--timeout=60s")
    serving.kubectl("delete", "mdl", ranked.ENTRY, "--timeout=60s")
    mine = ("-n", NAMESPACE, "-l", f"gravswell.dev/server={ranked.SERVER}")
    serving.until(lambda: not serving.kubectl.items("pods,statefulsets,services", *mine))


def test_an_image_that_is_missing_and_a_node_that_is_full_are_named_in_the_status(serving):
    server = example("kind/serving.yaml", "InferenceServer", service={})  # its ports of the nodes are taken
    image = "registry.invalid/gravswell/nowhere:1"
    for name, change in (("missing", {"image": image}), ("large", {"vcpus": "500"})):
        spec = {key: value for key, value in server["spec"].items() if key != "tag" or name != "missing"}
        serving.apply({**server, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {**spec, **change}})
    assert image in serving.until_message("inferenceserver", "missing", "failed to pull")
    assert "Insufficient cpu" in serving.until_message("inferenceserver", "large", "Insufficient")
    serving.kubectl("delete", "isrv", "missing", "large", "--timeout=60s")


def test_a_node_that_restarts_serves_again(serving, real_cluster):
    places = ("kube-system", SYSTEM, NAMESPACE, STORAGE)  # the first has the cluster's DNS
    before = [pod for place in places for pod in serving.running(place)]
    real_cluster.node.restart()
    for pod in before:
        serving.until(lambda pod=pod: serving.restarted(pod))
    serving.until_condition("inferenceserver", "digits")
    until_loaded(serving, 4)
    assert ask(serving, "restarted") == [[4.0] * 4] * 2


def test_after_an_uninstallation_definitions_objects_and_servers_are_there_and_answer(serving):
    serving.helm("uninstall", "gravswell", "-n", SYSTEM, "--wait", "--timeout=120s")
    assert (
        serving.kubectl.items("deployments,serviceaccounts", "-n", SYSTEM, "-l", "app.kubernetes.io/name=gravswell")
        == []
    )
    assert serving.get("model", "digits")["spec"]["entry"] == ENTRY
    assert ask(serving, "orphaned") == [[4.0] * 4] * 2


def test_what_the_readme_says_of_removing_everything_leaves_nothing(serving):
    assert left(serving)
    assert any(name.startswith("deployment.apps/") for name in managed(serving))
    delete_objects(serving)
    serving.until(lambda: not managed(serving))  # by itself: the namespace, which goes next, would take it along unseen
    remove(serving)
    assert left(serving) == []
