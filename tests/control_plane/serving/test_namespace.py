"""A namespace with everything in it ends, with an operator and without one."""

import pytest

EVERYTHING = (
    "deployments,services,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets,"
    "horizontalpodautoscalers,inferenceservers,models,modelrepositories"
)
OURS = ("InferenceServer", "Model", "ModelRepository")


def unfinished(place):
    """Our objects, and what was made for them, that something must happen to before they can go."""
    mine = place.objects(EVERYTHING)
    return [f"{o['kind']}/{o['metadata']['name']}" for o in mine if o["metadata"].get("finalizers")]


def end(place):
    """Delete the namespace. Its controller waits half of the longest grace of its pods before it looks again."""
    place.kubectl("delete", "namespace", place.namespace, "--timeout=110s")


def test_with_an_operator(place, operator):
    """It must not make again what the namespace's end takes away, and forgets the objects without an error."""
    place.make_repository()
    place.make_server(autoscaling={"minReplicas": 1, "maxReplicas": 2})
    place.make_model()
    place.until_serving(1)
    assert unfinished(place) == []
    end(place)
    place.until(lambda: operator.metric("gravswell_queue_length") == 0)
    assert operator.metric("gravswell_objects_failing") == 0


@pytest.fixture
def again(place):
    """The same names once more: all is taken for new. Of the pods there is only the lister's."""
    place.create("v1", "Namespace", place.namespace)
    place.make_repository()
    place.make_server(replicas=0)
    place.make_model()
    place.condition("modelrepository", "models", status="True")
    place.condition("inferenceserver", "server", status="True")
    place.until(lambda: place.model_status().get("desiredVersion") == 1)
    return place


def test_without_one(again, operator):
    place = again
    operator.stop()
    try:
        assert unfinished(place) == []
        end(place)
    finally:
        operator.start()
