"""Kubernetes' own autoscaler scales a real Triton by the time that requests wait in its queue.

The metrics API is one of the tests' (see :mod:`.metrics_api`), on the rules that the chart has for prometheus-adapter;
Triton, its metrics, Prometheus and the HorizontalPodAutoscaler's controller are real. The tests follow one server, in
their order.
"""

from collections.abc import Iterator

import pytest
import yaml

from gravswell.errors import GravswellError
from gravswell_operator.desired.autoscaling import METRICS

from ..replicas import replicas_over_time
from .metrics_api import RULES, MetricsApi

SCALING = {"minReplicas": 1, "maxReplicas": 2, "targetQueueTime": "1ms", "scaleDownDelay": "0s"}


@pytest.fixture(scope="module")
def metrics_api(cluster, prometheus, tmp_path_factory) -> Iterator[MetricsApi]:
    api = MetricsApi(cluster, prometheus, tmp_path_factory.mktemp("metrics-api"))
    yield api
    api.stop()


def test_the_rules_for_prometheus_adapter_are_what_keda_asks():
    rules = yaml.safe_load(RULES.read_text())["rules"]["custom"]
    asked = {m.served_as: m.query.replace("(namespace, pod)", "(<<.GroupBy>>)") for m in METRICS}
    assert {r["name"]["as"]: r["metricsQuery"] for r in rules} == {
        name: query.replace("%s", "<<.LabelMatchers>>") for name, query in asked.items()
    }
    assert all(r["metricsQuery"].find(r["seriesQuery"].partition("{")[0]) >= 0 for r in rules)


def test_without_the_api_the_condition_names_it_and_the_way_out(place):
    place.make_repository()
    place.make_server(autoscaling=SCALING)
    place.make_model()
    place.until_serving(1)
    found = place.condition("inferenceserver", "server", "Autoscaling", status="False", reason="AutoscalerFailing")
    assert "triton_queue_microseconds" in found["message"]
    assert "custom.metrics.k8s.io is missing" in found["message"]
    assert "prometheus-adapter with the rules of docs/autoscaling.md" in found["message"]


def test_when_the_api_comes_it_scales(place, metrics_api):
    metrics_api.start()
    place.until_autoscaling("True", "AutoscalerActive")
    place.until(lambda: place.measured("queueTime").get("current"))


def test_a_queue_brings_a_second_replica_which_goes_with_it(place, operator, tmp_path):
    with replicas_over_time(place, tmp_path / "replicas") as seen:
        with place.load():
            place.until_replicas(2)
            operator.restart()  # in the middle: nobody writes the replicas but the autoscaler
            place.condition("inferenceserver", "server", status="True", reason="Serving")
        place.until_replicas(1)
    assert seen == {1, 2}


def test_who_scales_by_hand_meanwhile_is_told(place):
    with pytest.raises(GravswellError, match="set exactly one of replicas, autoscaling and ranks"):
        place.kubectl("scale", "inferenceserver", "server", "--replicas=3")
