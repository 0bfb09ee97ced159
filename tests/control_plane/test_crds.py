"""The definitions on a real API server: admitted, explained, defaulted, scaled, and every rule in its own words."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from gravswell.errors import GravswellError
from gravswell_operator.api.crd import crds

from .operating import api_of

ROOT = Path(__file__).parents[2]
CASES = yaml.safe_load((ROOT / "tests/api/manifests.yaml").read_text())
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
KINDS = {document["spec"]["names"]["kind"]: document for document in crds()}

Apply = Callable[[dict[str, Any]], dict[str, Any]]
Admit = Callable[[dict[str, Any]], dict[str, Any]]


def wait_established(kubectl, *names: str) -> None:
    kubectl("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in names))


@pytest.fixture(scope="module")
def api(cluster) -> None:
    """The API server with the generated files applied as a user applies them."""
    cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    wait_established(cluster.kubectl, *(document["metadata"]["name"] for document in crds()))


@pytest.fixture
def apply(api, cluster, namespace) -> Iterator[Apply]:
    """``apply(manifest) -> object``: creates or changes it in the namespace of the test, as a user does."""
    pools = []

    def run(manifest: dict[str, Any]) -> dict[str, Any]:
        text = cluster.kubectl("apply", "-n", namespace, "-o", "json", "-f", "-", stdin=json.dumps(manifest))
        if manifest["kind"] == "GPUNodePool":
            pools.append(manifest["metadata"]["name"])
        return json.loads(text)

    yield run
    for name in pools:
        cluster.kubectl("delete", "gpunodepool", name, "--ignore-not-found")


@pytest.fixture
def admit(api, cluster, namespace) -> Admit:
    """``admit(manifest) -> object``: what the API server would make of it, which it does not keep."""
    return partial(api_of(cluster).admit, namespace)


@pytest.mark.parametrize("kind", KINDS)
def test_the_api_server_finds_nothing_wrong(api, kubectl, kind):
    document = json.loads(kubectl("get", "crd", KINDS[kind]["metadata"]["name"], "-o", "json"))
    conditions = {condition["type"]: condition for condition in document["status"]["conditions"]}
    assert conditions["Established"]["status"] == "True"
    assert conditions["NamesAccepted"]["status"] == "True"
    assert "NonStructuralSchema" not in conditions
    assert conditions.get("KubernetesAPIApprovalPolicyConformant", {"status": "True"})["status"] == "True"


def test_nothing_that_was_sent_is_dropped(api, kubectl):
    """A keyword that the API server does not know would vanish silently."""
    for document in crds():
        stored = json.loads(kubectl("get", "crd", document["metadata"]["name"], "-o", "json"))
        assert stored["spec"]["versions"] == document["spec"]["versions"]


@pytest.mark.parametrize("kind", CASES["good"])
def test_good_manifests_are_accepted(admit, manifest, kind):
    admit(manifest(kind))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_accepted(api, kubectl, path):
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(path))


@pytest.mark.parametrize("case", CASES["bad"], ids=lambda case: case["case"])
def test_every_rule_refuses_with_its_message(apply, admit, manifest, case):
    before = case.get("before")
    bad = manifest(case["kind"], before, case["change"])
    if case.get("update"):
        apply(manifest(case["kind"], before))
    with pytest.raises(GravswellError) as refusal:
        (apply if case.get("update") else admit)(bad)
    assert f"{case['field']}: Invalid value: " in str(refusal.value)
    assert case["message"] in str(refusal.value)
    assert str(refusal.value).count(case["message"]) == 1
    assert "rule evaluation" not in str(refusal.value)


@pytest.mark.parametrize("case", CASES["schema"], ids=lambda case: case["field"])
def test_what_the_schema_forbids_is_refused_at_the_field(admit, manifest, case):
    with pytest.raises(GravswellError) as refusal:
        admit(manifest(case["kind"], case["change"]))
    assert case["field"] in str(refusal.value)
    assert "rule evaluation" not in str(refusal.value)


def test_defaults_are_filled_in(admit, manifest):
    spec = admit(manifest("InferenceServer", {"spec": {"nodePoolRef": None, "gpus": None}}))["spec"]
    assert spec == {
        "repositoryRef": {"name": "models"},
        "tag": "24.08",
        "gpus": 0,
        "vcpus": "1",
        "memory": "2Gi",
        "modelStorage": "10Gi",
        "replicas": 1,
        "models": "Declared",
        "service": {"type": "ClusterIP"},
        "readOnlyRootFilesystem": False,
        "suspend": False,
    }
    pool = admit(manifest("GPUNodePool"))["spec"]
    assert pool["taints"] == [{"key": "nvidia.com/gpu"}]
    assert pool["accelerator"]["resourceName"] == "nvidia.com/gpu"
    assert pool["drivers"] == {"install": False}
    model = admit(manifest("Model"))["spec"]
    assert (model["version"], model["verification"]) == ("latest", "Golden")
    repository = admit(manifest("ModelRepository"))["spec"]
    assert (repository["syncInterval"], repository["verification"]) == ("30s", "Golden")


def test_changes_that_are_allowed_to_objects_that_exist(apply, manifest):
    """Transition rules look at what is immutable and at nothing else, also where optional fields come and go."""
    apply(manifest("Model"))
    assert apply(manifest("Model", {"spec": {"version": 3}}))["spec"]["version"] == 3
    assert apply(manifest("Model", {"spec": {"placement": {"instances": 2}}}))["spec"]["version"] == "latest"
    apply(manifest("GPUNodePool"))
    apply(manifest("GPUNodePool", {"spec": {"provider": {"static": {"matchLabels": {"zone": "b"}}}, "size": 3}}))
    apply(manifest("InferenceServer"))
    scaled = apply(
        manifest("InferenceServer", {"spec": {"replicas": None, "autoscaling": {"minReplicas": 1, "maxReplicas": 3}}})
    )
    assert "replicas" not in scaled["spec"]
    assert scaled["spec"]["autoscaling"] == {"minReplicas": 1, "maxReplicas": 3}  # by the CPU, where nothing is said


def test_status_is_written_apart_from_the_spec(apply, kubectl, namespace, manifest):
    apply(manifest("InferenceServer"))
    status = {
        "observedGeneration": 1,
        "replicas": 2,
        "readyReplicas": 1,
        "selector": "gravswell.dev/server=server",
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "Waiting",
                "message": "one replica is on its way",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-02T03:04:05Z",
            }
        ],
    }
    patch = json.dumps({"status": status, "spec": {"replicas": 7}})
    kubectl("patch", "isrv/server", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    stored = json.loads(kubectl("get", "isrv/server", "-n", namespace, "-o", "json"))
    assert stored["status"] == status
    assert stored["spec"]["replicas"] == 1
    kubectl("patch", "isrv/server", "-n", namespace, "--type=merge", "-p", '{"status": {"replicas": 9}}')
    assert json.loads(kubectl("get", "isrv/server", "-n", namespace, "-o", "json"))["status"]["replicas"] == 2


def test_a_condition_without_a_reason_is_refused(apply, kubectl, namespace, manifest):
    apply(manifest("Model"))
    bad = {"status": {"conditions": [{"type": "Ready", "status": "Yes", "message": ""}]}}
    with pytest.raises(GravswellError, match=r"status.conditions\[0\].reason: Required value"):
        kubectl("patch", "mdl/model", "-n", namespace, "--subresource=status", "--type=merge", "-p", json.dumps(bad))


def test_scale_of_a_server(apply, kubectl, namespace, manifest):
    apply(manifest("InferenceServer"))
    kubectl("scale", "isrv/server", "-n", namespace, "--replicas=3")
    scale = json.loads(kubectl("get", "isrv/server", "-n", namespace, "--subresource=scale", "-o", "json"))
    assert scale["spec"]["replicas"] == 3
    with pytest.raises(GravswellError, match=r"spec\.replicas"):
        kubectl("scale", "isrv/server", "-n", namespace, "--replicas=5000")


def test_a_server_that_scales_itself_is_not_scaled_by_hand(apply, kubectl, namespace, manifest):
    apply(
        manifest("InferenceServer", {"spec": {"replicas": None, "autoscaling": {"minReplicas": 1, "maxReplicas": 3}}})
    )
    with pytest.raises(GravswellError, match=r"replicas"):
        kubectl("scale", "isrv/server", "-n", namespace, "--replicas=3")


def test_scale_of_a_pool(apply, kubectl, manifest):
    apply(manifest("GPUNodePool", {"metadata": {"name": "scaled-pool"}, "spec": {"size": 1}}))
    kubectl("scale", "gnp/scaled-pool", "--replicas=2")
    assert json.loads(kubectl("get", "gnp/scaled-pool", "-o", "json"))["spec"]["size"] == 2


def test_columns_category_and_field_selectors(apply, kubectl, namespace, manifest):
    for kind in CASES["good"]:
        apply(manifest(kind))
    everything = kubectl("get", "gravswell", "-n", namespace)
    for name in ("gpunodepool", "modelrepository", "inferenceserver", "model"):
        assert f"{name}.gravswell.dev/" in everything
    header, row = kubectl("get", "isrv", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "REPOSITORY", "GPUS", "REPLICAS", "READY", "REPLICAS", "READY", "REASON", "AGE"]
    assert row.split()[:3] == ["server", "models", "1"]
    wide = kubectl("get", "gnp", "pool", "-o", "wide").splitlines()[0]
    assert "MESSAGE" in wide
    chosen = kubectl("get", "mdl", "-n", namespace, "--field-selector=spec.serverRef.name=server", "-o", "name")
    assert chosen.strip() == "model.gravswell.dev/model"
    assert not kubectl("get", "mdl", "-n", namespace, "--field-selector=spec.serverRef.name=other", "-o", "name")


@pytest.mark.parametrize("kind", KINDS)
def test_explain_describes_every_field(api, kubectl, kind):
    text = kubectl("explain", KINDS[kind]["spec"]["names"]["plural"], "--api-version=gravswell.dev/v1alpha1")
    assert "<empty>" not in text
    assert KINDS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] in " ".join(text.split())


def test_explain_reads_well(api, kubectl):
    text = kubectl("explain", "gnp.spec.provider")
    assert "Where the nodes come from." in text
    assert "enum: Static" in text
    assert "-required-" in text
    assert "<empty>" not in text
