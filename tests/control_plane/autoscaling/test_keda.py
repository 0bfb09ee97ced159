"""The real KEDA scales a real Triton: by its own metrics through Prometheus, to none, and back when a gateway asks.

The tests follow one server through its life, in their order.
"""

import pytest

from gravswell.errors import GravswellError

from ..operating import conditions, install, wait_until
from ..reconciling.test_operator_rights import granted, used
from ..replicas import replicas_over_time, seen_over_time
from .conftest import ENTRY, LIMIT, PATIENCE

pytestmark = pytest.mark.timeout(LIMIT)

_CONDITION = ".status.conditions[?(@.type=='Ready')]"
READY = f"{{{_CONDITION}.status}}/{{{_CONDITION}.reason}}"
WAKE = {"name": "gateway", "type": "Query", "query": {"promql": "sum(gateway_requests_waiting)"}}
SCALING = {
    "minReplicas": 0,
    "maxReplicas": 2,
    "targetQueueTime": "1ms",
    "scaleDownDelay": "0s",
    "keda": {"idleAfter": "20s", "wakes": [WAKE]},
}


def test_without_keda_the_server_says_so_and_serves(place):
    place.make_repository()
    place.make_server(autoscaling=SCALING)
    place.make_model()
    place.until_serving(1)
    found = place.condition("inferenceserver", "server", "Autoscaling", status="False", reason="AutoscalerMissing")
    assert "scaledobjects.keda.sh/v1alpha1: install KEDA, or leave autoscaling.keda out" in found["message"]
    assert place.wanted() == 1


def test_when_keda_comes_it_scales(place, keda, gateway):
    gateway.waiting = 1
    pods = place.pods()
    keda()
    place.until(lambda: place.get("scaledobject", "server"))
    place.until_autoscaling("True", "AutoscalerActive")
    place.until(lambda: place.measured("queueTime").get("current"))
    assert place.measured("queueTime")["target"] == "1ms"
    assert place.pods() == pods


def test_a_queue_brings_a_second_replica_which_goes_with_it(place, operator, tmp_path):
    with replicas_over_time(place, tmp_path / "replicas") as seen:
        with place.load():
            place.until_replicas(2)
            operator.restart()  # in the middle: nobody writes the replicas but KEDA
            place.condition("inferenceserver", "server", status="True", reason="Serving")
        place.until_replicas(1)
    assert seen == {1, 2}


def test_a_server_that_nobody_needs_sleeps_and_is_not_broken(place, operator, gateway, tmp_path):
    with seen_over_time(place, tmp_path / "ready", "inferenceserver", "server", READY) as seen:
        gateway.waiting = 0
        wait_until(lambda: place.wanted() == 0, PATIENCE)
        ready = place.condition("inferenceserver", "server", status="True", reason="ScaledToZero")
    assert seen[-2:] == ["True/Serving", "True/ScaledToZero"]  # straight from one to the other
    assert ready["message"].startswith("it sleeps: no replica is needed, and KEDA starts one")
    assert "gateway" in ready["message"]
    place.until_autoscaling("True", "ScaledToZero")
    model = place.condition("model", ENTRY, status="False", reason="NoReplicas")
    assert "loads the model when it wakes" in model["message"]
    operator.restart()
    place.until(lambda: operator.has_looked("InferenceServer", "ScaledObject"))
    place.condition("inferenceserver", "server", status="True", reason="ScaledToZero")
    assert place.wanted() == 0


def test_a_request_at_the_gateway_wakes_it(place, gateway):
    gateway.waiting = 3
    wait_until(lambda: place.wanted() == 1, PATIENCE)
    place.until_serving(1)
    assert place.answer() == 1.0


def test_a_wake_that_cannot_be_read_is_told_though_another_one_holds(place):
    several = {"name": "broken", "type": "Query", "query": {"promql": "up"}}  # one for each target, and not one number
    place.patch("inferenceserver", "server", {"spec": {"autoscaling": {"keda": {"wakes": [WAKE, several]}}}})

    def told() -> bool:
        found = conditions(place.get("inferenceserver", "server"))["Autoscaling"]
        return found["status"] == "False" and "Some triggers" in found["message"]

    wait_until(told, PATIENCE)
    assert place.wanted() >= 1
    place.patch("inferenceserver", "server", {"spec": {"autoscaling": SCALING}})
    place.until_autoscaling("True", "AutoscalerActive")


