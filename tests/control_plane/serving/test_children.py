"""What somebody deletes by hand is made again, and the pod that serves goes on serving wherever it can."""

import json

import pytest

CHILDREN = [
    "configmap/server-desired",
    "configmap/models-listing",
    "role/server-agent",
    "role/models-lister",
    "rolebinding/server-agent",
    "rolebinding/models-lister",
    "service/server",
    "service/server-headless",
    "poddisruptionbudget/server",
]


@pytest.fixture(scope="module")
def serving(place):
    place.make_repository()
    place.make_server()
    place.make_model()
    place.until_serving(1)
    return place


def uid(place, child):
    found = place.get(*child.split("/"))
    return found["metadata"]["uid"] if found is not None else None


def delete(place, *children, cascade="background"):
    """Delete them, and wait until others of the same names are there."""
    before = {child: uid(place, child) for child in children}
    assert None not in before.values()
    place.kubectl("delete", *children, f"--cascade={cascade}")
    place.until(lambda: all(uid(place, child) not in (None, old) for child, old in before.items()))


def life(pod):
    """What changes when a pod is replaced, restarted, or leaves traffic for a moment."""
    (ready,) = (c for c in pod["status"]["conditions"] if c["type"] == "Ready")
    restarts = [status["restartCount"] for status in pod["status"]["containerStatuses"]]
    return pod["metadata"]["uid"], ready["status"], ready["lastTransitionTime"], restarts


@pytest.mark.parametrize("child", CHILDREN)
def test_a_child_comes_back_and_the_pod_serves_on(serving, child):
    place = serving
    before = life(place.pod())
    delete(place, child)
    place.until_serving(1)
    assert life(place.pod()) == before
    assert place.answer() == 1.0


def test_all_of_them_at_once_come_back_and_what_is_published_arrives(serving):
    place = serving
    before = life(place.pod())
    # Agents look whether their reports are there once a minute, or when they have news.
    delete(place, *CHILDREN, "configmap/server-report")
    place.publish(2)
    place.until_serving(2)
    assert life(place.pod()) == before
    assert place.answer() == 2.0


def test_a_deployment_whose_pods_are_kept_takes_them_back(serving):
    place = serving
    before = life(place.pod())
    delete(place, "deployment/server", cascade="orphan")
    place.until_serving(2)
    assert life(place.pod()) == before


def test_accounts_come_back_and_the_pods_of_the_old_ones_serve_until_they_are_restarted(serving):
    """A token is of one account and not of its name: the pods' own are refused until they are renewed or replaced."""
    place = serving
    before = life(place.pod())
    delete(place, "serviceaccount/server-agent", "serviceaccount/models-lister")
    assert life(place.pod()) == before
    assert place.answer() == 2.0
    place.kubectl("rollout", "restart", "deployment/models-lister", "deployment/server")
    place.publish(3)
    place.until_serving(3)
    place.until_one_replica()
    assert place.answer() == 3.0


@pytest.mark.parametrize("child", ["deployment/models-lister", "deployment/server"])
def test_a_deployment_comes_back_with_new_pods(serving, child):
    place = serving
    before = place.pod("lister" if "lister" in child else "triton")["metadata"]["uid"]
    delete(place, child)
    place.until(lambda: place.replaced(before))
    place.until_serving(3)
    place.until_one_replica()
    assert place.answer() == 3.0


def test_nothing_is_made_but_what_belongs_to_somebody(serving):
    """Else it would stay when the server goes."""
    kinds = "deployments,services,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets"
    for made in serving.objects(kinds, selector="app.kubernetes.io/managed-by=gravswell"):
        owners = [(o["kind"], o["controller"]) for o in made["metadata"]["ownerReferences"]]
        assert owners in ([("InferenceServer", True)], [("ModelRepository", True)]), json.dumps(made)
        assert "finalizers" not in made["metadata"]
