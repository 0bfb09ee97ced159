"""What the cluster does under the operator: a namespace goes, definitions change, pods crash, images are not there."""

import subprocess
import time
from pathlib import Path

import pytest
import yaml

from gravswell_operator.devcluster import ensure_binaries

from ..operating import ROOT, conditions
from .busy import CHILDREN, MANAGED

EARLIER = ROOT / "tests/chart/earlier/gravswell-0.1.0.tgz"
REST_SECONDS = 5


def test_a_namespace_that_is_deleted_in_the_middle_goes_and_may_come_again(world, proxy, operator, quiet):
    steady = operator.steady()
    world.make_pool()
    world.make_repository()
    for number in range(4):
        world.make_server(f"server-{number}", replicas=2, nodePoolRef={"name": world.pool}, gpus=1)
        world.make_model(f"of-{number}", serverRef={"name": f"server-{number}"})
    world.until(lambda: world.get("deployment", "server-0"))
    world.cluster.kubectl("delete", "namespace", world.namespace, "--wait=false")
    for number in range(4):  # its users go on, until they are refused
        world.kubectl("scale", "isrv", f"server-{number}", "--replicas=1", check=False)
    world.until(lambda: world.get("namespace", world.namespace) is None, 180)
    everywhere = world.cluster.kubectl.items("inferenceservers", "--all-namespaces")
    world.until(lambda: operator.metric("gravswell_objects_known", kind="InferenceServer") == len(everywhere))
    quiet()
    begin = time.monotonic()
    time.sleep(REST_SECONDS)
    asked = [str(s.asked) for s in list(proxy.seen) if s.at >= begin and s.asked.namespace == world.namespace]
    assert asked == []
    world.cluster.kubectl("create", "namespace", world.namespace)
    world.make_repository()
    world.make_server("server-0", replicas=2, nodePoolRef={"name": world.pool}, gpus=1)
    world.condition("inferenceserver", "server-0", "Available", status="True")
    steady()


@pytest.fixture
def definitions(cluster, tmp_path):
    """``definitions(chart)`` applies those of a chart, as helm upgrades them; ours are there in the end."""
    helm = ensure_binaries(names=["helm"])["helm"]

    def apply(chart: Path) -> None:
        rendered = subprocess.run(
            [helm, "template", "gravswell", str(chart), "--namespace", "gravswell-system", "--skip-tests"],
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        crds = [d for d in yaml.safe_load_all(rendered) if d and d["kind"] == "CustomResourceDefinition"]
        assert len(crds) == 4
        apply = ("apply", "--server-side", "--force-conflicts", "-f", "-")
        cluster.kubectl(*apply, stdin=yaml.safe_dump_all(crds))
        names = [f"crd/{crd['metadata']['name']}" for crd in crds]
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)

    yield apply
    apply(ROOT / "charts/gravswell")


def test_definitions_that_are_upgraded_in_the_middle(world, operator, definitions):
    """From those of the first release that served models, with objects that are made and changed all the time."""
    steady = operator.steady()
    definitions(EARLIER)
    world.make_repository()
    for number in range(3):
        world.make_server(f"server-{number}")
        world.make_model(f"of-{number}", serverRef={"name": f"server-{number}"})
    uids = {body["metadata"]["name"]: body["metadata"]["uid"] for body in world.objects("isrv", "mdl", "mr")}
    world.until(lambda: world.get("deployment", "server-0"))
    for number in range(3):
        world.make_server(f"server-{number}", memory="3Gi")
    definitions(ROOT / "charts/gravswell")
    for number in range(3):
        world.make_server(f"server-{number}", memory="4Gi", replicas=2)
    world.make_server("late")
    for name in ("server-0", "server-1", "server-2", "late"):
        world.condition("inferenceserver", name, "Available", status="True")
        world.condition("inferenceserver", name, "Progressing", status="False", reason="RolledOut")
    world.until(lambda: all(map(_observed, world.objects("isrv", "mdl", "mr"))))
    for body in world.objects("isrv", "mdl", "mr"):
        name = body["metadata"]["name"]
        assert uids.get(name, body["metadata"]["uid"]) == body["metadata"]["uid"]
    assert all("4Gi" in str(world.get("deployment", f"server-{n}")["spec"]) for n in range(3))
    steady()


def _observed(body):
    """Whether the status is of the object's latest specification."""
    return body.get("status", {}).get("observedGeneration") == body["metadata"]["generation"]


