"""Whether a roll-out of an autoscaled server begins with a new replica: by what runs when it begins."""

import pytest

from gravswell_operator.cluster import resources
from gravswell_operator.conditions import Reason

SURGE = {"maxSurge": 1, "maxUnavailable": 0}
IN_PLACE = {"maxSurge": 0, "maxUnavailable": 1}
SCALED = {"spec": {"gpus": 1, "replicas": None, "autoscaling": {"minReplicas": 1, "maxReplicas": 4}}}


def strategy(world):
    return world.get("Deployment", "server")["spec"]["strategy"]["rollingUpdate"]


def scale(world, replicas, name="server"):
    """As an autoscaler does."""
    deployment = world.get("Deployment", name)
    world.see(resources.DEPLOYMENT, {**deployment, "spec": {**deployment["spec"], "replicas": replicas}})


@pytest.fixture
async def scaled(world):
    """One server that may fill the four GPUs of the one node of its pool, and stands at one replica."""
    labels = world._manifest("GPUNodePool")["spec"]["provider"]["static"]["matchLabels"]
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"nvidia.com/gpu": "4"}}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": labels}, "status": ready}
    world.see(resources.NODE, node)
    world.own(resources.GPU_NODE_POOL)
    world.own(resources.MODEL_REPOSITORY)
    world.own(resources.INFERENCE_SERVER, SCALED)
    await world.settle()
    scale(world, 1)
    await world.settle()
    return world


async def test_a_server_that_stands_below_its_bounds_is_not_interrupted(scaled):
    assert strategy(scaled) == SURGE
    scale(scaled, 4)
    await scaled.settle()
    assert strategy(scaled) == IN_PLACE
    scale(scaled, 1)
    await scaled.settle()
    assert strategy(scaled) == SURGE


async def test_what_another_servers_autoscaler_took_counts_when_a_roll_out_begins(scaled):
    scaled.own(resources.INFERENCE_SERVER, {**SCALED, "metadata": {"name": "other"}})
    await scaled.settle()
    scale(scaled, 3, "other")
    await scaled.settle()
    scaled.change(resources.INFERENCE_SERVER, "server", tag="25.01")
    await scaled.settle()
    assert strategy(scaled) == IN_PLACE
    scale(scaled, 2, "other")
    await scaled.settle()
    scaled.change(resources.INFERENCE_SERVER, "server", tag="25.02")
    await scaled.settle()
    assert strategy(scaled) == SURGE


async def test_a_roll_out_whose_gpus_an_autoscaler_took_meanwhile_goes_on_in_place(scaled):
    def see_pod(name, **status):
        labels = scaled.get("Deployment", "server")["spec"]["template"]["metadata"]["labels"]
        metadata = {"name": name, "namespace": "ns", "labels": labels}
        scaled.see(resources.POD, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status})

    see_pod("old", conditions=[{"type": "Ready", "status": "True"}])
    message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: none."
    see_pod("new", conditions=[{"type": "PodScheduled", "status": "False", "message": message}])
    await scaled.settle()
    assert strategy(scaled) == IN_PLACE
    assert scaled.condition("InferenceServer", "server")["reason"] == Reason.POD_UNSCHEDULABLE
    see_pod("new", conditions=[{"type": "PodScheduled", "status": "True"}])
    await scaled.settle()
    assert strategy(scaled) == SURGE
