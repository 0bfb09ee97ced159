"""What an object costs the API server and the operator: requests and reconciles, which no machine makes slower."""

import collections

import pytest

from gravswell_operator import names
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Key

CHILDREN = 9
"""Of a server: two ConfigMaps, account, role and binding, two Services, disruption budget, Deployment."""
SERVERS = 20


class Cost:
    """Counts what is asked of the API server, and what is reconciled."""

    def __init__(self, world) -> None:
        self.requests: list[str] = []
        self.reconciles: collections.Counter[Key] = collections.Counter()
        world.api.refuse = self.requests.append
        handle = world.engine.handle

        async def counted(key: Key) -> None:
            self.reconciles[key] += 1
            await handle(key)

        world.engine.handle = counted

    def of(self, name: str) -> list[str]:
        """The requests for one server and its children."""
        return [words for words in self.requests if words.split()[-1].startswith(name)]


def run(world, name):
    """What the one replica of a server says of itself when it is ready."""
    moment = "2026-01-01T00:00:00Z"
    own = {"name": f"{name}-1", "namespace": "ns", "creationTimestamp": moment, "labels": {names.LABEL_SERVER: name}}
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": moment}
    world.see(resources.POD, {"kind": "Pod", "metadata": own, "spec": {}, "status": {"conditions": [ready]}})


def serve(world, name):
    """What the controllers say of a Deployment whose one replica is ready, and that one too."""
    run(world, name)
    body = world.get("Deployment", name)
    status = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
    world.see(resources.DEPLOYMENT, {**body, "metadata": {**body["metadata"], "generation": 1}, "status": status})


def make(world, name):
    world.own(resources.INFERENCE_SERVER, {"metadata": {"name": name}, "spec": {"gpus": 0, "models": "All"}})


@pytest.fixture
async def listed(world):
    world.own(resources.GPU_NODE_POOL)
    world.own(resources.MODEL_REPOSITORY)
    await world.settle()
    world.publish(1)
    await world.settle()
    return world


async def test_a_server_becomes_ready_with_as_few_requests_as_it_has_children_and_news(listed):
    cost = Cost(listed)
    make(listed, "new")
    await listed.settle()
    serve(listed, "new")
    await listed.settle()
    assert listed.condition("InferenceServer", "new")["status"] == "True"
    asked = collections.Counter(words.split()[0] for words in cost.of("new"))
    assert asked == {"apply": CHILDREN, "status": 2}, "each child once, none asked for before; starting and ready"
    key = next(key for key in cost.reconciles if key.name == "new")
    assert cost.reconciles[key] <= 3, "it is made, its children are seen, it is ready"


async def test_a_new_server_that_is_ready_within_a_second_costs_one_status(listed):
    cost = Cost(listed)
    make(listed, "new")
    await listed.tick()
    assert "status" not in listed.get("InferenceServer", "new")
    serve(listed, "new")
    await listed.settle()
    assert listed.condition("InferenceServer", "new")["status"] == "True"
    assert sum(words.startswith("status") for words in cost.of("new")) == 1


async def test_a_new_server_that_takes_longer_says_so_though_nothing_happens(listed):
    make(listed, "new")
    await listed.tick()
    assert listed.get("Deployment", "new") is not None
    assert "status" not in listed.get("InferenceServer", "new")
    await listed.tick()
    assert listed.condition("InferenceServer", "new")["status"] == "False"


async def test_what_keeps_a_new_server_from_being_made_is_said_at_once(world):
    make(world, "new")
    await world.tick()
    assert "ModelRepository" in world.condition("InferenceServer", "new")["message"]


async def test_a_replica_that_is_ready_before_it_is_counted_costs_no_status_of_its_own(listed):
    cost = Cost(listed)
    make(listed, "new")
    await listed.settle()
    run(listed, "new")
    await listed.settle()
    serve(listed, "new")
    await listed.settle()
    assert listed.condition("InferenceServer", "new")["status"] == "True"
    assert listed.get("InferenceServer", "new")["status"]["startup"]["stage"] == "Ready"
    assert sum(words.startswith("status") for words in cost.of("new")) == 2


async def test_nothing_that_happens_to_one_server_is_work_for_another(listed):
    for number in range(SERVERS):
        make(listed, f"server-{number}")
    await listed.settle()
    cost = Cost(listed)
    make(listed, "new")
    await listed.settle()
    serve(listed, "new")
    await listed.settle()
    listed.change(resources.INFERENCE_SERVER, "server-1", memory="3Gi")
    await listed.settle()
    servers = {key.name for key in cost.reconciles if key.resource is resources.INFERENCE_SERVER}
    assert servers == {"new", "server-1"}


async def test_an_operator_that_starts_anew_writes_nothing_and_looks_at_each_once(listed):
    for number in range(SERVERS):
        make(listed, f"server-{number}")
    await listed.settle()
    for number in range(SERVERS):
        serve(listed, f"server-{number}")
    await listed.settle()
    listed.restart()
    cost = Cost(listed)
    await listed.settle()
    assert cost.requests == []
    assert set(cost.reconciles.values()) == {1}
    assert len(cost.reconciles) == SERVERS + 2


async def test_an_edit_goes_before_what_an_operator_that_starts_anew_looks_at(listed):
    for number in range(SERVERS):
        make(listed, f"server-{number}")
    listed.own(resources.MODEL, {"metadata": {"name": "model"}, "spec": {"serverRef": {"name": "server-5"}}})
    await listed.settle()
    listed.restart()
    listed.change(resources.INFERENCE_SERVER, "server-7", memory="3Gi")
    listed.change(resources.MODEL, "model", suspend=True)
    cost = Cost(listed)
    await listed.settle()
    assert {key.name for key in list(cost.reconciles)[:3]} == {"server-7", "model", "server-5"}
    assert len(cost.reconciles) == SERVERS + 3
