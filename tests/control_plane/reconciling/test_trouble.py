"""What keeps replicas from running, injected: what the conditions and the account of the start say of it, and when."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gravswell.errors import GravswellError
from gravswell_operator.devcluster import ensure_binaries
from gravswell_operator.devcluster.processes import Child

from .conftest import node_document

CHAOS = Path(__file__).with_name("chaos.yaml")
NODE = "chaos"


@pytest.fixture(scope="module")
def chaos_node(cluster, tmp_path_factory):
    """A node whose pods get into the trouble that their annotation ``chaos`` names."""
    node = node_document(NODE, type="chaos", chaos="true")
    node["metadata"]["labels"].pop("gravswell.dev/local-node")
    node["spec"] = {"taints": [{"key": "chaos", "value": "true", "effect": "NoSchedule"}]}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(node))
    status = json.dumps({"status": node["status"]})
    cluster.kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", status)
    kwok = [
        ensure_binaries(names=["kwok"])["kwok"],
        f"--kubeconfig={cluster.kubeconfig}",
        f"--config={CHAOS}",
        "--manage-nodes-with-label-selector=chaos=true",
        "--node-lease-duration-seconds=40",
        "--v=WARN",
    ]
    child = Child("chaos", kwok, log=tmp_path_factory.mktemp("chaos") / "kwok.log")
    yield
    child.process.terminate()
    child.process.wait(30)
    cluster.kubectl("delete", "node", NODE, "--wait=false")


@dataclass(frozen=True)
class Trouble:
    """A server of one replica on that node, or on none."""

    world: Any

    def serve(self, chaos: str = "", *, on: str = "true", **spec: Any) -> None:
        annotations = {"chaos": chaos} if chaos else {}
        template = {
            "annotations": annotations,
            "nodeSelector": {"chaos": on},
            "tolerations": [{"key": "chaos", "operator": "Exists"}],
        }
        self.world.make_repository(url="s3://nobody/asks")
        self.world.make_server(podTemplate=template, **spec)
        self.world.make_model()
        self.world.publish(1, url="s3://nobody/asks")

    def break_now(self, chaos: str) -> None:
        """What the pod that runs gets into; an empty text: it recovers."""
        (pod,) = self.world.pods()
        self.world.patch("pod", pod, {"metadata": {"annotations": {"chaos": chaos or None}}})

    def ready(self, **expected: str) -> dict[str, Any]:
        return self.world.condition("inferenceserver", "server", **expected)

    def startup(self) -> dict[str, Any]:
        return self.world.get("inferenceserver", "server")["status"].get("startup") or {}


@pytest.fixture
def trouble(world, chaos_node):
    return Trouble(world)


def test_an_image_that_cannot_be_pulled(trouble):
    trouble.serve("image")
    message = trouble.ready(status="False", reason="ImagePullFailed")["message"]
    (pod,) = trouble.world.pods()
    image = trouble.world.get("pod", pod)["spec"]["containers"][0]["image"]
    words = f'container triton of pod {pod}: Back-off pulling image "{image}": not found'
    assert message == f"0 of 1 replica ready; {words}"
    trouble.world.until(lambda: trouble.startup().get("stage") == "Image")
    assert trouble.startup()["blocker"] == words
    assert [stage["name"] for stage in trouble.startup()["stages"]] == ["Provisioning", "Volumes"]
    trouble.break_now("")
    trouble.ready(status="True")
    trouble.world.until(lambda: trouble.startup()["stage"] == "Ready")
    assert trouble.startup()["blocker"] == ""


@pytest.mark.parametrize(
    ("chaos", "words"),
    [
        ("loop", "back-off 10s restarting failed container; it ended with exit code 139 (injected); its log says why"),
        ("ended", "it ended with exit code 137 (OOMKilled), and is started again; its log says why"),
    ],
)
def test_a_container_that_crashes_is_never_ready(trouble, chaos, words):
    trouble.serve()
    trouble.ready(status="True")
    trouble.world.until(lambda: trouble.startup().get("stage") == "Ready")
    told = trouble.startup()
    trouble.break_now(chaos)
    (pod,) = trouble.world.pods()
    message = trouble.ready(status="False", reason="CrashLoop")["message"]
    assert message == f"0 of 1 replica ready; container triton of pod {pod}: {words}"
    available = trouble.world.condition("inferenceserver", "server", "Available", status="False")
    assert available["reason"] == "NoReplicaReady"
    assert trouble.startup() == told, "a replica that crashes does not start"
    model = trouble.world.condition("model", "digits", status="False")
    assert words in model["message"] or model["reason"] == "Loading"
    trouble.break_now("")
    trouble.ready(status="True")


def test_no_node_fits(trouble):
    trouble.serve(on="elsewhere")
    message = trouble.ready(status="False", reason="PodUnschedulable")["message"]
    (pod,) = trouble.world.pods()
    assert f"0 of 1 replica ready; pod {pod} cannot be scheduled: 0/" in message
    trouble.world.until(lambda: trouble.startup().get("stage") == "Provisioning")
    assert trouble.startup()["blocker"].startswith(f"pod {pod} cannot be scheduled: 0/")
    assert trouble.startup()["stages"] == []
    trouble.world.patch("inferenceserver", "server", {"spec": {"podTemplate": {"nodeSelector": {"chaos": "true"}}}})
    trouble.ready(status="True")
    trouble.world.until(lambda: trouble.startup().get("stage") == "Ready")
    assert trouble.startup()["pod"] != pod


def test_a_quota_that_is_used_up(trouble):
    trouble.world.create("v1", "ResourceQuota", "small", spec={"hard": {"pods": "0"}})
    spec = {"containers": [{"name": "probe", "image": "none"}]}
    probe = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": spec}
    trouble.world.until(lambda: "exceeded quota: small" in trouble.world.refusal(probe))  # a controller makes it count
    trouble.serve()
    message = trouble.ready(status="False", reason="PodsRefused")["message"]
    assert "exceeded quota: small" in message
    assert "raise the ResourceQuota, or free something of it" in message
    assert trouble.startup() == {}


def test_a_limit_that_is_too_low(trouble):
    limit = {"type": "Container", "max": {"memory": "1Gi"}}
    trouble.world.create("v1", "LimitRange", "low", spec={"limits": [limit]})
    trouble.serve()
    message = trouble.ready(status="False", reason="PodsRefused")["message"]
    assert "maximum memory usage per Container is 1Gi, but limit is 2Gi" in message
    assert "lower what the server asks for, or raise the namespace's LimitRange" in message


@pytest.fixture
def policy(world):
    """A rule of the cluster's own that refuses every pod of the namespace."""
    name = f"none-in-{world.namespace}"
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
    denied = {"expression": "false", "message": "images must come from the company's registry"}
    spaces = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}}}
    kinds = {
        "ValidatingAdmissionPolicy": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": rules},
            "validations": [denied],
        },
        "ValidatingAdmissionPolicyBinding": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": spaces,
        },
    }
    for kind, spec in kinds.items():
        body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        world.kubectl("create", "-f", "-", stdin=json.dumps(body))
    world.until(lambda: is_refused(world))
    yield name
    for kind in kinds:
        world.kubectl("delete", kind, name)


def is_refused(world) -> bool:
    """Whether the API server knows the rule by now."""
    try:
        world.kubectl("run", "probe", "--image=none", "--dry-run=server")
    except GravswellError as error:
        return "images must come from" in str(error)
    return False


def test_an_admission_that_refuses_the_pods(trouble, policy):
    trouble.serve()
    message = trouble.ready(status="False", reason="PodsRefused")["message"]
    assert f"ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request" in message
    assert "images must come from the company's registry; mend what refuses them" in message
