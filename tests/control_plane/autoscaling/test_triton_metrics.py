"""Kubernetes' own autoscaler scales a real Triton by its metrics, as docs/autoscaling.md has it set up.

All parts are real: Triton under load, Prometheus by the chart's PodMonitor, prometheus-adapter by the rules that the
chart's folder has for it, and the HorizontalPodAutoscaler's controller. What Triton says of GPUs is simulated, as they
are. The tests follow one server, in their order.
"""

import json

import pytest

from gravswell.errors import GravswellError
from gravswell_operator.desired.autoscaling import METRICS

from ..operating import wait_until
from ..replicas import replicas_over_time
from .adapter import API, configuration
from .conftest import LIMIT, PATIENCE

pytestmark = pytest.mark.timeout(LIMIT)

SCALING = {"minReplicas": 1, "maxReplicas": 2, "targetQueueTime": "50ms", "scaleDownDelay": "0s"}
"""A request waits for more than 200 ms in front of one replica, and for 100 ms in front of each of two."""


@pytest.fixture(scope="module")
def pooled(place):
    """The place, with a pool of the local node's GPUs."""
    provider = {"type": "Static", "static": {"matchLabels": {"nvidia.com/gpu.product": "Simulated-GPU"}}}
    place.apply("GPUNodePool", place.pool, provider=provider, accelerator={"type": "simulated", "count": 8})
    yield place
    place.kubectl("delete", "gpunodepool", place.pool, "--wait=false")


def answered(place, metric):
    """The pods of which the API answers a HorizontalPodAutoscaler that asks for a metric of the server's."""
    version, _, group = API.partition(".")
    path = f"/apis/{group}/{version}/namespaces/{place.namespace}/pods/*/{metric.served_as}"
    selector = "labelSelector=gravswell.dev%2Fserver%3Dserver"
    answer = place.cluster.kubectl("get", "--raw", f"{path}?{selector}", check=False)
    return sorted(item["describedObject"]["name"] for item in json.loads(answer)["items"]) if answer else []


def test_the_rules_for_prometheus_adapter_are_what_keda_asks():
    rules = configuration()["rules"]
    asked = {m.served_as: m.query.replace("(namespace, pod)", "(<<.GroupBy>>)") for m in METRICS}
    assert {r["name"]["as"]: r["metricsQuery"] for r in rules} == {
        name: query.replace("%s", "<<.LabelMatchers>>") for name, query in asked.items()
    }
    assert all(r["metricsQuery"].find(r["seriesQuery"].partition("{")[0]) >= 0 for r in rules)


def test_without_the_api_the_condition_names_it_and_the_way_out(pooled):
    place = pooled
    place.make_repository()
    place.make_server(autoscaling=SCALING, gpus=1, nodePoolRef={"name": place.pool})
    place.make_model()
    place.until_serving(1)
    found = place.condition("inferenceserver", "server", "Autoscaling", status="False", reason="AutoscalerFailing")
    assert "triton_queue_microseconds" in found["message"]
    assert "custom.metrics.k8s.io is missing" in found["message"]
    assert "prometheus-adapter with the rules of docs/autoscaling.md" in found["message"]


def test_when_the_api_comes_it_scales(place, adapter):
    adapter.start()
    place.until_autoscaling("True", "AutoscalerActive")
    wait_until(lambda: place.measured("queueTime").get("current"), PATIENCE)
    assert place.measured("queueTime")["target"] == "50ms"


def test_each_of_the_rules_has_an_answer_for_the_pod(place):
    (pod,) = place.pods()
    wait_until(lambda: all(answered(place, metric) == [pod] for metric in METRICS), PATIENCE)


def test_a_queue_brings_a_second_replica_which_goes_with_it(place, operator, tmp_path):
    with replicas_over_time(place, tmp_path / "replicas") as seen:
        with place.load():
            place.until_replicas(2)
            operator.restart()  # in the middle: nobody writes the replicas but the autoscaler
            place.condition("inferenceserver", "server", status="True", reason="Serving")
        place.until_replicas(1)
    assert seen == {1, 2}


def test_busy_gpus_bring_a_second_replica(place, duty, tmp_path):
    by_duty = {"targetQueueTime": None, "targetGPUUtilization": 50}
    place.patch("inferenceserver", "server", {"spec": {"autoscaling": by_duty}})
    place.until(lambda: place.measured("gpuUtilization").get("current") == "0%")
    with replicas_over_time(place, tmp_path / "replicas") as seen:
        duty.duty = 0.9
        place.until_replicas(2)
    assert seen == {1, 2}


def test_idle_gpus_let_it_go(place, duty, tmp_path):
    with replicas_over_time(place, tmp_path / "replicas") as seen:
        duty.duty = 0.1
        place.until_replicas(1)
    assert seen == {1, 2}


def test_who_scales_by_hand_meanwhile_is_told(place):
    with pytest.raises(GravswellError, match="set exactly one of replicas, autoscaling and ranks"):
        place.kubectl("scale", "inferenceserver", "server", "--replicas=3")
