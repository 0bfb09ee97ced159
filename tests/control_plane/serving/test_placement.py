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

OTHER, THIRD = "other", "third"


@pytest.fixture(scope="module")
def placed(place):
    publish(place.repository, OTHER, 1, 5.0)
    publish(place.repository, THIRD, 1, 3.0)
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
    asked = ("top", "server", "-A", "-l", "!none", "--once", "--kubeconfig", placed.cluster.kubeconfig)

    def told():
        done = run(*asked)
        assert done.code == 0, done.err
        lines = [line.split() for line in done.out.splitlines()]
        # Its Model is ready as soon as it answers, and the agent says a moment later that the load is over.
        return lines if ["3", OTHER, "1", "Serving"] in lines else None

    lines = placed.until(told)
    (head,) = (line for line in lines if line[0] == f"{placed.namespace}/server")
    assert head[1:] == ["1", "of", "1", "ready", "4", "each,", "simulated", "Serving"]
    assert [placed.pod()["metadata"]["name"], "0-2", ENTRY, "1", "Serving"] in lines


def test_a_model_that_asks_for_others_is_loaded_anew_and_serves_on(placed):
    before = loaded(placed, ENTRY)["parameters"][KEY_PARAMETER]
    placed.patch("model", ENTRY, {"spec": {"placement": {"devices": 2, "start": 1}}})
    placed.until(lambda: desired(placed)[ENTRY].gpus == (1, 2))
    placed.until(lambda: is_loaded_as_desired(placed, ENTRY))
    assert loaded(placed, ENTRY)["parameters"][KEY_PARAMETER] != before
    placed.condition("model", ENTRY, status="True")
    assert placed.answer() == 1.0


def test_models_share_a_device_where_all_of_them_say_so(placed, run):
    together = {"devices": 1, "start": 0, "shared": True}
    for name in (ENTRY, OTHER):  # the first is alone there until the second joins it
        placed.patch("model", name, {"spec": {"placement": together}})
    for name in (ENTRY, OTHER):
        placed.until(lambda name=name: desired(placed)[name].gpus == (0,))
        placed.until(lambda name=name: is_loaded_as_desired(placed, name))
        placed.condition("model", name, status="True")
        placed.until(lambda name=name: placed.get("model", name)["status"]["placement"] == {"devices": [0]})
    assert (placed.answer(), placed.answer(OTHER)) == (1.0, 5.0)

    def holders():
        devices = placed.get("inferenceserver", "server")["status"]["devices"]
        return [(device["device"], sorted(device.get("models", ()))) for device in devices]

    placed.until(lambda: holders() == [(0, [OTHER, ENTRY]), (1, []), (2, []), (3, [])])
    options = ("--namespace", placed.namespace, "--kubeconfig", placed.cluster.kubeconfig)

    def shown():
        (server,) = run("top", *options, "-o", "json").data["servers"]
        (replica,) = server["replicas"]
        return {model["name"]: (model["devices"], model["state"]) for model in replica["models"]}

    placed.until(lambda: shown() == {name: ([0], "Serving") for name in (ENTRY, OTHER)})
    lines = [line.split() for line in run("top", *options, "--once").out.splitlines()]
    first = next(k for k, line in enumerate(lines) if line[:1] == [placed.pod()["metadata"]["name"]])
    assert [line[-4:] for line in lines[first : first + 3]] == [
        ["0", OTHER, "1", "Serving"],
        [ENTRY, "1", "Serving"],
        ["1-3", "free"],
    ]


def test_a_model_that_does_not_share_is_not_put_beside_those_that_do(placed):
    alone = {"devices": 1, "start": 0}
    placed.make_model(THIRD, entry=THIRD, placement=alone)
    refused = placed.condition("model", THIRD, status="False", reason="NotPlaced")
    assert f"InferenceServer server: 0 {ENTRY} and {OTHER}; 1-3 free. " in refused["message"]
    placed.delete("model", THIRD)
    for name in (ENTRY, OTHER):
        placed.condition("model", name, status="True")


def test_who_or_what_is_not_there_is_named(placed, run):
    kubeconfig = ("--kubeconfig", placed.cluster.kubeconfig)
    assert (
        "there is no InferenceServer that was asked for in namespace default; -A looks in all"
        in run("top", *kubeconfig).out
    )
    missing = run("top", "none", "-n", placed.namespace, *kubeconfig)
    assert (missing.code, f"no InferenceServer none in namespace {placed.namespace}" in missing.err) == (3, True)