def _containers(pod, **state):
    """The status of a pod whose first container is in ``state``."""
    first, *others = pod["status"]["containerStatuses"]
    said = [c for c in pod["status"]["conditions"] if c["type"] not in ("Ready", "ContainersReady")]
    broken = [
        {"type": kind, "status": "False", "reason": "ContainersNotReady"} for kind in ("Ready", "ContainersReady")
    ]
    return {
        "containerStatuses": [{**first, "ready": False, "started": False, **state}, *others],
        "conditions": said + broken,
    }


CRASHED = {
    "restartCount": 3,
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}},
    "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
}
NO_IMAGE = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}


@pytest.mark.parametrize("state", [CRASHED, NO_IMAGE], ids=["crash", "image"])
def test_a_pod_that_fails_is_told_and_nothing_is_made_or_deleted_for_it(world, proxy, quiet, state):
    world.make_repository()
    world.make_server(replicas=2)
    world.rolled_out()
    world.until(lambda: (world.get("deployment", "models-lister") or {"status": {}})["status"].get("readyReplicas"))
    quiet()
    before = {body["metadata"]["uid"] for body in world.objects(*CHILDREN, "pods", selector=MANAGED)}
    pod = world.get("pod", world.pods()[0])
    name, begin = pod["metadata"]["name"], time.monotonic()
    world.patch("pod", name, {"status": _containers(pod, **state)}, subresource="status")
    ready = world.condition("inferenceserver", "server", status="False")
    world.until(lambda: name in conditions(world.get("inferenceserver", "server"))["Ready"]["message"])
    assert ready["reason"]
    time.sleep(REST_SECONDS)
    wrote = [
        s.asked for s in list(proxy.seen) if s.at >= begin and s.asked.writes and s.asked.namespace == world.namespace
    ]
    assert {(a.plural, a.below) for a in wrote} <= {("inferenceservers", "status"), ("events", "")}
    assert len(wrote) <= 10, [str(a) for a in wrote]
    assert {body["metadata"]["uid"] for body in world.objects(*CHILDREN, "pods", selector=MANAGED)} == before
    healthy = {key: pod["status"][key] for key in ("containerStatuses", "conditions")}
    world.patch("pod", name, {"status": healthy}, subresource="status")
    world.until(lambda: name not in conditions(world.get("inferenceserver", "server"))["Ready"]["message"])
    world.condition("inferenceserver", "server", "Available", status="True")


def test_a_node_that_is_lost_costs_no_server(world, cluster, operator):
    """Its object goes, and its pods with it, as a cloud's controller has it."""
    steady = operator.steady()
    world.make_pool(size=3)
    world.make_repository()
    world.make_server(replicas=3, nodePoolRef={"name": world.pool}, gpus=1)
    world.rolled_out()
    world.condition("gpunodepool", world.pool, status="True")
    node = world.get("pod", world.pods()[0])["spec"]["nodeName"]
    body = world.get("node", node)
    cluster.kubectl("delete", "node", node)
    lost = [p["metadata"]["name"] for p in world.objects("pods") if p["spec"].get("nodeName") == node]
    for name in lost:
        world.kubectl("delete", "pod", name, "--force", "--grace-period=0")
    world.condition("gpunodepool", world.pool, status="False", reason="NotEnoughNodes")
    world.until(lambda: len(world.pods()) == 3 and not set(world.pods()) & set(lost))
    world.rolled_out()
    kept = {key: body["metadata"].get(key, {}) for key in ("labels", "annotations")}
    taints = [t for t in body["spec"].get("taints", ()) if t["key"].startswith("kwok")]
    made = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, **kept}, "spec": {"taints": taints}}
    cluster.kubectl("create", "-f", "-", stdin=yaml.safe_dump(made))
    status = {key: body["status"][key] for key in ("allocatable", "capacity", "conditions")}
    world.patch("node", node, {"status": status}, subresource="status")
    world.condition("gpunodepool", world.pool, status="True")
    steady()


def test_a_node_that_was_taken_for_lost_says_that_it_is_there(world):
    """Or after the API server was away nothing would be scheduled for ten minutes."""
    node = world.objects("nodes", selector="type=kwok")[0]["metadata"]["name"]
    silent = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
    world.patch("node", node, {"status": {"conditions": [silent]}}, subresource="status")
    world.until(lambda: conditions(world.get("node", node))["Ready"]["reason"] == "KubeletReady")
    world.until(lambda: "unreachable" not in str(world.get("node", node)["spec"].get("taints")))
