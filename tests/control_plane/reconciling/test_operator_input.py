"""What users get wrong, or in another order: a condition that names it, and repaired when it is mended."""

import json

import pytest


def test_a_missing_repository_is_named_and_repaired_when_it_appears(world):
    world.make_server()
    ready = world.condition("inferenceserver", "server", status="False", reason="RepositoryNotFound")
    assert f"no ModelRepository models in namespace {world.namespace}" in ready["message"]
    assert world.condition("inferenceserver", "server", "RepositoryResolved")["status"] == "False"
    assert world.get("deployment", "server") is None
    world.make_repository()
    world.condition("inferenceserver", "server", "RepositoryResolved", status="True")
    world.rolled_out()


def test_a_missing_pool_is_named_and_repaired_when_it_appears(world):
    world.make_repository()
    world.make_server(nodePoolRef={"name": world.pool}, gpus=1)
    ready = world.condition("inferenceserver", "server", status="False", reason="NodePoolNotFound")
    assert f"no GPUNodePool {world.pool}" in ready["message"]
    assert world.get("deployment", "server") is None
    world.make_pool()
    world.rolled_out()


def test_a_repository_that_goes_away_leaves_the_server_serving(world):
    world.make_repository()
    world.make_server()
    world.rolled_out()
    world.kubectl("delete", "modelrepository", "models")
    world.condition("inferenceserver", "server", status="False", reason="RepositoryNotFound")
    assert world.condition("inferenceserver", "server", "Available")["status"] == "True"
    assert len(world.pods()) == 1
    world.make_repository()
    world.rolled_out()


def test_more_gpus_than_a_node_has(world):
    world.make_pool()
    world.make_repository()
    world.make_server(nodePoolRef={"name": world.pool}, gpus=9)
    ready = world.condition("inferenceserver", "server", reason="TooManyGPUs")
    assert f"asks for 9 GPUs and each node of GPUNodePool {world.pool} has 8" in ready["message"]
    assert world.get("deployment", "server") is None
    world.make_server(nodePoolRef={"name": world.pool}, gpus=8)
    world.rolled_out()


def test_a_namespace_that_the_pool_does_not_allow(world):
    world.make_pool(allowedNamespaces=["somewhere-else"])
    world.make_repository()
    world.make_server(nodePoolRef={"name": world.pool}, gpus=1)
    ready = world.condition("inferenceserver", "server", reason="NodePoolNotAllowed")
    assert f"allows the namespaces somewhere-else and not {world.namespace}" in ready["message"]
    world.make_pool(allowedNamespaces=["somewhere-else", world.namespace])
    world.rolled_out()


def _message(world):
    return world.condition("inferenceserver", "server", status="False", reason="PodUnschedulable")["message"]


def test_gpus_that_nobody_has_left_are_told_with_the_pod(world):
    world.make_pool()
    world.make_repository()
    world.make_server(nodePoolRef={"name": world.pool}, gpus=8, replicas=4)
    world.until(lambda: "3 of 4 replicas ready; pod server-" in _message(world))
    assert "Insufficient nvidia.com/gpu" in _message(world)
    world.kubectl("scale", "inferenceserver", "server", "--replicas=3")
    world.rolled_out()


def test_an_object_of_somebody_else_is_never_taken_over(world):
    service = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "server-report"}, "data": {"mine": "yes"}}
    world.kubectl("apply", "-f", "-", stdin=json.dumps(service))
    world.make_repository()
    world.make_server()
    ready = world.condition("inferenceserver", "server", status="False", reason="NameTaken")
    assert f"ConfigMap {world.namespace}/server-report exists and does not belong" in ready["message"]
    theirs = world.get("configmap", "server-report")
    assert "ownerReferences" not in theirs["metadata"]
    assert theirs["data"] == {"mine": "yes"}
    world.kubectl("delete", "configmap", "server-report")
    world.rolled_out()


def test_what_the_api_server_refuses_reaches_the_status(world):
    """An admission policy of the cluster's, in its own words."""
    world.kubectl("create", "quota", "none", "--hard=count/services=0")
    probe = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "probe"}, "spec": {"ports": [{"port": 80}]}}
    world.until(lambda: "exceeded quota" in world.refusal(probe))  # a controller makes it count
    world.make_repository()
    world.make_server()
    ready = world.condition("inferenceserver", "server", status="False", reason="QuotaExceeded")
    assert "exceeded quota: none" in ready["message"]
    assert "raise the ResourceQuota" in ready["message"]
    world.kubectl("delete", "quota", "none")
    world.rolled_out()


