"""Devices from end to end: what Models ask for reaches the agent's Triton, the statuses, and ``gravswell top``.

The local node's GPUs are simulated, so the agent drops the devices from what it loads, and remembers them all the same.
"""

import json
import urllib.request

import pytest

from gravswell.serving.agent.loadconfig import KEY_PARAMETER, load_key
from gravswell.serving.contracts import DESIRED_KEY, Desired

from ...commands import run
from ...serving.agent.versions import publish
from .conftest import ENTRY

__all__ = ["run"]

OTHER = "other"


@pytest.fixture(scope="module")
def placed(place):
    publish(place.repository, OTHER, 1, 5.0)
    provider = {"type": "Static", "static": {"matchLabels": {"nvidia.com/gpu.product": "Simulated-GPU"}}}
    place.apply("GPUNodePool", place.pool, provider=provider, accelerator={"type": "simulated", "count": 8})
    place.make_repository()
    place.make_server(gpus=4, nodePoolRef={"name": place.pool})
    place.make_model(placement={"devices": 3})
    place.until_serving(1)
    place.make_model(OTHER, entry=OTHER, placement={"devices": 2})
    yield place
    place.kubectl("delete", "gpunodepool", place.pool, "--wait=false")


def desired(place):
    data = place.get("configmap", "server-desired")["data"]
    return {model.name: model for model in Desired.model_validate_json(data[DESIRED_KEY]).models}


def loaded(place, model):
    address = place.pod()["status"]["podIP"]
    with urllib.request.urlopen(f"http://{address}:8000/v2/models/{model}/config", timeout=30) as answer:
        return json.loads(answer.read())


def is_loaded_as_desired(place, model):
    key = load_key(desired(place)[model], cpu_only=True)
    return loaded(place, model)["parameters"][KEY_PARAMETER]["string_value"] == key


def test_what_was_placed_is_served_so_and_shown(placed):
    assert desired(placed)[ENTRY].gpus == (0, 1, 2)
    assert is_loaded_as_desired(placed, ENTRY)
    assert loaded(placed, ENTRY)["instance_group"][0]["kind"] == "KIND_CPU"
    assert placed.answer() == 1.0
    assert placed.get("model", ENTRY)["status"]["placement"] == {"devices": [0, 1, 2]}
    assert "[0,1,2]" in placed.kubectl("get", "mdl", ENTRY, "-o", "wide")


def test_over_commitment_is_refused_and_the_earlier_model_stays(placed, run):
    refused = placed.condition("model", OTHER, status="False", reason="NotPlaced")
    assert refused["message"].startswith("other asks for 2 devices in a row, and 1 of 4 are free. ")
    assert "InferenceServer server: 0-2 scale; 3 free. " in refused["message"]
    resolved = placed.condition("inferenceserver", "server", "ModelsResolved", status="False")
    assert resolved["reason"] == "ModelsUnresolved"
    placed.condition("inferenceserver", "server", status="True")
    placed.condition("model", ENTRY, status="True")
    options = ("--namespace", placed.namespace, "--kubeconfig", placed.cluster.kubeconfig)
    (server,) = run("top", *options, "-o", "json").data["servers"]
    assert [(model["name"], model["state"]) for model in server["unserved"]] == [(OTHER, "NotPlaced")]


def test_a_model_that_asks_for_less_is_placed_beside_it(placed, run):
    placed.patch("model", OTHER, {"spec": {"placement": {"devices": 1}}})
    placed.condition("model", OTHER, status="True")
    assert {name: model.gpus for name, model in desired(placed).items()} == {ENTRY: (0, 1, 2), OTHER: (3,)}
    assert is_loaded_as_desired(placed, OTHER)
    assert placed.get("inferenceserver", "server")["status"]["devices"] == [
        *({"device": device, "models": [ENTRY]} for device in range(3)),
        {"device": 3, "models": [OTHER]},
    ]
    told = run("top", "server", "-A", "-l", "!none", "--once", "--kubeconfig", placed.cluster.kubeconfig)
    assert told.code == 0, told.err
    lines = [line.split() for line in told.out.splitlines()]
    (head,) = (line for line in lines if line[0] == f"{placed.namespace}/server")
    assert head[1:] == ["1", "of", "1", "ready", "4", "each,", "simulated", "Serving"]
    assert [placed.pod()["metadata"]["name"], "0-2", ENTRY, "1", "Serving"] in lines
    assert ["3", OTHER, "1", "Serving"] in lines


def test_a_model_that_asks_for_others_is_loaded_anew_and_serves_on(placed):
    before = loaded(placed, ENTRY)["parameters"][KEY_PARAMETER]
    placed.patch("model", ENTRY, {"spec": {"placement": {"devices": 2, "start": 1}}})
    placed.until(lambda: desired(placed)[ENTRY].gpus == (1, 2))
    placed.until(lambda: is_loaded_as_desired(placed, ENTRY))
    assert loaded(placed, ENTRY)["parameters"][KEY_PARAMETER] != before
    placed.condition("model", ENTRY, status="True")
    assert placed.answer() == 1.0


def test_who_or_what_is_not_there_is_named(placed, run):
    kubeconfig = ("--kubeconfig", placed.cluster.kubeconfig)
    assert (
        "there is no InferenceServer that was asked for in namespace default; -A looks in all"
        in run("top", *kubeconfig).out
    )
    missing = run("top", "none", "-n", placed.namespace, *kubeconfig)
    assert (missing.code, f"no InferenceServer none in namespace {placed.namespace}" in missing.err) == (3, True)
