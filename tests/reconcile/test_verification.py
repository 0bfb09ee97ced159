"""What must be verified of what no Model names, by the repository's word."""

import json

from gravswell.serving.contracts import DESIRED_KEY, LISTING_KEY
from gravswell_operator.cluster import resources


def publish_without_manifest(world):
    world.publish(1)
    listing = world.get("ConfigMap", "models-listing")
    document = json.loads(listing["data"][LISTING_KEY])
    document["entries"][0]["versions"][0]["digest"] = None
    world.see(resources.CONFIG_MAP, {**listing, "data": {LISTING_KEY: json.dumps(document)}})


async def test_what_others_wrote_is_served_once_the_repository_asks_for_no_proof(served):
    served.change(resources.INFERENCE_SERVER, "server", models="All")
    await served.settle()
    publish_without_manifest(served)
    await served.settle()
    assert served.desired() == {}
    unresolved = served.condition("InferenceServer", "server", "ModelsResolved")
    assert "in the ModelRepository for all" in unresolved["message"]
    served.change(resources.MODEL_REPOSITORY, "models", verification="None")
    await served.settle()
    assert served.desired() == {"my-model": 1}
    [model] = json.loads(served.get("ConfigMap", "server-desired")["data"][DESIRED_KEY])["models"]
    assert model["verification"] == "None"
    assert served.condition("InferenceServer", "server", "ModelsResolved")["status"] == "True"
