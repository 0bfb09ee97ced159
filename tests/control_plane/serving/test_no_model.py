"""A server that has nothing to serve: its pod runs, takes no traffic and is in nobody's way, until there is a Model."""

import json
import os
import signal

import pytest

from gravswell.serving.contracts import Report

from ...serving.agent.versions import publish
from .conftest import ENTRY

SLOW = """
import time

import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        time.sleep(6)

    def execute(self, requests):
        x = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", rows * 2)]) for rows in x]
"""
"""A model that takes longer to load than a Triton to come back."""


@pytest.fixture(scope="module")
def idle(place):
    """A server without a Model, whose agent and Triton are up."""
    place.make_repository()
    place.make_server()
    place.condition("modelrepository", "models", status="True")
    place.until(lambda: (said := report(place)) is not None and said.revision and said.triton)
    return place


def report(place):
    """What the agent of the server's pod says."""
    found, pods = place.get("configmap", "server-report"), place.pods()
    text = (found or {}).get("data", {}).get(pods[0]) if pods else None
    return Report.model_validate_json(text) if text else None


def test_without_a_model_nobody_is_sent_there(idle):
    place = idle
    ready = place.condition("inferenceserver", "server", status="False", reason="NoModels")
    assert "apply one with serverRef.name: server" in ready["message"]
    place.condition("inferenceserver", "server", "Available", status="False")
    assert not report(place).ready
    pod = place.pod()["status"]
    assert pod["phase"] == "Running"
    assert {c["type"]: c["status"] for c in pod["conditions"]}["Ready"] == "False"


def test_its_node_can_be_drained(idle):
    """The budget is for replicas that take traffic: one that never gets ready must not hold up a node for ever."""
    place = idle
    pod = place.pod()["metadata"]
    path = f"/api/v1/namespaces/{place.namespace}/pods/{pod['name']}/eviction"
    metadata = {"name": pod["name"], "namespace": place.namespace}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    assert place.get("poddisruptionbudget", "server")["status"]["disruptionsAllowed"] == 0
    place.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    place.until(lambda: len(place.pods()) == 1 and place.replaced(pod["uid"]))


def test_with_its_first_model_it_is_ready(idle):
    place = idle
    pod = place.pod()["metadata"]["uid"]
    place.make_model()
    place.until_serving(1)
    assert place.answer() == 1.0
    assert place.pod()["metadata"]["uid"] == pod


def test_a_triton_that_was_started_again_takes_no_traffic_before_it_has_loaded(idle):
    place = idle
    publish(place.repository, ENTRY, 2, 2.0, python=SLOW)
    place.make_model()
    place.until_serving(2)
    before = triton(place)
    os.kill(int(before["containerID"].rpartition("/")[2]), signal.SIGKILL)

    def is_back():
        pod = place.pod()["status"]
        ready = {c["type"]: c["status"] for c in pod["conditions"]}["Ready"] == "True"
        return ready and triton(place, pod)["restartCount"] > before["restartCount"]

    place.until(is_back)
    assert place.answer() == 2.0


def triton(place, status=None):
    """The status of the pod's Triton."""
    found = (status or place.pod()["status"])["containerStatuses"]
    return next(container for container in found if container["name"] == "triton")
