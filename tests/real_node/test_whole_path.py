"""The chart, the images and the Triton on a real kubelet: installed, served by name, released, and taken away again.

The tests are one story in the order in which they stand, on one cluster.
"""

import json
from collections.abc import Iterator

import onnx
import pytest
import yaml

from gravswell import quiver as qv

from ..serving.agent.versions import scaling_graph
from .operating import ROOT, RealCluster

SYSTEM = "gravswell-system"
IMAGE = "ghcr.io/gravswell/gravswell:0.1.0"
TRITON_IMAGE = "ghcr.io/gravswell/tritonserver-cpu"
ENTRY = "digits"
BUCKET = "shelf"
SERVICE = "digits.default.svc:8000"

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

BUCKET_SERVER = """
apiVersion: v1
kind: Service
metadata: {name: bucket, namespace: storage}
spec:
  selector: {app: bucket}
  ports: [{port: 80, targetPort: 4443}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: bucket, namespace: storage}
spec:
  selector: {matchLabels: {app: bucket}}
  template:
    metadata: {labels: {app: bucket}}
    spec:
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, runAsUser: 1000, fsGroup: 1000, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: bucket
          image: gravswell.dev/bucket:1
          imagePullPolicy: Never
          args: [-scheme, http, -host, 0.0.0.0, -port, "4443", -backend, filesystem, -filesystem-root, /data]
          securityContext:
            {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
          readinessProbe: {httpGet: {path: /storage/v1/b, port: 4443}, periodSeconds: 1}
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, emptyDir: {}}]
"""


@pytest.fixture(scope="module")
def installed(real_cluster: RealCluster) -> RealCluster:
    """The chart with its own values, but for the Triton image, which is the one for CPUs."""
    cluster = real_cluster
    with cluster.node.machine.network():
        cluster.namespace(SYSTEM)
        cluster.namespace("storage")
        cluster.namespace("default")
        triton = f"--set=triton.repository={TRITON_IMAGE}"
        chart = str(ROOT / "charts/gravswell")
        cluster.helm("install", "gravswell", chart, "-n", SYSTEM, "--wait", "--timeout=180s", triton)
    return cluster


@pytest.fixture(scope="module")
def bucket(real_cluster: RealCluster) -> Iterator[str]:
    """The URL of a repository in a bucket that is served in the cluster; this process reaches it by its Service too."""
    cluster = real_cluster
    with cluster.node.machine.network(), pytest.MonkeyPatch.context() as here:
        cluster.namespace("storage")
        cluster.kubectl("apply", "--server-side", "-f", "-", stdin=BUCKET_SERVER)
        cluster.kubectl("-n", "storage", "rollout", "status", "deployment/bucket", "--timeout=120s", timeout=150)
        address = cluster.get("service", "bucket", "storage")["spec"]["clusterIP"]
        here.setenv("STORAGE_EMULATOR_HOST", f"http://{address}")
        cluster.make_bucket(f"http://{address}", BUCKET)
        yield f"gs://{BUCKET}/models"


def publish(url: str, number: int) -> None:
    """Publish a version that multiplies by ``number``."""
    repo = qv.ModelRepository(url)
    entry = repo.models[ENTRY] if ENTRY in repo.models else repo.add(ENTRY, platform=qv.Platform.ONNX)
    path = entry.export_version(onnx.load_from_string(scaling_graph(float(number))))
    assert path.endswith(f"/{number}/model.onnx")


def ask(cluster: RealCluster, name: str) -> list[list[float]]:
    """What a pod gets that asks the server by its Service's name."""
    answer = cluster.run_in_pod(name, IMAGE, "python", "-c", ASK, SERVICE, ENTRY)
    cluster.kubectl("delete", "pod", name, "--wait=false")
    rows: list[list[float]] = json.loads(answer)
    return rows


def until_loaded(cluster: RealCluster, number: int) -> None:
    """Until every replica serves that version, as the Model says."""

    def fact() -> bool:
        body = cluster.get("model", "digits")
        ready = {c["type"]: c for c in body["status"]["conditions"]}["Ready"]
        current = ready.get("observedGeneration") == body["metadata"]["generation"] and ready["status"] == "True"
        return current and body["status"].get("loadedVersion") == number

    cluster.until(fact)


