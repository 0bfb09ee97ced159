"""``gravswell operator check`` on installations that lack something; helm test runs it on one that lacks nothing."""

import pytest
import yaml

from gravswell_operator.devcluster import ControlPlane

from ..commands import run
from .conftest import CHART

__all__ = ["run"]

SYSTEM = "checked"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One of its own: the others' has our definitions by helm, before or after."""
    with ControlPlane(tmp_path_factory.mktemp("checked")) as running:
        yield running


@pytest.fixture
def check(cluster, run):
    """``check()``: the findings by name, and the exit code."""

    def call():
        done = run("operator", "check", "-n", SYSTEM, "--kubeconfig", cluster.kubeconfig, "-o", "json")
        return {found["what"]: (found["ok"], found["message"]) for found in done.data}, done.code

    return call


def test_an_installation_says_what_it_lacks(cluster, check):
    cluster.kubectl("create", "namespace", SYSTEM)
    found, code = check()
    assert code == 5
    assert not any(ok for ok, _ in found.values())
    assert "gpunodepools.gravswell.dev" in found["definitions"][1]

    cluster.kubectl("apply", "--server-side", "-f", str(CHART.parents[1] / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "-l", "app.kubernetes.io/part-of=gravswell")
    deployment = {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}}
    deployment["template"]["spec"] = {"containers": [{"name": "c", "image": "none"}]}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "gravswell"}, "spec": deployment}
    cluster.kubectl("apply", "-n", SYSTEM, "-f", "-", stdin=yaml.safe_dump(body))
    found, code = check()
    assert code == 5
    assert [what for what, (ok, _) in found.items() if not ok] == ["operator"]
    assert "no pod of Deployment checked/gravswell is ready" in found["operator"][1]
    assert found["a bad InferenceServer"][1].startswith("refused: set exactly one of replicas")
    assert cluster.kubectl("get", "isrv", "-A", "-o", "name") == ""
