"""How a replica is replaced: a new one first where there is room, and never at the price of one that serves."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

SURGE = {"maxSurge": 1, "maxUnavailable": 0}


@dataclass(frozen=True)
class Single:
    """A server with one of the eight GPUs of the one node of its pool."""

    world: Any
    spec: dict[str, Any]
    pod: str

    def change(self, **spec: Any) -> None:
        self.world.make_server(**{**self.spec, **spec})

    def steps(self) -> list[str]:
        """What the Deployment's controller did with replica sets, in its order."""
        events = sorted(self.world.objects("events"), key=lambda event: int(event["metadata"]["resourceVersion"]))
        scaled = [e["message"] for e in events if e["reason"] == "ScalingReplicaSet" and " server-" in e["message"]]
        return [message.partition(" replica set ")[0] for message in scaled]

    def strategy(self) -> dict[str, int]:
        return self.world.get("deployment", "server")["spec"]["strategy"]["rollingUpdate"]


@pytest.fixture
def single(world):
    world.make_pool(provider={"type": "Static", "static": {"matchLabels": {"rack": world.namespace}}}, taints=[])
    world.kubectl("label", "node", "plain", f"rack={world.namespace}", "--overwrite")
    world.make_repository()
    spec = {"nodePoolRef": {"name": world.pool}, "gpus": 1, "replicas": 1}
    world.make_server(**spec)
    world.rolled_out()
    (pod,) = world.pods()
    made = Single(world, spec, pod)
    world.until(lambda: made.strategy() == SURGE)
    yield made
    world.kubectl("label", "node", "plain", "rack-")


def test_where_there_is_room_the_new_replica_comes_first(single):
    single.change(podTemplate={"env": [{"name": "CHANGED", "value": "yes"}]})
    world = single.world
    world.until(lambda: len(world.pods()) == 1 and single.pod not in world.pods())
    world.until(lambda: single.steps() == ["Scaled up", "Scaled up", "Scaled down"])  # told a moment later


def test_bounds_that_would_fill_the_pool_take_no_room(single):
    """Its autoscaler may take all eight GPUs, and has taken one."""
    world = single.world
    spec = {key: value for key, value in single.spec.items() if key != "replicas"}
    scaled = {**spec, "autoscaling": {"minReplicas": 1, "maxReplicas": 8}}
    world.make_server(**scaled)
    world.condition("inferenceserver", "server", "Autoscaling")
    world.make_server(**scaled, podTemplate={"env": [{"name": "CHANGED", "value": "yes"}]})
    world.until(lambda: len(world.pods()) == 1 and single.pod not in world.pods())
    world.until(lambda: single.steps() == ["Scaled up", "Scaled up", "Scaled down"])  # told a moment later
    world.kubectl("scale", "deployment", "server", "--replicas=8")
    world.until(lambda: single.strategy() == {"maxSurge": 0, "maxUnavailable": 1})


@pytest.mark.parametrize(
    "change", [{"podTemplate": {"nodeSelector": {"disk": "sdd"}}}, {"memory": "900Ti"}], ids=["label", "memory"]
)
def test_what_fits_nowhere_does_not_cost_the_replica_that_serves(single, change):
    single.change(**change)
    world = single.world
    ready = world.condition("inferenceserver", "server", status="False", reason="PodUnschedulable")
    assert "cannot be scheduled" in ready["message"]
    assert single.strategy() == SURGE
    assert single.pod in world.pods()
    assert world.condition("inferenceserver", "server", "Available")["status"] == "True"
    single.change()  # mended
    world.until(lambda: world.pods() == [single.pod])


def test_gpus_that_others_took_are_left_to_the_new_replica_by_the_older_one(single):
    world = single.world
    container = {
        "name": "job",
        "image": "registry.example/job:1",
        "resources": {"limits": {"nvidia.com/gpu": "7"}},
    }
    spec = {"nodeSelector": {"rack": world.namespace}, "containers": [container]}
    other = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other"}, "spec": spec}
    world.kubectl("apply", "-f", "-", stdin=json.dumps(other))
    world.kubectl("wait", "--for=condition=PodScheduled", "pod/other", "--timeout=90s")
    single.change(podTemplate={"env": [{"name": "CHANGED", "value": "yes"}]})
    world.until(lambda: len(world.pods()) == 1 and single.pod not in world.pods())
    world.rolled_out()
    world.until(lambda: single.strategy() == SURGE)
