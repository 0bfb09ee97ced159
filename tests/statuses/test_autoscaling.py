"""What an autoscaled server says of its autoscaler."""

from dataclasses import replace
from decimal import Decimal

import pytest

from gravswell_operator import state
from gravswell_operator.api import Condition, ConditionStatus
from gravswell_operator.conditions import Reason
from gravswell_operator.state import AutoscalerState, ScaledObjectState
from gravswell_operator.statuses import autoscaling
from gravswell_operator.statuses.autoscaling import NOT_LOOKED, Scaling, keda_missing, obstacle

QUERY = {"name": "gateway", "type": "Query", "query": {"promql": "sum(waiting)", "target": 5}}
SCHEDULE = {"name": "office", "type": "Schedule", "schedule": {"start": "0 8 * * *", "end": "0 18 * * *"}}
KIND = "scaledobjects.keda.sh/v1alpha1"


@pytest.fixture
def scaled(resource):
    def make(least=1, **scaling):
        spec = {"replicas": None, "autoscaling": {"minReplicas": least, "maxReplicas": 4, **scaling}}
        return resource("InferenceServer", {"spec": spec})

    return make


def said(server, wanted=1, **seen):
    (finding,) = autoscaling.findings(server, Scaling(**seen), wanted)
    return finding


@pytest.mark.parametrize(
    ("state", "status", "reason", "says"),
    [
        (None, None, Reason.AUTOSCALER_WAITING, "not decided"),
        (AutoscalerState(None), None, Reason.AUTOSCALER_WAITING, "not decided"),
        (AutoscalerState(True), True, Reason.AUTOSCALER_ACTIVE, "1 to 4 replicas"),
        (AutoscalerState(False, "FailedGetResourceMetric: none"), False, Reason.AUTOSCALER_FAILING, "Metric: none"),
    ],
)
def test_an_autoscaler_says_whether_it_scales(scaled, state, status, reason, says):
    found = said(scaled(), horizontal=state)
    assert (found.status, found.reason) == (status, reason)
    assert says in found.message


def test_the_duty_of_gpus_that_a_server_does_not_have_is_nothing_to_scale_by(resource):
    bounds = {"minReplicas": 1, "maxReplicas": 4, "targetGPUUtilization": 80}
    spec = {"replicas": None, "autoscaling": bounds}
    found = said(resource("InferenceServer", {"spec": {**spec, "gpus": 0}}), horizontal=AutoscalerState(True))
    assert (found.status, found.reason) == (False, Reason.AUTOSCALER_FAILING)
    assert "leave it out, or set gpus" in found.message
    found = said(resource("InferenceServer", {"spec": {**spec, "gpus": 1}}), horizontal=AutoscalerState(True))
    assert found.status is True


def test_without_an_autoscaler_nothing_is_said_of_it(resource):
    assert autoscaling.findings(resource("InferenceServer"), Scaling(), 1) == []
    assert autoscaling.fields(resource("InferenceServer"), Scaling(AutoscalerState(True)), 1) == {}


@pytest.mark.parametrize(
    ("api", "way_out"),
    [
        ("resource metrics API", "metrics.k8s.io is missing"),
        ("custom metrics API", "prometheus-adapter with the rules of docs/autoscaling.md"),
        ("external metrics API", "keda-metrics-apiserver"),
    ],
)
def test_the_api_that_is_missing_is_named_with_the_way_out(scaled, api, way_out):
    message = f"FailedGetMetric: unable to fetch metrics from {api}: the server could not find the requested resource"
    found = said(scaled(), horizontal=AutoscalerState(False, message))
    assert found.reason is Reason.AUTOSCALER_FAILING
    assert way_out in found.message
    assert found.message.startswith(message)


@pytest.mark.parametrize(
    ("scaling", "prometheus", "missing", "reason"),
    [
        ({}, "", keda_missing(KIND, ""), None),
        ({"targetQueueTime": "1ms"}, "", None, None),
        ({"keda": {}}, "", keda_missing(KIND, ""), Reason.AUTOSCALER_MISSING),
        ({"keda": {}}, "", keda_missing(KIND, "403"), Reason.FORBIDDEN),
        ({"keda": {}}, "", NOT_LOOKED, Reason.AUTOSCALER_WAITING),
        ({"keda": {}}, "", None, None),
        ({"keda": {"wakes": [QUERY]}}, "", None, Reason.NO_PROMETHEUS),
        ({"keda": {"wakes": [QUERY]}}, "http://p:9090", None, None),
    ],
)
def test_what_keeps_a_scaled_object_from_being_made(scaled, scaling, prometheus, missing, reason):
    server = scaled(**scaling)
    found = obstacle(server, prometheus, missing)
    assert (found.reason if found is not None else None) is reason
    if found is not None:
        condition = said(server, obstacle=found, horizontal=AutoscalerState(True, desired=1))
        assert condition.status is (None if found is NOT_LOOKED else False)
        assert condition.message == found.message


def test_an_operator_that_starts_anew_says_what_was_said_until_it_has_looked(scaled):
    server = scaled(keda={})
    before = Condition(
        type="Autoscaling",
        status=ConditionStatus.TRUE,
        reason="AutoscalerActive",
        message="1 to 4 replicas by load",
        last_transition_time="2026-11-22T12:00:00Z",
    )
    server = server.model_copy(update={"status": server.status.model_copy(update={"conditions": (before,)})})
    found = said(server, obstacle=NOT_LOOKED)
    assert (found.status, found.reason, found.message) == (True, before.reason, before.message)


