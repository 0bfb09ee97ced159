"""Monitors and alerts: off by default, refused in words where their kinds are not served, and about what there is."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from gravswell.serving import contracts
from gravswell_operator import conditions, names
from gravswell_operator.api import KINDS

from ..control_plane.autoscaling.prometheus import binary
from .conftest import CHART

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
GROUP = "monitoring.coreos.com/v1"
TRITONS = {"nv_inference_request_success", "nv_inference_request_failure"}


@pytest.fixture(scope="module")
def monitored(helm):
    """``monitored(*values)``: the documents of the Prometheus operator's kinds, with these values set."""

    def render(*values):
        kinds = [f"--api-versions={GROUP}/{kind}" for kind in ("PodMonitor", "PrometheusRule")]
        done = helm("template", "release", str(CHART), "--namespace", "system", *kinds, *(f"--set={v}" for v in values))
        assert done.returncode == 0, done.stderr
        return [d for d in yaml.safe_load_all(done.stdout) if d and d["apiVersion"] == GROUP]

    return render


@pytest.fixture(scope="module")
def alerts(monitored):
    (rule,) = monitored("monitoring.rules.enabled=true")
    return {alert["alert"]: alert for group in rule["spec"]["groups"] for alert in group["rules"]}


def test_nothing_of_it_without_being_asked(monitored):
    assert monitored() == []


@pytest.mark.parametrize(
    ("value", "kind"), [("operator", "PodMonitor"), ("servers", "PodMonitor"), ("rules", "PrometheusRule")]
)
def test_a_cluster_that_does_not_serve_the_kind_is_told(helm, value, kind):
    done = helm("template", "release", str(CHART), "--set", f"monitoring.{value}.enabled=true")
    assert f"monitoring.{value}.enabled needs {GROUP}/{kind}, which this cluster does not serve" in done.stderr


def test_the_operators_monitor_finds_its_pod_and_keeps_the_names_of_objects(monitored, render):
    (monitor,) = monitored("monitoring.operator.enabled=true", "monitoring.labels.prometheus=main")
    pod = next(d for d in render() if d["kind"] == "Deployment")["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
    assert endpoint["honorLabels"] is True  # else the object's namespace would be called exported_namespace
    assert monitor["metadata"]["labels"]["prometheus"] == "main"


def test_the_servers_monitor_finds_the_pods_of_servers(monitored):
    (monitor,) = monitored("monitoring.servers.enabled=true")
    chosen = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_ROLE: names.ROLE_TRITON}
    assert monitor["spec"]["selector"]["matchLabels"] == chosen
    assert monitor["spec"]["namespaceSelector"] == {"any": True}
    label = "__meta_kubernetes_pod_label_" + re.sub("[^a-z]", "_", names.LABEL_SERVER)
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        assert endpoint["relabelings"] == [{"sourceLabels": [label], "targetLabel": "server"}]


def test_alerts_fire_when_they_should_and_not_before(monitored, tmp_path):
    """By Prometheus itself."""
    (rule,) = monitored("monitoring.rules.enabled=true")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    shutil.copy(Path(__file__).with_name("alerts.yaml"), tmp_path)
    promtool = [binary("promtool"), "test", "rules", "alerts.yaml"]
    done = subprocess.run(promtool, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_of_them_fires_in_one_of_these(alerts):
    cases = yaml.safe_load(Path(__file__).with_name("alerts.yaml").read_text())["tests"]
    said = {row["alertname"] for case in cases for row in case.get("alert_rule_test", ()) if row["exp_alerts"]}
    asked = [row for case in cases for row in case.get("promql_expr_test", ())]
    for row in asked:
        said |= set(re.findall(r'alertname="(\w+)"', f"{row['expr']} {row['exp_samples']}".replace("!=", "")))
    assert said == alerts.keys()


def test_alerts_are_about_metrics_labels_and_reasons_that_there_are(alerts):
    rows = re.findall(r"^\| `(gravswell_\w+)` \| (\w+) \|([^|]*)\|", OPERATIONS, re.MULTILINE)
    labels = {name: set(re.findall(r"`(\w+)`", said)) for name, _, said in rows}
    reasons = {str(reason) for reason in (*conditions.Reason, *contracts.Reason)}
    for name, alert in alerts.items():
        used = set(re.findall(r"\b(?:gravswell|nv)_\w+", alert["expr"]))
        assert {re.sub("_bucket$", "", metric) for metric in used} - TRITONS <= labels.keys(), name
        for metric, matchers in re.findall(r"(gravswell_\w+)\{([^}]*)\}", alert["expr"]):
            for label, operator, value in re.findall(r'(\w+)(!=|!~|=~|=)"([^"]*)"', matchers):
                assert label in labels[metric] or metric in ("gravswell_lease_held",), f"{name}: {label}"
                if label == "reason" and metric.startswith("gravswell_object_"):
                    assert set(value.split("|")) <= reasons, name
                if label == "kind":
                    assert (operator, value) in {("=", kind.NAMES.kind) for kind in KINDS}, name


def test_what_a_models_alerts_are_about(alerts):
    """A canary that is rolled back is a version that is given up, and who scaled a server to none need not be told."""
    given_up, not_ready = (alerts[f"GravswellModel{what}"]["expr"] for what in ("GivenUp", "NotReady"))
    assert conditions.Reason.ROLLED_BACK in re.search(r'reason=~"([^"]*)"', given_up)[1].split("|")
    left_out = re.search(r'reason!~"([^"]*)"', not_ready)[1].split("|")
    assert left_out == [conditions.Reason.NO_REPLICAS, conditions.Reason.SUSPENDED]


def test_every_alert_says_what_to_do_and_has_a_section_of_its_own(alerts):
    for name, alert in alerts.items():
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        annotations = alert["annotations"]
        assert annotations.keys() == {"summary", "description", "runbook_url"}, name
        assert annotations["runbook_url"].endswith(f"/docs/operations.md#{name.lower()}")
    assert re.findall(r"^### (Gravswell\w+)$", OPERATIONS, re.MULTILINE) == list(alerts)


def test_the_runbook_can_be_a_page_of_your_own(monitored):
    (rule,) = monitored("monitoring.rules.enabled=true", "monitoring.rules.runbookUrl=https://wiki/page")
    urls = {alert["annotations"]["runbook_url"] for group in rule["spec"]["groups"] for alert in group["rules"]}
    assert all(url.startswith("https://wiki/page#gravswell") for url in urls)
