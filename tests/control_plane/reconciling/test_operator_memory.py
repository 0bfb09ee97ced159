"""What serves stays served, and what is ours stays as it is: whatever is deleted, unknown or added by others."""

import json

import pytest

from gravswell.serving.contracts import DESIRED_KEY, Desired

VERIFICATION = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/verification/enum"


@pytest.fixture
def suspended(world):
    """A Model that stands for version 1, suspended before version 2 was published."""
    world.make_repository()
    world.make_server()
    world.make_model()
    world.publish(1)
    world.until(lambda: versions(world) == [1])
    world.condition("model", "digits", reason="Loading")
    world.make_model(suspend=True)
    world.condition("model", "digits", "Suspended", status="True")
    world.publish(1, 2)
    return world


def versions(world):
    """The versions that the agents are told to serve; None while the document is not there."""
    found = world.get("configmap", "server-desired")
    text = (found or {}).get("data", {}).get(DESIRED_KEY)
    return [m.version for m in Desired.model_validate_json(text).models] if text else None


def test_a_desired_state_that_is_deleted_comes_back_as_it_was(suspended):
    world = suspended
    uid = world.get("configmap", "server-desired")["metadata"]["uid"]
    world.kubectl("delete", "configmap", "server-desired")
    world.until(
        lambda: (world.get("configmap", "server-desired") or {"metadata": {"uid": uid}})["metadata"]["uid"] != uid
    )
    assert versions(world) == [1]


@pytest.fixture
def later_definitions(cluster):
    """The definitions of a later release, in which a verification exists that this operator does not know."""

    def patch(operation, path, **value):
        change = json.dumps([{"op": operation, "path": path, **value}])
        cluster.kubectl("patch", "crd", "models.gravswell.dev", "--type=json", "-p", change)

    crd = json.loads(cluster.kubectl("get", "crd", "models.gravswell.dev", "-o", "json"))
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    known = spec["verification"]["enum"]
    patch("add", f"{VERIFICATION}/-", value="Signed")
    yield
    patch("replace", VERIFICATION, value=known)


def test_a_model_of_later_definitions_stays_served(suspended, later_definitions, operator):
    world = suspended
    # The API server takes up new definitions a moment after it has stored them.
    change = json.dumps({"spec": {"verification": "Signed", "suspend": False}})
    patch = ("patch", "model", "digits", "--type=merge", "-p", change)
    world.until(lambda: "patched" in world.kubectl(*patch, check=False))
    ready = world.condition("model", "digits", status="False", reason="InvalidSpec")
    assert "spec.verification" in ready["message"]
    assert world.get("model", "digits")["status"]["desiredVersion"] == 1
    unresolved = world.condition("inferenceserver", "server", "ModelsResolved", status="False")
    assert "cannot read Model digits" in unresolved["message"]
    assert versions(world) == [1]
    operator.restart()
    world.until(lambda: operator.metric("gravswell_reconcile_duration_seconds_count", kind="InferenceServer"))
    world.until(lambda: operator.metric("gravswell_queue_length") == 0)
    assert versions(world) == [1]
    world.patch("model", "digits", {"spec": {"verification": "Golden"}})
    world.until(lambda: versions(world) == [2])


def test_a_subject_that_somebody_binds_to_an_agents_role_goes(world):
    world.make_repository()
    world.make_server()
    world.condition("inferenceserver", "server", "Available", status="True")
    before = world.get("rolebinding", "server-agent")["subjects"]
    intruder = {"kind": "ServiceAccount", "name": "intruder", "namespace": world.namespace}
    world.patch("rolebinding", "server-agent", {"subjects": [*before, intruder]})
    world.until(lambda: world.get("rolebinding", "server-agent")["subjects"] == before)


def test_a_service_that_selects_something_more_finds_its_pods_again(world):
    world.make_repository()
    world.make_server()
    world.condition("inferenceserver", "server", "Available", status="True")
    before = world.get("service", "server")["spec"]["selector"]
    world.patch("service", "server", {"spec": {"selector": {"nobody": "has-this"}}})
    world.until(lambda: world.get("service", "server")["spec"]["selector"] == before)


@pytest.mark.parametrize("label", [None, "other"], ids=["removed", "changed"])
def test_the_label_that_names_the_owner_comes_back(world, label):
    world.make_repository()
    world.make_server()
    world.condition("inferenceserver", "server", "Available", status="True")
    world.patch("service", "server", {"metadata": {"labels": {"gravswell.dev/server": label}}})
    world.until(lambda: world.get("service", "server")["metadata"]["labels"].get("gravswell.dev/server") == "server")


def test_a_child_that_loses_the_label_by_which_it_is_watched_gets_it_back(world, operator):
    """For the watch it is gone, and back at once: it must not be taken for a ghost."""
    world.make_repository()
    world.make_server()
    world.condition("inferenceserver", "server", "Available", status="True")
    label = "app.kubernetes.io/managed-by"
    world.patch("service", "server", {"metadata": {"labels": {label: None}}})
    world.until(lambda: world.get("service", "server")["metadata"]["labels"].get(label) == "gravswell")
    world.until(lambda: operator.metric("gravswell_queue_length") == 0)
    before = operator.metric("gravswell_api_requests_total", kind="Service", verb="patch")
    world.patch("inferenceserver", "server", {"spec": {"memory": "3Gi"}})
    world.rolled_out()
    assert operator.metric("gravswell_api_requests_total", kind="Service", verb="patch") == before


def test_a_suspended_server_looks_observed(world):
    world.make_repository()
    world.make_server()
    world.condition("inferenceserver", "server", "Available", status="True")
    world.patch("inferenceserver", "server", {"spec": {"suspend": True}})
    world.condition("inferenceserver", "server", "Suspended", status="True")
    body = world.get("inferenceserver", "server")
    assert body["status"]["observedGeneration"] == body["metadata"]["generation"]
