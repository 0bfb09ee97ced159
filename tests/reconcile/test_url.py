"""A repository whose url changes: nothing is said or sent of the new one before its lister has seen it."""

import pytest

from gravswell.serving.contracts import DESIRED_KEY
from gravswell_operator.cluster import resources

ELSEWHERE = "file:///srv/other"


@pytest.fixture(params=["Declared", "All"])
async def moved(served, request):
    """Version 1 of ``my-model`` was served, and then the url was changed."""
    if request.param == "All":
        served.change(resources.INFERENCE_SERVER, "server", models="All")
    else:
        served.own(resources.MODEL)
    await served.settle()
    served.publish(1)
    await served.settle()
    assert served.desired() == {"my-model": 1}
    served.api.writes.clear()
    served.change(resources.MODEL_REPOSITORY, "models", url=ELSEWHERE)
    await served.settle()
    return served


def told(world):
    return world.get("ConfigMap", "server-desired")["data"][DESIRED_KEY]


async def test_the_repository_is_not_accessible_before_it_is_listed(moved):
    accessible = moved.condition("ModelRepository", "models", "Accessible")
    assert (accessible["status"], accessible["reason"]) == ("Unknown", "NotListedYet")
    assert ELSEWHERE in accessible["message"]
    assert moved.condition("ModelRepository", "models")["status"] == "False"
    # What was seen last stays to be read.
    assert moved.get("ModelRepository", "models")["status"]["models"][0]["latest"] == 1


@pytest.mark.parametrize("restart", [False, True])
async def test_the_server_and_its_models_stay_until_it_is_listed(moved, restart):
    if restart:
        moved.restart()
        await moved.settle()
    assert not [w for w in moved.api.writes if " server" in w and not w.startswith("status")]
    assert "pvc://claim/folder" in told(moved)
    assert moved.desired() == {"my-model": 1}
    ready = moved.condition("InferenceServer", "server")
    assert (ready["status"], ready["reason"]) == ("False", "NotResolvedYet")
    assert f"the new url {ELSEWHERE}, which was not listed yet" in ready["message"]
    if moved.get("Model", "model") is not None:
        assert moved.condition("Model", "model")["reason"] == "NotResolvedYet"


async def test_a_new_url_that_cannot_be_read_takes_nothing_away(moved):
    moved.publish(url=ELSEWHERE, accessible=False)
    await moved.settle()
    assert moved.condition("ModelRepository", "models", "Accessible")["status"] == "False"
    assert moved.condition("InferenceServer", "server")["reason"] == "NotResolvedYet"
    assert moved.desired() == {"my-model": 1}


async def test_a_new_url_without_what_a_model_wants_takes_nothing_away(moved):
    """Without a Model, ``models: All`` is what is there: nothing."""
    other = {"metadata": {"name": "other"}, "spec": {"entry": "other"}}
    declared = moved.get("Model", "model") is not None
    if declared:
        moved.own(resources.MODEL, other)
    moved.publish(1, 2, url=ELSEWHERE, entry="other")
    await moved.settle()
    if not declared:
        assert moved.desired() == {"other": 2}
        return
    assert not [w for w in moved.api.writes if " server" in w and not w.startswith("status")]
    assert "pvc://claim/folder" in told(moved)
    assert moved.desired() == {"my-model": 1}
    ready = moved.condition("InferenceServer", "server")
    assert (ready["status"], ready["reason"]) == ("False", "ModelsUnresolved")
    assert f"the new url {ELSEWHERE}, which lacks what is served (my-model: " in ready["message"]
    assert "The server stays on pvc://claim/folder" in ready["message"]
    assert moved.condition("Model", "model")["reason"] == "EntryNotFound"
    # What the new url has waits for the server, and says so.
    waiting = moved.condition("Model", "other")
    assert waiting["reason"] == "ModelsUnresolved"
    assert f"stays on pvc://claim/folder until {ELSEWHERE} has what it serves of my-model" in waiting["message"]
    # With the Model that it waits for, the wait ends.
    moved.remove(resources.MODEL, "model")
    await moved.settle()
    assert moved.desired() == {"other": 2}
    assert ELSEWHERE in told(moved)
    assert moved.condition("Model", "other")["reason"] != "ModelsUnresolved"


async def test_it_goes_on_when_the_new_url_is_listed(moved):
    moved.publish(1, 2, url=ELSEWHERE)
    await moved.settle()
    assert moved.desired() == {"my-model": 2}
    assert ELSEWHERE in told(moved)
    assert moved.condition("ModelRepository", "models", "Accessible")["status"] == "True"
    assert moved.condition("InferenceServer", "server")["reason"] != "NotResolvedYet"
    arguments = moved.get("Deployment", "server")["spec"]["template"]["spec"]["containers"][1]["args"]
    assert ELSEWHERE in arguments
