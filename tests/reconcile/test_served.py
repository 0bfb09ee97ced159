"""What a repository's lister is told to pin: whatever its servers serve, as soon as they shall serve it."""

from gravswell.serving.contracts import SERVED_KEY, ModelReport, ModelState, Report, Served
from gravswell_operator.cluster import resources


def told(world):
    listing = world.get("ConfigMap", "models-listing")
    return Served.model_validate_json(listing["data"][SERVED_KEY]).entries


def report(world, loaded):
    found = world.get("ConfigMap", "server-report")
    model = ModelReport(name="my-model", state=ModelState.SERVING, desired_version=loaded, loaded_version=loaded)
    pod = {"metadata": {"name": "pod", "namespace": "ns", "labels": {"gravswell.dev/server": "server"}}, "kind": "Pod"}
    world.see(resources.POD, pod)
    world.see(resources.CONFIG_MAP, {**found, "data": {"pod": Report(pod="pod", models=(model,)).to_json()}})


async def test_what_is_desired_and_what_is_still_loaded(served):
    served.own(resources.MODEL)
    await served.settle()
    assert told(served) == {}
    served.publish(1)
    await served.settle()
    assert told(served) == {"my-model": (1,)}
    report(served, 1)
    served.publish(1, 2)
    await served.settle()
    assert served.desired() == {"my-model": 2}
    assert told(served) == {"my-model": (1, 2)}, "the pod serves 1 until it has loaded 2"
    report(served, 2)
    served.change(resources.MODEL_REPOSITORY, "models", syncInterval="5m")  # whatever wakes it
    await served.settle()
    assert told(served) == {"my-model": (2,)}


async def test_what_is_served_is_no_news_to_who_serves_it(served):
    served.own(resources.MODEL)
    await served.settle()
    served.publish(1)
    await served.settle()
    served.api.writes.clear()
    served.restart()
    await served.settle()
    assert served.api.writes == []
