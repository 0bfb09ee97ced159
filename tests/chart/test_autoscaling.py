"""What the chart gives for autoscaling: the right on KEDA's ScaledObjects, and the Prometheus that it asks."""

import pytest

from .conftest import CHART

RULES = "keda.sh"


def operator_rules(documents):
    roles = [d for d in documents if d["kind"] == "ClusterRole" and d["metadata"]["name"] == "release-gravswell"]
    return [group for role in roles for rule in role["rules"] for group in rule["apiGroups"]]


def arguments(documents):
    deployment = next(d for d in documents if d["kind"] == "Deployment")
    return deployment["spec"]["template"]["spec"]["containers"][0]["args"]


@pytest.mark.parametrize("keda", [True, False])
def test_the_right_on_scaled_objects_can_be_kept_back(render, keda):
    assert (RULES in operator_rules(render({"autoscaling.keda": keda}))) is keda


@pytest.mark.parametrize("enabled", [True, False])
def test_the_rights_on_routes_and_endpoints_can_be_kept_back(render, enabled):
    groups = operator_rules(render({"gateway.enabled": enabled}))
    assert {"gateway.networking.k8s.io", "discovery.k8s.io"} & set(groups) == (
        {"gateway.networking.k8s.io", "discovery.k8s.io"} if enabled else set()
    )


def test_the_operator_is_told_of_prometheus(render):
    url = "http://prometheus-operated.monitoring:9090/prefix"
    assert f"--prometheus={url}" in arguments(render({"autoscaling.prometheus": url}))
    assert not [argument for argument in arguments(render()) if argument.startswith("--prometheus")]


@pytest.mark.parametrize("url", ["prometheus:9090", "http://user:secret@prometheus:9090", "http://p:9090/?a=b"])
def test_what_is_no_url_of_a_prometheus_is_refused(helm, url):
    done = helm("template", "release", str(CHART), "--set", f"autoscaling.prometheus={url}")
    assert done.returncode != 0
    assert "autoscaling/prometheus" in done.stderr or "autoscaling.prometheus" in done.stderr
