"""An operator of an earlier release than the documents that it finds, as after ``helm rollback``."""

import json

import pytest

from gravswell.serving.contracts import DESIRED_KEY, LISTING_KEY
from gravswell_operator.cluster import resources
from gravswell_operator.conditions import Reason


@pytest.fixture
async def serving(served):
    served.own(resources.MODEL)
    await served.settle()
    served.publish(1)
    await served.settle()
    assert served.desired() == {"my-model": 1}
    return served


def rewrite(world, name, key, **changes):
    """The document is as a later release writes it."""
    found = world.get("ConfigMap", name)
    document = {**json.loads(found["data"][key]), **changes}
    world.see(resources.CONFIG_MAP, {**found, "data": {**found["data"], key: json.dumps(document)}})


@pytest.mark.parametrize("restart", [False, True])
async def test_a_listing_of_a_later_release_takes_nothing_away_and_is_told(serving, restart):
    world = serving
    before = world.get("ConfigMap", "server-desired")["data"]
    rewrite(world, "models-listing", LISTING_KEY, schema="gravswell.dev/listing/v2", entries={"my-model": "changed"})
    listing = world.get("ConfigMap", "models-listing")["data"][LISTING_KEY]
    if restart:
        world.restart()
    world.api.writes.clear()
    await world.settle()
    for kind in ("Ready", "Accessible"):
        told = world.condition("ModelRepository", "models", kind)
        assert (told["status"], told["reason"]) == ("False", Reason.LISTING_UNREADABLE)
        assert "listing/v1" in told["message"]
        assert "delete it, and the lister writes it anew" in told["message"]
    assert world.get("ConfigMap", "server-desired")["data"] == before
    assert world.get("ConfigMap", "models-listing")["data"][LISTING_KEY] == listing  # the lister's, not ours
    assert not [write for write in world.api.writes if "Deployment" in write or "delete" in write]
    model = world.condition("Model", "model")
    assert model["reason"] == Reason.NOT_RESOLVED_YET
    assert "version 1 stays meanwhile" in model["message"]
    world.publish(1, 2)  # the lister of our release has written it anew
    await world.settle()
    assert world.desired() == {"my-model": 2}


async def test_what_a_later_lister_adds_is_passed_over(serving):
    found = serving.get("ConfigMap", "models-listing")
    entries = [{**entry, "licence": "MIT"} for entry in json.loads(found["data"][LISTING_KEY])["entries"]]
    rewrite(serving, "models-listing", LISTING_KEY, entries=entries, quota={"bytes": 1})
    await serving.settle()
    assert serving.condition("ModelRepository", "models", "Accessible")["status"] == "True"
    assert serving.desired() == {"my-model": 1}


async def test_a_desired_state_of_a_later_release_is_written_as_it_was(serving):
    """By what the Models' own statuses say is served: a rollback serves what was served."""
    rewrite(serving, "server-desired", DESIRED_KEY, schema="gravswell.dev/desired/v2", models={"my-model": 1})
    await serving.settle()
    assert serving.desired() == {"my-model": 1}