@pytest.fixture(scope="module")
def serving(installed: RealCluster, bucket: str) -> RealCluster:
    """The examples, on CPUs and on the bucket of the cluster, ready."""
    with installed.node.machine.network():
        publish(bucket, 1)
        secret = {"endpoint": "http://bucket.storage.svc"}
        installed.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "models-bucket", "namespace": "default"},
                "stringData": secret,
            }
        )
        repository = example("bucket/modelrepository.yaml", "ModelRepository", url=bucket, syncInterval="5s")
        server = example("kind/serving.yaml", "InferenceServer", vcpus="100m")  # a node of two cores takes two
        installed.apply(repository, server, example("model.yaml", "Model"))
        for kind, name in (("modelrepository", "models"), ("inferenceserver", "digits"), ("model", "digits")):
            installed.until_condition(kind, name)
    return installed


def example(file: str, kind: str, **changes: str) -> dict:
    """The object of that kind in an example, with other values in its spec."""
    documents = yaml.safe_load_all((ROOT / "examples" / file).read_text())
    found = next(document for document in documents if document["kind"] == kind)
    return {**found, "spec": {**found["spec"], **changes}}


def test_the_chart_installs_under_the_restricted_standard(installed):
    pods = installed.kubectl.items("pods", "-n", SYSTEM)
    assert [pod["status"]["phase"] for pod in pods] == ["Running"]


def test_the_image_of_triton_starts_with_a_read_only_root_file_system(installed):
    installed.run_in_pod("bare", f"{TRITON_IMAGE}:24.10-py3", "python3", "-c", BARE)
    installed.kubectl("delete", "pod", "bare", "--wait=false")


def test_a_pod_gets_an_answer_from_the_service_by_its_name(serving):
    assert ask(serving, "first") == [[1.0] * 4] * 2


def test_helms_own_test_passes(serving):
    assert "Phase:          Succeeded" in serving.helm("test", "gravswell", "-n", SYSTEM)


def test_a_new_version_is_served_once_it_is_released(serving, bucket):
    publish(bucket, 2)
    until_loaded(serving, 2)
    assert ask(serving, "second") == [[2.0] * 4] * 2


def test_a_server_is_scaled_through_its_scale_and_both_replicas_stand_behind_the_service(serving):
    serving.kubectl("scale", "isrv", "digits", "--replicas=2")
    serving.until(lambda: serving.get("inferenceserver", "digits")["status"].get("readyReplicas") == 2)
    serving.until(lambda: len(serving.endpoints("digits")) == 2)
    until_loaded(serving, 2)


def test_no_request_fails_while_versions_come_and_go_and_a_pod_is_killed(serving, bucket):
    serving.pod("traffic", IMAGE, "python", "-c", TRAFFIC, SERVICE, ENTRY, "4")
    serving.until(lambda: "requests" in serving.kubectl("logs", "traffic", check=False))
    publish(bucket, 3)
    until_loaded(serving, 3)
    serving.kubectl("patch", "model", "digits", "--type=merge", "-p", '{"spec": {"version": 2}}')
    until_loaded(serving, 2)
    before = serving.endpoints("digits")
    serving.kubectl("delete", "pod", min(before), "--force", "--grace-period=0")
    serving.until(lambda: len(now := serving.endpoints("digits")) == 2 and min(before) not in now)
    serving.kubectl("patch", "model", "digits", "--type=merge", "-p", '{"spec": {"version": "latest"}}')
    publish(bucket, 4)
    until_loaded(serving, 4)
    said = json.loads(serving.finished("traffic").splitlines()[-1])
    assert said["seen"] == [2.0, 3.0, 4.0]


def test_an_image_that_is_missing_and_a_node_that_is_full_are_named_in_the_status(serving):
    server = example("kind/serving.yaml", "InferenceServer")
    image = "registry.invalid/gravswell/nowhere:1"
    for name, change in (("missing", {"image": image}), ("large", {"vcpus": "500"})):
        spec = {key: value for key, value in server["spec"].items() if key != "tag" or name != "missing"}
        serving.apply({**server, "metadata": {"name": name, "namespace": "default"}, "spec": {**spec, **change}})
    assert "failed to pull" in serving.until_message("inferenceserver", "missing", image)
    assert "Insufficient cpu" in serving.until_message("inferenceserver", "large", "Insufficient")
    serving.kubectl("delete", "isrv", "missing", "large", "--timeout=60s")


def test_a_node_that_restarts_serves_again(serving):
    before = [pod for place in (SYSTEM, "default", "storage") for pod in serving.running(place)]
    serving.node.restart()
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
