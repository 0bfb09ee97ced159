"""What somebody makes who may write more than our kinds: objects with the names of ours, or that say they are ours."""

import json
import uuid

import pytest

from gravswell.errors import GravswellError

from ..operating import API, conditions
from .tenants import neighbour, tenant, written

__all__ = ["neighbour", "tenant"]

# Objects of others that have the names of ours.

SELECTOR = {"matchLabels": {"app": "mine"}}
POD = {"metadata": {"labels": {"app": "mine"}}, "spec": {"containers": [{"name": "mine", "image": "mine"}]}}
RBAC = "rbac.authorization.k8s.io"
THEIRS = [
    ("v1", "ConfigMap", "server-desired", {"data": {"mine": "yes"}}),
    ("v1", "ConfigMap", "server-report", {"data": {"mine": "yes"}}),
    ("v1", "ConfigMap", "models-listing", {"data": {"mine": "yes"}}),
    ("v1", "ServiceAccount", "server-agent", {}),
    (f"{RBAC}/v1", "Role", "server-agent", {"rules": []}),
    (
        f"{RBAC}/v1",
        "RoleBinding",
        "server-agent",
        {"roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "mine"}, "subjects": []},
    ),
    ("v1", "Service", "server", {"spec": {"ports": [{"port": 80}], "selector": {"app": "mine"}}}),
    ("v1", "Service", "server-headless", {"spec": {"ports": [{"port": 80}], "selector": {"app": "mine"}}}),
    ("policy/v1", "PodDisruptionBudget", "server", {"spec": {"minAvailable": 1, "selector": SELECTOR}}),
    ("networking.k8s.io/v1", "NetworkPolicy", "server", {"spec": {"podSelector": SELECTOR}}),
    ("apps/v1", "Deployment", "server", {"spec": {"replicas": 0, "selector": SELECTOR, "template": POD}}),
    ("apps/v1", "Deployment", "models-lister", {"spec": {"replicas": 0, "selector": SELECTOR, "template": POD}}),
    (
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "server",
        {"spec": {"maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "mine"}}},
    ),
]


def _ours(kind, name):
    """The kind and the name of the object of ours whose child it would be."""
    return ("modelrepository", "models") if name.startswith("models") else ("inferenceserver", "server")


@pytest.mark.parametrize(("version", "kind", "name", "content"), THEIRS, ids=lambda v: v if isinstance(v, str) else "")
def test_an_object_that_the_operator_did_not_make_is_never_written(world, version, kind, name, content):
    world.create(version, kind, name, **content)
    body = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **content}
    before = world.get(f"{version}/{kind}", name)
    world.make_repository()
    world.make_server(**({"autoscaling": {"minReplicas": 1, "maxReplicas": 2}} if version.startswith("auto") else {}))
    owner = _ours(kind, name)
    ready = world.condition(*owner, status="False", reason="NameTaken")
    assert f"{kind} {world.namespace}/{name} exists and does not belong to" in ready["message"], body
    after = world.get(f"{version}/{kind}", name)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert "ownerReferences" not in after["metadata"]
    assert "labels" not in after["metadata"]
    assert {k: after.get(k) for k in ("spec", "data", "rules", "roleRef", "subjects")} == {
        k: before.get(k) for k in ("spec", "data", "rules", "roleRef", "subjects")
    }
    # Nor is it taken away when ours goes.
    world.delete(*owner)
    world.until(lambda: world.get(*owner) is None)
    assert world.get(f"{version}/{kind}", name)["metadata"]["uid"] == before["metadata"]["uid"]


def test_an_apply_for_one_object_does_not_write_another_of_its_name(world):
    """By this the operator writes only what it looked at, and makes nothing anew in its place."""
    world.create("v1", "ConfigMap", "mine", data={"a": "b"})
    for name in ("mine", "gone"):
        for_another = {"name": name, "uid": str(uuid.uuid4())}
        with pytest.raises(GravswellError, match=r"[Uu][Ii][Dd]"):
            world._api.apply(world.namespace, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": for_another})
    assert world.get("configmap", "mine")["data"] == {"a": "b"}
    assert world.get("configmap", "gone") is None


# What somebody forges who may write ConfigMaps and pods in a namespace.


def _forged(name, label, owner, **content):
    """A ConfigMap that says of itself that the operator made it for ``owner``."""
    metadata = owner["metadata"]
    reference = {"apiVersion": API, "kind": owner["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": "gravswell", label: metadata["name"]},
            "ownerReferences": [{**reference, "controller": True}],
        },
        **content,
    }


def test_what_says_that_it_is_a_neighbour_s_changes_nothing_there(tenant, neighbour):
    before, status = written(neighbour), neighbour.get("inferenceserver", "theirs")["status"]
    owner = neighbour.get("inferenceserver", "theirs")
    forged = _forged("theirs-report", "gravswell.dev/server", owner, data={"theirs-1": '{"pod": "theirs-1"}'})
    tenant._api.apply(tenant.namespace, forged)
    # Kubernetes itself collects it: an owner in another namespace does not exist.
    tenant.until(lambda: tenant.get("configmap", "theirs-report") is None)
    assert written(neighbour) == before
    assert neighbour.get("inferenceserver", "theirs")["status"] == status


def test_what_says_that_it_is_a_pool_s_is_of_no_other_namespace(tenant, neighbour):
    """A pool has no namespace, so such an owner exists everywhere; what is not wanted of it goes, and nothing else."""
    neighbour.make_pool()
    pool = neighbour.until(lambda: neighbour.get("gpunodepool", neighbour.pool))
    before = written(neighbour)
    tenant._api.apply(tenant.namespace, _forged("forged", "gravswell.dev/pool", pool))
    tenant.until(lambda: tenant.get("configmap", "forged") is None)
    assert written(neighbour) == before
    neighbour.delete("gpunodepool", neighbour.pool)


REPORTS = {
    "no document": "{",
    "another pod": json.dumps({"schema": "gravswell.dev/report/v1", "pod": "theirs-1", "ready": True}),
    "long": json.dumps(
        {
            "schema": "gravswell.dev/report/v1",
            "pod": "server-1",
            "models": [
                {
                    "name": "digits",
                    "state": "Failed",
                    "desiredVersion": 1,
                    "reason": "x" * 5000,
                    "message": "\x1b[2J\n" + "m" * 100_000,
                }
            ],
        }
    ),
}


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_that_no_agent_wrote_costs_its_own_server_its_word_and_nobody_else_anything(
    tenant, neighbour, operator, report
):
    before = neighbour.get("inferenceserver", "theirs")["status"]
    tenant.make_repository()
    tenant.make_server()
    tenant.make_model()
    tenant.publish(1)
    tenant.until(tenant.pods)
    (pod,) = tenant.pods()
    tenant._write("server-report", pod, REPORTS[report])
    tenant.condition("inferenceserver", "server", "Progressing", reason="RolledOut")
    tenant.condition("model", "digits", status="False")
    tenant.until(lambda: operator.metric("gravswell_queue_length") == 0)
    said = conditions(tenant.get("model", "digits"))
    assert said["Ready"]["status"] == "False"
    assert len(said["Ready"]["message"]) <= 1024
    assert "OperatorFault" not in json.dumps([tenant.get("model", "digits"), tenant.get("inferenceserver", "server")])
    assert neighbour.get("inferenceserver", "theirs")["status"] == before