def test_models_that_cannot_be_resolved(world):
    world.make_model()
    assert "no InferenceServer server" in world.condition("model", "digits", reason="ServerNotFound")["message"]
    world.make_repository()
    world.make_server()
    world.condition("model", "digits", reason="NotResolvedYet")
    world.publish(1, 2)
    world.condition("model", "digits", reason="Loading")
    world.make_model(version=7)
    ready = world.condition("model", "digits", reason="VersionNotFound")
    assert "it has 2, 1" in ready["message"]
    # What was resolved before is what the server is still told.
    assert "version 2 stays meanwhile" in ready["message"]
    world.until(lambda: '"version":2' in world.get("configmap", "server-desired")["data"].get("desired.json", ""))
    world.make_model("other", entry="absent")
    assert "it holds digits" in world.condition("model", "other", reason="EntryNotFound")["message"]
    # The server resolves by itself, perhaps after its Model has.
    world.until(lambda: "absent" in world.condition("inferenceserver", "server", "ModelsResolved")["message"])


def test_two_models_for_one_entry(world):
    world.make_repository()
    world.make_server()
    world.make_model("old")
    world.publish(1, 2)
    world.condition("model", "old", reason="Loading")
    world.until(lambda: world.kubectl("get", "model", "old", "-o", "jsonpath={.metadata.creationTimestamp}"))
    world.make_model("young", version=1)
    ready = world.condition("model", "young", status="False", reason="Conflict")
    assert "the older Model old" in ready["message"]
    world.kubectl("delete", "model", "old")
    world.condition("model", "young", reason="Loading")


def test_a_repository_that_cannot_be_read_takes_nothing_away(world):
    world.make_repository()
    world.make_server()
    world.make_model()
    world.publish(1)
    world.condition("model", "digits", reason="Loading")
    (pod,) = world.pods()
    world.report(pod, 1)
    world.condition("model", "digits", status="True")
    world.publish(1, accessible=False, reason="RepositoryUnavailable", message="connection refused")
    ready = world.condition("modelrepository", "models", status="False", reason="RepositoryUnavailable")
    assert ready["message"] == "connection refused"
    assert world.condition("model", "digits")["status"] == "True"


def test_a_listing_that_is_no_listing(world):
    world.make_repository()
    world.until(lambda: world.get("configmap", "models-listing"))
    world.patch("configmap", "models-listing", {"data": {"listing.json": "{}"}})
    assert (
        "does not hold a listing" in world.condition("modelrepository", "models", reason="ListingUnreadable")["message"]
    )


@pytest.mark.parametrize("kind", ["inferenceserver", "modelrepository"])
def test_suspend_keeps_the_operator_away(world, operator, kind):
    world.make_repository()
    world.make_server()
    world.rolled_out()
    world.condition("modelrepository", "models")
    name, child = {"inferenceserver": ("server", "server"), "modelrepository": ("models", "models-lister")}[kind]
    world.patch(kind, name, {"spec": {"suspend": True}})
    world.condition(kind, name, "Suspended", status="True")
    world.kubectl("scale", "deployment", child, "--replicas=0")
    account = "models-lister" if kind == "modelrepository" else "server-agent"
    world.kubectl("delete", "serviceaccount", account)
    world.until(lambda: operator.metric("gravswell_queue_length") == 0)
    reconciles, proper = "gravswell_reconcile_duration_seconds_count", world.get(kind, name)["kind"]
    seen = operator.metric(reconciles, kind=proper)
    world.patch(kind, name, {"metadata": {"annotations": {"look": "again"}}})
    world.until(lambda: operator.metric(reconciles, kind=proper) > seen)
    assert world.get("deployment", child)["spec"]["replicas"] == 0
    assert world.get("serviceaccount", account) is None
    world.patch(kind, name, {"spec": {"suspend": False}})
    world.until(lambda: world.get("deployment", child)["spec"]["replicas"] == 1)
    world.until(lambda: not any(c["type"] == "Suspended" for c in world.get(kind, name)["status"]["conditions"]))
