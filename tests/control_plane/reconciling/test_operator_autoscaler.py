"""The HorizontalPodAutoscaler that the operator makes, and who writes the Deployment's replicas meanwhile."""

import json

import pytest

from ..replicas import replicas_over_time

BOUNDS = {"minReplicas": 2, "maxReplicas": 6}


def manager_of_replicas(world):
    """Who owns the Deployment's replicas."""
    body = json.loads(world.kubectl("get", "deployment", "server", "-o", "json", "--show-managed-fields"))
    fields = body["metadata"]["managedFields"]
    return {field["manager"] for field in fields if "f:replicas" in field["fieldsV1"].get("f:spec", {})}


def set_spec(world, **change):
    world.patch("inferenceserver", "server", {"spec": change})
    world.rolled_out()


@pytest.fixture
def scaled(world):
    """An autoscaled server, which the load has brought to four replicas."""
    world.make_repository()
    world.make_server(autoscaling=BOUNDS)
    world.until(lambda: world.get("hpa", "server"))
    world.rolled_out()
    world.kubectl("scale", "deployment", "server", "--replicas=4")  # as the autoscaler does
    world.until(lambda: world.get("inferenceserver", "server")["status"]["readyReplicas"] == 4)
    return world


def test_an_autoscaler_that_somebody_deletes_comes_back_and_takes_no_replica_along(scaled, tmp_path):
    world = scaled
    before, pods = world.get("hpa", "server"), world.pods()
    with replicas_over_time(world, tmp_path / "replicas") as seen:
        world.kubectl("delete", "hpa", "server")
        world.until(lambda: (world.get("hpa", "server") or before)["metadata"]["uid"] != before["metadata"]["uid"])
        world.rolled_out()
    assert world.get("hpa", "server")["spec"] == before["spec"]
    assert seen == {4}
    assert world.pods() == pods
    # It can scale as before: nobody writes against it.
    world.kubectl("scale", "deployment", "server", "--replicas=5")
    world.until(lambda: world.get("inferenceserver", "server")["status"]["readyReplicas"] == 5)
    assert "gravswell-operator" not in manager_of_replicas(world)


@pytest.mark.parametrize(
    "change",
    [
        {"minReplicas": 1, "maxReplicas": 50},
        {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}},
        {"metrics": None},
    ],
    ids=["bounds", "target", "metrics"],
)
def test_an_autoscaler_that_somebody_edits_is_put_right(scaled, change):
    world = scaled
    before = world.get("hpa", "server")["spec"]
    world.patch("hpa", "server", {"spec": change})
    world.until(lambda: world.get("hpa", "server")["spec"] == before)


def test_an_autoscaler_without_metrics_is_told_of(scaled):
    """This cluster has no metrics-server, as many have none."""
    world = scaled
    found = world.condition("inferenceserver", "server", "Autoscaling", status="False", reason="AutoscalerFailing")
    assert "metrics" in found["message"]


def test_from_an_autoscaler_to_a_number_and_back(scaled, tmp_path):
    """No replica goes on the way, whoever writes them."""
    world = scaled
    pods = world.pods()
    with replicas_over_time(world, tmp_path / "there") as seen:
        set_spec(world, autoscaling=None, replicas=4)
        world.until(lambda: world.get("hpa", "server") is None)
    assert seen == {4}
    assert "gravswell-operator" in manager_of_replicas(world)
    # /scale is the user's again.
    world.kubectl("scale", "inferenceserver", "server", "--replicas=5")
    world.until(lambda: world.get("inferenceserver", "server")["status"]["readyReplicas"] == 5)

    with replicas_over_time(world, tmp_path / "back") as seen:
        set_spec(world, autoscaling=BOUNDS, replicas=None)
        world.until(lambda: world.get("hpa", "server"))
        world.rolled_out()
    assert seen == {5}
    assert "gravswell-operator" not in manager_of_replicas(world)
    assert set(pods) <= set(world.pods())


def test_an_autoscaled_server_that_somebody_scales_to_none_wakes(scaled):
    """As ``kubectl scale deployment --all --replicas=0`` before a maintenance does."""
    world = scaled
    world.kubectl("scale", "deployment", "server", "--replicas=0")
    world.until(lambda: world.get("deployment", "server")["spec"]["replicas"] == BOUNDS["minReplicas"])
    world.until(lambda: world.get("inferenceserver", "server")["status"]["readyReplicas"] == BOUNDS["minReplicas"])
    world.rolled_out()


def test_a_server_of_no_replicas_that_gets_an_autoscaler_wakes(world):
    """An autoscaler leaves a Deployment of none alone: for it that is switched off."""
    world.make_repository()
    world.make_server(replicas=0)
    world.condition("inferenceserver", "server", status="True", reason="ScaledToZero")
    set_spec(world, autoscaling=BOUNDS, replicas=None)
    world.until(lambda: world.get("inferenceserver", "server")["status"]["readyReplicas"] == BOUNDS["minReplicas"])


def test_a_deployment_of_the_name_that_is_not_the_servers_is_not_scaled(world, tmp_path):
    """The lister's, which the operator sees as well."""
    world.make_repository()
    world.until(lambda: world.get("deployment", "models-lister"))
    with replicas_over_time(world, tmp_path / "replicas", "models-lister") as seen:
        world.make_server("models-lister", autoscaling=BOUNDS)
        world.condition("inferenceserver", "models-lister", status="False", reason="NameTaken")
    assert seen == {1}
    assert world.get("hpa", "models-lister") is None


def test_an_autoscaler_of_the_name_that_is_somebody_elses_costs_no_replica(world, tmp_path):
    world.make_repository()
    world.make_server(replicas=4)
    world.rolled_out()
    stranger = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": "server",
            "namespace": world.namespace,
            "labels": {"app.kubernetes.io/managed-by": "gravswell", "gravswell.dev/server": "another"},
        },
        "spec": {
            "maxReplicas": 2,
            "scaleTargetRef": {"kind": "Deployment", "name": "another", "apiVersion": "apps/v1"},
        },
    }
    world.kubectl("create", "-f", "-", stdin=json.dumps(stranger))
    with replicas_over_time(world, tmp_path / "replicas") as seen:
        world.patch("inferenceserver", "server", {"spec": {"autoscaling": BOUNDS, "replicas": None}})
        world.condition("inferenceserver", "server", status="False", reason="NameTaken")
        world.until(lambda: "gravswell-operator" not in manager_of_replicas(world))
    assert seen == {4}


def test_an_autoscaler_that_was_left_behind_does_not_scale_beside_a_number(scaled, tmp_path):
    """As ``kubectl delete --cascade=orphan`` leaves it, by which a server is moved without a pause."""
    world = scaled
    pods = world.pods()
    world.kubectl("delete", "inferenceserver", "server", "--cascade=orphan")
    world.until(lambda: not world.get("hpa", "server")["metadata"].get("ownerReferences"))
    with replicas_over_time(world, tmp_path / "replicas") as seen:
        world.make_server(replicas=4)
        world.until(lambda: world.get("hpa", "server") is None)
        world.rolled_out()
    assert seen == {4}
    assert world.pods() == pods