def test_an_autoscaler_that_has_not_looked_wants_nothing_yet(scaled):
    assert autoscaling.fields(scaled(), Scaling(AutoscalerState(None)), 1) == {}


@pytest.mark.parametrize(
    ("scaled_object", "horizontal", "wanted", "status", "reason", "says"),
    [
        (None, None, 1, None, Reason.AUTOSCALER_WAITING, "KEDA has not looked"),
        (ScaledObjectState(None), None, 1, None, Reason.AUTOSCALER_WAITING, "KEDA has not looked"),
        (ScaledObjectState(False, "no such trigger"), None, 1, False, Reason.AUTOSCALER_FAILING, "no such trigger"),
        (ScaledObjectState(True, paused=True), None, 1, False, Reason.AUTOSCALER_FAILING, "paused by an annotation"),
        (ScaledObjectState(True), AutoscalerState(None), 0, True, Reason.SCALED_TO_ZERO, "gateway, office"),
        (ScaledObjectState(True), AutoscalerState(None), 1, None, Reason.AUTOSCALER_WAITING, "not decided"),
        (ScaledObjectState(True), AutoscalerState(True), 1, True, Reason.AUTOSCALER_ACTIVE, "0 to 4"),
        (ScaledObjectState(True), AutoscalerState(False, "x"), 1, False, Reason.AUTOSCALER_FAILING, "x"),
    ],
)
def test_a_server_that_keda_scales(scaled, scaled_object, horizontal, wanted, status, reason, says):
    server = scaled(0, keda={"wakes": [QUERY, SCHEDULE]})
    found = said(server, wanted, scaled=scaled_object, horizontal=horizontal)
    assert (found.status, found.reason) == (status, reason)
    assert says in found.message


def horizontal(*metrics, desired=2):
    conditions = [{"type": kind, "status": "True"} for kind in ("AbleToScale", "ScalingActive")]
    return state.autoscaler(
        {"status": {"desiredReplicas": desired, "conditions": conditions, "currentMetrics": metrics}}
    )


def test_what_a_horizontal_pod_autoscaler_measured(scaled):
    server = scaled(
        targetCPUUtilization=70, targetQueueTime="20ms", targetGPUUtilization=80, targetRequestsPerSecond=50
    )
    seen = horizontal(
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "current": {"averageUtilization": 34}}},
        {
            "type": "Pods",
            "pods": {"metric": {"name": "triton_queue_microseconds"}, "current": {"averageValue": "1234567m"}},
        },
        {"type": "Pods", "pods": {"metric": {"name": "triton_gpu_utilization"}, "current": {"averageValue": "873m"}}},
    )
    assert autoscaling.fields(server, Scaling(seen), 2)["autoscaling"] == {
        "desiredReplicas": 2,
        "metrics": [
            {"name": "cpu", "current": "34%", "target": "70%"},
            {"name": "queueTime", "current": "1.2ms", "target": "20ms"},
            {"name": "gpuUtilization", "current": "87%", "target": "80%"},
            {"name": "requestsPerSecond", "current": "", "target": "50"},
        ],
    }


def test_what_keda_measured_by_the_places_of_its_triggers(scaled):
    server = scaled(0, targetQueueTime="1500us", keda={"wakes": [QUERY, SCHEDULE]})
    seen = horizontal(
        {"type": "External", "external": {"metric": {"name": "s0-prometheus"}, "current": {"value": "0"}}},
        {"type": "External", "external": {"metric": {"name": "s1-prometheus"}, "current": {"averageValue": "12345m"}}},
    )
    found = autoscaling.fields(server, Scaling(seen), 2)
    assert found["autoscaling"]["metrics"] == [
        {"name": "queueTime", "current": "0ms", "target": "1.5ms"},
        {"name": "gateway", "current": "12", "target": "5"},
        {"name": "office", "current": "", "target": "1"},
    ]
    asleep = autoscaling.fields(server, Scaling(seen), 0)
    assert asleep["autoscaling"]["desiredReplicas"] == 0  # what its autoscaler said last is no longer true


def test_a_load_that_hardly_changes_wakes_nobody():
    """The autoscaler writes what it measures with each look; a server is reconciled when that is news."""
    metric = {"type": "Pods", "pods": {"metric": {"name": "triton_queue_microseconds"}}}
    seen = [horizontal({**metric, "pods": {**metric["pods"], "current": {"averageValue": v}}}) for v in ("2041m", "2")]
    assert seen[0] == seen[1]
    assert seen[0].metrics == {"triton_queue_microseconds": Decimal("2.0")}


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], ScaledObjectState(None)),
        ([{"type": "Ready", "status": "Unknown"}], ScaledObjectState(None)),
        (
            [{"type": "Ready", "status": "Unknown", "reason": "PartialTriggerError", "message": "some do not work"}],
            ScaledObjectState(False, "some do not work"),
        ),
        ([{"type": "Ready", "status": "True", "message": "fine"}], ScaledObjectState(True, "fine")),
        ([{"type": "Ready", "status": "False", "reason": "Bad"}], ScaledObjectState(False, "Bad")),
        (
            [{"type": "Ready", "status": "True"}, {"type": "Paused", "status": "True"}],
            ScaledObjectState(True, paused=True),
        ),
    ],
)
def test_what_keda_says_of_a_scaled_object(conditions, expected):
    raw = {"metadata": {"name": "s"}, "status": {"conditions": conditions}}
    assert state.scaled_object(raw) == expected
    going = state.scaled_object({**raw, "metadata": {"name": "s", "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    assert going == replace(expected, going="2026-01-01T00:00:00Z")
