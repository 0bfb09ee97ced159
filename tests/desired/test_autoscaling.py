"""What a server is scaled by: which targets, in which units, and which queries KEDA is given."""

import pytest

from gravswell_operator.desired.autoscaling import (
    METRICS,
    asks_prometheus,
    autoscaler,
    may_sleep,
    server_query,
    targets,
)
from gravswell_operator.desired.objects import Options

OPTIONS = Options(image="registry.example/gravswell:1", prometheus="http://prometheus:9090")
SCHEDULE = {"name": "office", "type": "Schedule", "schedule": {"start": "0 8 * * *", "end": "0 18 * * *"}}
QUERY = {"name": "gateway", "type": "Query", "query": {"promql": "sum(waiting)"}}


@pytest.fixture
def scaled(resource):
    def make(least=1, most=4, **scaling):
        spec = {"replicas": None, "autoscaling": {"minReplicas": least, "maxReplicas": most, **scaling}}
        return resource("InferenceServer", {"spec": spec})

    return make


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ({}, [("cpu", 70)]),
        ({"targetCPUUtilization": 50}, [("cpu", 50)]),
        ({"targetQueueTime": "20ms"}, [("queueTime", 20_000)]),
        ({"targetCPUUtilization": 50, "targetGPUUtilization": 80}, [("cpu", 50), ("gpuUtilization", 0.8)]),
        ({"keda": {"wakes": [SCHEDULE]}}, [("cpu", 70), ("office", 0)]),
        ({"keda": {"wakes": [QUERY]}}, [("cpu", 70), ("gateway", 0)]),
        ({"keda": {"wakes": [{**QUERY, "query": {"promql": "x", "target": 3}}]}}, [("gateway", 0)]),
    ],
)
def test_the_cpu_is_aimed_at_only_where_nothing_else_is(scaled, scaling, expected):
    assert [(t.name, t.value) for t in targets(scaled(**scaling).spec.autoscaling)] == expected


@pytest.mark.parametrize(
    ("target", "quantity"), [("20ms", "20000"), ("1500us", "1500"), ("2s", "2000000"), ("999999us", "999999")]
)
def test_a_time_in_the_queue_is_aimed_at_in_microseconds(scaled, target, quantity):
    """Kubernetes rounds what it measures up to thousandths: of seconds, every wait would be one of 1 ms at least."""
    (made,) = autoscaler(scaled(targetQueueTime=target), OPTIONS)
    (metric,) = made["spec"]["metrics"]
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": quantity}


def test_what_adds_up_is_shared_among_the_replicas_and_what_does_not_is_averaged(scaled):
    server = scaled(targetQueueTime="20ms", targetPendingRequests=4, keda={})
    (made,) = autoscaler(server, OPTIONS)
    waiting, pending = made["spec"]["triggers"]
    assert (waiting["metricType"], waiting["metadata"]["threshold"]) == ("Value", "20000")
    assert waiting["metadata"]["query"].startswith("avg(")
    assert (pending["metricType"], pending["metadata"]["threshold"]) == ("AverageValue", "4")
    assert pending["metadata"]["query"].startswith("sum(")
    assert all(t["metadata"]["serverAddress"] == "http://prometheus:9090" for t in (waiting, pending))


def test_only_wakes_keep_a_server_awake(scaled):
    """Triton counts the agent's probes too, so a server that nobody asks would never sleep by its own metrics."""
    (made,) = autoscaler(scaled(0, targetQueueTime="20ms", keda={"wakes": [QUERY]}), OPTIONS)
    own, wake = (trigger["metadata"] for trigger in made["spec"]["triggers"])
    assert float(own["activationThreshold"]) > 1e9
    assert (wake["activationThreshold"], float(wake["threshold"]) > 1e9) == ("0", True)


def test_no_answer_is_no_load_only_where_no_replica_may_run(scaled):
    """A Prometheus without targets must not take replicas away under load; of a server that sleeps it has none."""
    own, wake = autoscaler(scaled(1, targetQueueTime="20ms", keda={"wakes": [QUERY]}), OPTIONS)[0]["spec"]["triggers"]
    assert own["metadata"]["ignoreNullValues"] == "false"
    assert "ignoreNullValues" not in wake["metadata"]
    own, _ = autoscaler(scaled(0, targetQueueTime="20ms", keda={"wakes": [QUERY]}), OPTIONS)[0]["spec"]["triggers"]
    assert "ignoreNullValues" not in own["metadata"]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_query_is_about_the_pods_of_one_server(scaled, metric):
    server = scaled()
    server = server.model_copy(update={"metadata": server.metadata.model_copy(update={"namespace": "team"})})
    query = server_query(server, metric)
    assert query.count("{") == query.count('{namespace="team",server="server"}') >= 1
    assert "%s" not in query


def test_who_needs_a_prometheus_and_who_may_sleep(scaled):
    assert not asks_prometheus(scaled(targetQueueTime="20ms").spec.autoscaling)
    assert asks_prometheus(scaled(targetQueueTime="20ms", keda={}).spec.autoscaling)
    assert not asks_prometheus(scaled(keda={"wakes": [SCHEDULE]}).spec.autoscaling)
    assert may_sleep(scaled(0, keda={"wakes": [SCHEDULE]}))
    assert not may_sleep(scaled(1, keda={"wakes": [SCHEDULE]}))


def test_every_metric_has_a_field_of_its_own(scaled):
    fields = {"queueTime": "20ms", "gpuUtilization": 50, "pendingRequests": 1, "requestsPerSecond": 1}
    assert {metric.name for metric in METRICS} == fields.keys()
    for name, value in fields.items():
        alias = "targetGPUUtilization" if name == "gpuUtilization" else f"target{name[0].upper()}{name[1:]}"
        assert [t.name for t in targets(scaled(**{alias: value}).spec.autoscaling)] == [name]