def test_who_scales_by_hand_meanwhile_is_told(place):
    with pytest.raises(GravswellError, match="set exactly one of replicas, autoscaling and ranks"):
        place.kubectl("scale", "inferenceserver", "server", "--replicas=3")


def test_from_keda_to_a_number_and_back_no_replica_comes_or_goes(place, tmp_path):
    pods = place.pods()
    with replicas_over_time(place, tmp_path / "there") as seen:
        place.patch("inferenceserver", "server", {"spec": {"autoscaling": None, "replicas": 1}})
        place.until(lambda: place.get("scaledobject", "server") is None)
        place.until(lambda: not place.objects("hpa"))
    assert seen == {1}
    with replicas_over_time(place, tmp_path / "back") as seen:
        place.patch("inferenceserver", "server", {"spec": {"autoscaling": SCALING, "replicas": None}})
        place.until(lambda: place.get("scaledobject", "server"))
        place.until_autoscaling("True", "AutoscalerActive")
    assert seen == {1}
    assert place.pods() == pods


def test_every_right_on_scaled_objects_is_used_and_none_is_missing(place, operator, cluster):
    asked = used(operator)
    assert not [request for request, codes in asked.items() if "403" in codes]
    rights = {(verb, where) for verb, where in granted(cluster) if where.startswith("keda.sh/")}
    assert ("patch", "keda.sh/scaledobjects") in rights
    # An apply creates, and looks at what it may not overwrite.
    assert rights <= asked.keys() | {(verb, "keda.sh/scaledobjects") for verb in ("create", "get")}


def test_a_server_that_sleeps_wakes_when_keda_is_gone(place, keda, gateway):
    """As after an uninstallation: the ScaledObjects are deleted, and nobody is left to let them go."""
    gateway.waiting = 0
    wait_until(lambda: place.wanted() == 0, PATIENCE)
    place.condition("inferenceserver", "server", status="True", reason="ScaledToZero")
    keda().stop()
    first = place.get("scaledobject", "server")["metadata"]["uid"]
    place.kubectl("delete", "scaledobject", "server", "--wait=false")
    place.until(lambda: place.wanted() == 1)
    told = place.condition("inferenceserver", "server", "Autoscaling", status="False", reason="AutoscalerMissing")
    command = f"kubectl -n {place.namespace} patch scaledobject server --type merge -p "
    assert command in told["message"]
    place.until(lambda: not place.objects("hpa"))
    place.until_serving(1)
    assert place.answer() == 1.0
    place.kubectl(
        "patch", "scaledobject", "server", "-p", told["message"].partition("-p ")[2].strip("'"), "--type=merge"
    )
    place.until(lambda: (made := place.get("scaledobject", "server")) and made["metadata"]["uid"] != first)
    gateway.waiting = 1
    keda().start()
    place.until_autoscaling("True", "AutoscalerActive")
    assert place.wanted() == 1


def test_replicas_wait_for_a_scaled_object_out_of_sight(place, operator, cluster, tmp_path_factory, tmp_path):
    """As after the chart's autoscaling.keda was switched off: KEDA scales on, and nobody else may until that ends."""
    install(cluster, tmp_path_factory, "autoscaling.keda=false")
    operator.restart()
    place.condition("inferenceserver", "server", "Autoscaling", status="False", reason="Forbidden")
    place.condition("inferenceserver", "server", status="True", reason="Serving")
    place.patch("inferenceserver", "server", {"spec": {"autoscaling": None, "replicas": 2}})
    told = place.condition("inferenceserver", "server", status="False", reason="Forbidden")
    command = f"kubectl -n {place.namespace} delete scaledobject server"
    assert command in told["message"]
    with replicas_over_time(place, tmp_path / "replicas") as seen:
        operator.restart()
        place.until(lambda: operator.has_looked("InferenceServer"))
        place.condition("inferenceserver", "server", status="False", reason="Forbidden")
    assert seen == {1}
    place.kubectl(*command.split()[3:])
    wait_until(lambda: place.wanted() == 2, PATIENCE)
    place.until_serving(1)
    assert not place.objects("hpa")
    install(cluster, tmp_path_factory)
    operator.restart()
