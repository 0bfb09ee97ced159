"""``helm uninstall`` with live objects: real pods of real servers answer on, come back by themselves, and can go."""

import json
import os
import signal
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from ..serving.agent.versions import WIDTH, publish
from .installing import RELEASE, SYSTEM, cluster, run

__all__ = ["cluster", "run"]

CHART = Path(__file__).parents[2] / "charts/gravswell"
API = "gravswell.dev/v1alpha1"
ENTRY = "scale"


def eventually(holds):
    """Wait until ``holds`` does; its answer."""
    deadline = time.monotonic() + 120
    while not (answer := holds()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert answer
    return answer


def objects(cluster, kinds, *selector):
    return json.loads(cluster.kubectl("get", kinds, "-n", "default", *selector, "-o", "json"))["items"]


def pods(cluster):
    return objects(cluster, "pods", "-l", "gravswell.dev/server=server")


def pod(cluster):
    (found,) = pods(cluster)
    return found


def is_ready(cluster):
    """Whether there is one pod, and it is: one that goes and the next may be there together, or neither."""
    found = [c["status"] for one in pods(cluster) for c in one["status"].get("conditions", ()) if c["type"] == "Ready"]
    return found == ["True"]


def answer(cluster):
    """By how much the server multiplies."""
    tensor = {"name": "x", "shape": [1, WIDTH], "datatype": "FP32", "data": [1.0] * WIDTH}
    url = f"http://{pod(cluster)['status']['podIP']}:8000/v2/models/{ENTRY}/infer"
    request = urllib.request.Request(url, json.dumps({"inputs": [tensor]}).encode())
    with urllib.request.urlopen(request, timeout=30) as response:
        (output,) = json.loads(response.read())["outputs"]
    return float(np.unique(output["data"]).item())


@pytest.mark.timeout(1200)  # the bounds of its waits add up to as much
def test_servers_outlive_the_operator_and_nothing_hangs_for_want_of_it(run, cluster, tmp_path):
    repository = tmp_path / "zoo"
    repository.mkdir()
    publish(repository, ENTRY, 1, 3.0)
    run("install", RELEASE, str(CHART), "--create-namespace", "--wait", "--timeout", "240s")
    specs = {
        ("ModelRepository", "models"): {"url": repository.as_uri(), "syncInterval": "5s"},
        ("InferenceServer", "server"): {
            "repositoryRef": {"name": "models"},
            "tag": "24.08",
            "vcpus": "100m",
            "replicas": 1,
        },
        ("Model", ENTRY): {"serverRef": {"name": "server"}, "entry": ENTRY},
    }
    items = [
        {"apiVersion": API, "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec}
        for (kind, name), spec in specs.items()
    ]
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    cluster.kubectl("wait", "--for=condition=Ready", f"mdl/{ENTRY}", "-n", "default", "--timeout=120s", timeout=150)
    before = pod(cluster)["metadata"]["uid"]

    run("uninstall", RELEASE, "--wait", "--timeout", "240s")
    eventually(lambda: not json.loads(cluster.kubectl("get", "pods", "-n", SYSTEM, "-o", "json"))["items"])
    assert len(objects(cluster, "gravswell")) == 3
    assert not any("finalizers" in thing["metadata"] for thing in objects(cluster, "gravswell"))
    assert pod(cluster)["metadata"]["uid"] == before
    assert answer(cluster) == 3.0

    # Both containers killed, as by a node that is short of memory; then the pod itself.
    for status in pod(cluster)["status"]["containerStatuses"]:
        os.kill(int(status["containerID"].rpartition("/")[2]), signal.SIGKILL)
    eventually(
        lambda: all(s["restartCount"] for s in pod(cluster)["status"]["containerStatuses"]) and is_ready(cluster)
    )
    assert answer(cluster) == 3.0
    cluster.kubectl("delete", "pod", "-n", "default", pod(cluster)["metadata"]["name"])
    eventually(lambda: is_ready(cluster))
    assert pod(cluster)["metadata"]["uid"] != before
    assert answer(cluster) == 3.0

    cluster.kubectl("delete", "gravswell", "--all", "-n", "default", "--timeout=60s", timeout=90)
    eventually(
        lambda: not objects(cluster, "pods,deployments,services", "-l", "app.kubernetes.io/managed-by=gravswell")
    )
