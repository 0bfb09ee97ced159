"""What is served stays served when the operator can no longer know it: lost documents, and objects it cannot read."""

import pytest

from gravswell.serving.contracts import LISTING_KEY, PRIVATE_PREFIX
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
    served.change(resources.MODEL, "model", suspend=True)
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


async def test_a_listing_with_a_name_that_nothing_is_served_under_is_told_and_stops_nobody(world):
    """Somebody edited it, or a lister of another release wrote it."""
    world.own(resources.MODEL_REPOSITORY)
    world.own(resources.INFERENCE_SERVER, {"spec": {**SERVER, "models": "All"}})
    await world.settle()
    world.publish(1)
    await world.settle()
    listed = world.get("ConfigMap", "models-listing")
    text = listed["data"][LISTING_KEY].replace('"my-model"', f'"{PRIVATE_PREFIX}x"')
    world.see(resources.CONFIG_MAP, {**listed, "data": {**listed["data"], LISTING_KEY: text}})
    await world.settle()
    assert world.failures() == 0
    assert world.desired() == {"my-model": 1}
    accessible = world.condition("ModelRepository", "models", "Accessible")
    assert (accessible["status"], accessible["reason"]) == ("False", "ListingUnreadable")
    assert f"{PRIVATE_PREFIX}x" in accessible["message"]


LATER = {"verification": "OfALaterRelease"}


@pytest.mark.parametrize("restart", [False, True])
async def test_a_model_that_cannot_be_read_stays_served_as_it_was(serving, restart):
    before = serving.get("Model", "model")["status"]
    serving.change(resources.MODEL, "model", **LATER, suspend=False)
    if restart:
        serving.restart()
    await serving.settle()
    assert serving.desired() == {"my-model": 1}
    resolved = serving.condition("InferenceServer", "server", "ModelsResolved")
    assert (resolved["status"], resolved["reason"]) == ("False", "ModelsUnresolved")
    assert "cannot read Model model (spec.verification: Input should be" in resolved["message"]
    after = serving.get("Model", "model")["status"]
    ready = serving.condition("Model", "model")
    assert (ready["reason"], ready["observedGeneration"], after["observedGeneration"]) == ("InvalidSpec", 3, 3)
    assert (after["desiredVersion"], after["desiredDigest"]) == (1, before["desiredDigest"])
    serving.change(resources.MODEL, "model", verification="Golden")
    await serving.settle()
    assert serving.desired() == {"my-model": 2}


async def test_a_younger_model_does_not_take_the_place_of_one_that_cannot_be_read(serving):
    serving.change(resources.MODEL, "model", **LATER)
    young = {"name": "young", "creationTimestamp": "2026-01-02T00:00:00Z"}
    serving.own(resources.MODEL, {"metadata": young, "spec": {"version": 2}})
    await serving.settle()
    assert serving.desired() == {"my-model": 1}
    assert serving.condition("Model", "young")["reason"] == "Conflict"
    serving.remove(resources.MODEL, "model")
    await serving.settle()
    assert serving.desired() == {"my-model": 2}


async def test_a_model_that_cannot_be_read_is_not_taken_away_with_the_desired_state(serving):
    serving.change(resources.MODEL, "model", **LATER)
    serving.remove(resources.CONFIG_MAP, "server-desired")
    await serving.settle()
    assert serving.get("ConfigMap", "server-desired") is None
    assert serving.condition("InferenceServer", "server")["reason"] == "NotResolvedYet"


@pytest.mark.parametrize(
    ("resource", "name", "change", "condition"),
    [
        (resources.MODEL_REPOSITORY, "models", {"url": "later://of-a-later-release"}, "RepositoryResolved"),
        (resources.GPU_NODE_POOL, "pool", {"provider": {"type": "OfALaterRelease"}}, "NodePoolResolved"),
    ],
    ids=["repository", "pool"],
)
async def test_what_cannot_be_read_is_not_said_to_be_absent(serving, resource, name, change, condition):
    serving.own(resources.GPU_NODE_POOL)
    serving.change(resources.INFERENCE_SERVER, "server", nodePoolRef={"name": "pool"}, gpus=1)
    await serving.settle()
    served = serving.get("InferenceServer", "server")["status"]["models"]
    serving.api.writes.clear()
    good = serving.get(resource.kind, name)["spec"]
    serving.change(resource, name, **change)
    await serving.settle()
    for type_ in ("Ready", condition):
        found = serving.condition("InferenceServer", "server", type_)
        assert found["reason"] == "InvalidSpec"
        assert f"cannot read {resource.kind} {name}" in found["message"]
    assert serving.get("InferenceServer", "server")["status"]["models"] == served
    assert not [w for w in serving.api.writes if not w.startswith("status")]
    serving.change(resource, name, **good)
    await serving.settle()
    assert serving.condition("InferenceServer", "server", condition)["status"] == "True"


async def test_a_server_that_cannot_be_read_keeps_what_it_has_and_says(serving):
    before = serving.get("InferenceServer", "server")["status"]
    serving.api.writes.clear()
    serving.change(resources.INFERENCE_SERVER, "server", models="OfALaterRelease")
    await serving.settle()
    assert not [w for w in serving.api.writes if not w.startswith("status")]
    after = serving.get("InferenceServer", "server")["status"]
    conditions = {"conditions", "observedGeneration"}
    assert {k: v for k, v in after.items() if k not in conditions} == {
        k: v for k, v in before.items() if k not in conditions
    }
    assert {c["type"] for c in after["conditions"]} == {c["type"] for c in before["conditions"]}
    assert serving.condition("InferenceServer", "server")["reason"] == "InvalidSpec"
    ready = serving.condition("Model", "model")
    assert ready["reason"] == "InvalidSpec"
    assert "cannot read InferenceServer server" in ready["message"]
    assert serving.get("Model", "model")["status"]["desiredVersion"] == 1
