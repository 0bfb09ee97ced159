"""What is served stays served when the operator can no longer know it: lost documents, and objects it cannot read."""

import pytest

from gravswell_operator.cluster import resources

SERVER = {"nodePoolRef": None, "gpus": 0}


@pytest.fixture
async def serving(served):
    """Version 1 of ``my-model`` resolved for a Model, and version 2 published since it was suspended."""
    served.own(resources.MODEL)
    await served.settle()
    served.publish(1)
    await served.settle()
    assert served.desired() == {"my-model": 1}
    suspended = served.get("Model", "model")
    served.see(resources.MODEL, {**suspended, "spec": {**suspended["spec"], "suspend": True}})
    served.publish(1, 2)
    await served.settle()
    assert served.desired() == {"my-model": 1}
    return served


async def test_the_desired_state_is_there_before_anything_is_resolved(served):
    await served.settle()
    assert served.desired() == {}


async def test_a_desired_state_that_somebody_deletes_comes_back_as_it_was(serving):
    serving.remove(resources.CONFIG_MAP, "server-desired")
    await serving.settle()
    assert serving.desired() == {"my-model": 1}


async def test_a_desired_state_that_cannot_be_read_is_written_as_it_was(serving):
    broken = serving.get("ConfigMap", "server-desired")
    serving.see(resources.CONFIG_MAP, {**broken, "data": {"desired.json": "{"}})
    await serving.settle()
    assert serving.desired() == {"my-model": 1}


async def test_a_server_that_is_made_again_serves_what_its_suspended_models_stood_for(serving):
    server = serving.get("InferenceServer", "server")
    serving.remove(resources.CONFIG_MAP, "server-desired")
    serving.remove(resources.INFERENCE_SERVER, "server")
    await serving.settle()
    assert serving.condition("Model", "model")["reason"] == "ServerNotFound"
    again = {**server, "metadata": {**server["metadata"], "uid": "another"}, "status": {}}
    for (kind, _, name), body in list(serving.api.objects.items()):
        if any(r["uid"] == server["metadata"]["uid"] for r in body["metadata"].get("ownerReferences") or ()):
            serving.remove(next(r for r in resources.CHILDREN if r.kind == kind), name)
    serving.see(resources.INFERENCE_SERVER, again)
    await serving.settle()
    assert serving.desired() == {"my-model": 1}


async def test_nothing_is_written_where_what_is_served_is_known_by_nobody(world):
    world.own(resources.MODEL_REPOSITORY)
    world.own(resources.INFERENCE_SERVER, {"spec": {**SERVER, "models": "All"}})
    await world.settle()
    world.publish(1)
    await world.settle()
    assert world.desired() == {"my-model": 1}
    world.remove(resources.CONFIG_MAP, "models-listing")
    world.remove(resources.CONFIG_MAP, "server-desired")
    await world.settle()
    assert world.get("ConfigMap", "server-desired") is None
    ready = world.condition("InferenceServer", "server")
    assert ready["reason"] == "NotResolvedYet"
    assert "nothing else does of my-model" in ready["message"]
    assert [m["name"] for m in world.get("InferenceServer", "server")["status"]["models"]] == ["my-model"]
    world.publish(1, 2)
    await world.settle()
    assert world.desired() == {"my-model": 2}
