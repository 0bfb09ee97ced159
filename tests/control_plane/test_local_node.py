"""Pods on the local node are what a kubelet would make of them: processes, statuses, logs, events."""

import json
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from gravswell.errors import GravswellError
from gravswell_operator.devcluster import ControlPlane, LocalNode


def sh(script: str, **more: Any) -> dict[str, Any]:
    return {"command": ["sh", "-c", script], **more}


def state_of(pod: dict[str, Any], container: str = "main") -> dict[str, Any]:
    statuses = pod["status"].get("containerStatuses", [])
    return next((s["state"] for s in statuses if s["name"] == container), {})


def waiting_reason(pod: dict[str, Any]) -> str | None:
    return state_of(pod).get("waiting", {}).get("reason")


def test_the_node_says_what_it_is(kubectl, local_node):
    node = json.loads(kubectl("get", "node", "gravswell-local", "-o", "json"))
    assert node["metadata"]["labels"]["gravswell.dev/local-node"] == "true"
    assert node["metadata"]["labels"]["nvidia.com/gpu.product"] == "Simulated-GPU"
    assert "nvidia.com/gpu" in node["metadata"]["annotations"]["gravswell.dev/simulated"]
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert "taints" not in node["spec"] or all("not-ready" in t["key"] for t in node["spec"]["taints"])
    lease = json.loads(kubectl("get", "lease", "gravswell-local", "-n", "kube-node-lease", "-o", "json"))
    assert lease["spec"]["holderIdentity"] == "gravswell-local"


def test_runs_our_image_to_completion(pods):
    pods.create("version", {"args": ["--version"]}, restartPolicy="Never")
    pod = pods.until_phase("version", "Succeeded")
    assert state_of(pod)["terminated"]["exitCode"] == 0
    assert state_of(pod)["terminated"]["reason"] == "Completed"
    assert pods.logs("version").startswith("gravswell ")


def test_a_failing_container_fails_its_pod_with_its_exit_code(pods):
    pods.create(
        "bad",
        sh("echo last words >&2; exit 7", terminationMessagePolicy="FallbackToLogsOnError"),
        restartPolicy="Never",
    )
    pod = pods.until_phase("bad", "Failed")
    assert state_of(pod)["terminated"]["exitCode"] == 7
    assert "last words" in state_of(pod)["terminated"]["message"]


def test_a_signal_is_reported_as_a_container_runtime_does(pods):
    pods.create("killed", sh("kill -KILL $$$$"), restartPolicy="Never")
    ended = state_of(pods.until_phase("killed", "Failed"))["terminated"]
    assert (ended["exitCode"], ended["signal"]) == (137, 9)


def test_an_unknown_image_waits_and_says_what_is_known(pods):
    pods.create("foreign", {"image": "docker.io/library/nginx:1"})
    pod = pods.until("foreign", lambda p: waiting_reason(p) == "ErrImagePull")
    message = state_of(pod)["waiting"]["message"]
    assert "nginx:1" in message
    assert "nvcr.io/nvidia/tritonserver" in message
    assert pod["status"]["phase"] == "Pending"
    assert "nginx" in pods.until_event("foreign", "Failed")["message"]


def test_a_program_that_is_not_there_is_a_start_error(pods):
    pods.create("typo", {"command": ["no-such-program"]}, restartPolicy="Never")
    ended = state_of(pods.until_phase("typo", "Failed"))["terminated"]
    assert ended["reason"] == "StartError"
    assert "no-such-program" in ended["message"]


def test_a_crashing_container_is_restarted_with_back_off(pods):
    pods.create("crash", sh("echo run; exit 3"))
    pod = pods.until("crash", lambda p: waiting_reason(p) == "CrashLoopBackOff")
    status = pod["status"]["containerStatuses"][0]
    assert status["restartCount"] >= 1
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert pod["status"]["phase"] == "Running"
    assert pods.logs("crash", "--previous") == "run\n"
    pods.until_event("crash", "BackOff")


def test_init_containers_run_in_order_and_share_volumes(pods):
    share = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    pods.create(
        "ordered",
        sh("cat /data/log; sleep 600", **share),
        initContainers=[
            {"name": name, "image": "ghcr.io/gravswell/gravswell", **sh(f"echo {name} >> /data/log", **share)}
            for name in ("first", "second")
        ],
        volumes=[{"name": "data", "emptyDir": {}}],
    )
    pod = pods.until_ready("ordered")
    pods.until("ordered", lambda _: pods.logs("ordered") == "first\nsecond\n")
    assert [s["state"]["terminated"]["exitCode"] for s in pod["status"]["initContainerStatuses"]] == [0, 0]
    assert all(s["ready"] for s in pod["status"]["initContainerStatuses"])


def test_a_failing_init_container_keeps_the_pod_from_starting(pods):
    broken = {"name": "broken", "image": "ghcr.io/gravswell/gravswell", **sh("exit 1")}
    pods.create("blocked", sh("sleep 600"), initContainers=[broken], restartPolicy="Never")
    pod = pods.until_phase("blocked", "Failed")
    conditions = {c["type"]: c for c in pod["status"]["conditions"]}
    assert conditions["Initialized"]["status"] == "False"
    assert "broken" in conditions["Initialized"]["message"]
    assert "waiting" in state_of(pod)


def test_each_pod_has_its_own_address_and_serves_on_the_same_port(pods):
    for name in ("one", "two"):
        serve = {
            "command": ["python", "-m", "http.server", "--bind", "$(POD_IP)", "8000"],
            "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "readinessProbe": {"httpGet": {"port": 8000}, "periodSeconds": 1},
        }
        pods.create(name, serve)
    addresses = [pods.until_ready(name)["status"]["podIP"] for name in ("one", "two")]
    assert len(set(addresses)) == 2
    for address in addresses:
        with urllib.request.urlopen(f"http://{address}:8000/", timeout=30) as answer:
            assert answer.status == 200


def test_a_port_that_the_machine_holds_on_every_address_is_named_until_it_is_free(pods):
    with socket.create_server(("0.0.0.0", 0)) as holder:
        port = holder.getsockname()[1]
        pods.create("squeezed", sh("echo through", ports=[{"containerPort": port}]), restartPolicy="Never")
        pod = pods.until("squeezed", lambda p: waiting_reason(p) == "CreateContainerConfigError")
        assert f"listens on 0.0.0.0:{port}" in state_of(pod)["waiting"]["message"]
    pods.until_phase("squeezed", "Succeeded")


def test_deletion_is_graceful(pods, kubectl, local_node):
    script = "trap 'echo got SIGTERM > /out/note; sleep 1; exit 0' TERM; touch /out/up; while :; do sleep 0.1; done"
    pods.create(
        "polite",
        sh(
            script,
            volumeMounts=[{"name": "out", "mountPath": "/out"}],
            lifecycle={"preStop": {"exec": {"command": ["sh", "-c", "echo preStop > /out/first"]}}},
        ),
        volumes=[{"name": "out", "hostPath": {"path": str(local_node.directory)}}],
        terminationGracePeriodSeconds=30,
    )
    pods.until("polite", lambda _: (local_node.directory / "up").exists())
    kubectl("delete", "pod", "polite", "-n", pods.namespace, "--timeout=60s")
    assert (local_node.directory / "first").read_text() == "preStop\n"
    assert (local_node.directory / "note").read_text() == "got SIGTERM\n"


def test_a_container_that_ignores_sigterm_is_killed_with_all_its_processes(pods, kubectl, local_node):
    script = "trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo $! > /out/child; while :; do sleep 1; done"
    mount = {"volumeMounts": [{"name": "out", "mountPath": "/out"}]}
    pods.create(
        "stubborn",
        sh(script, **mount),
        terminationGracePeriodSeconds=1,
        volumes=[{"name": "out", "hostPath": {"path": str(local_node.directory)}}],
    )
    note = local_node.directory / "child"
    pods.until("stubborn", lambda _: note.exists() and note.read_text())
    child = int(note.read_text())
    kubectl("delete", "pod", "stubborn", "-n", pods.namespace, "--timeout=60s")
    _until_dead(child)
    left = local_node.directory / "pods" / pods.namespace / "stubborn"
    assert not left.exists(), sorted(left.rglob("*"))


def test_a_forced_deletion_leaves_no_process(pods, kubectl, local_node):
    pods.create("forced", sh("trap '' TERM; while :; do sleep 1; done"))
    pid = int(pods.until_ready("forced")["status"]["containerStatuses"][0]["containerID"].rsplit("/", 1)[1])
    kubectl("delete", "pod", "forced", "-n", pods.namespace, "--force", "--grace-period=0")
    _until_dead(pid)


def test_a_deployment_scales_and_rolls(pods, kubectl):
    pods.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 1,
                "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {
                        "nodeSelector": {"gravswell.dev/local-node": "true"},
                        "terminationGracePeriodSeconds": 1,
                        "containers": [
                            {
                                "name": "main",
                                "image": "ghcr.io/gravswell/gravswell",
                                **sh("sleep 600"),
                                "resources": {"limits": {"nvidia.com/gpu": 1}},
                                "env": [{"name": "REVISION", "value": "1"}],
                            }
                        ],
                    },
                },
            },
        }
    )
    namespace = ("-n", pods.namespace)
    kubectl("rollout", "status", "deployment/web", *namespace, "--timeout=90s")
    kubectl("scale", "deployment/web", "--replicas=3", *namespace)
    kubectl("rollout", "status", "deployment/web", *namespace, "--timeout=90s")
    kubectl("set", "env", "deployment/web", "REVISION=2", *namespace)
    kubectl("rollout", "status", "deployment/web", *namespace, "--timeout=90s")
    assert kubectl("get", "deployment", "web", *namespace, "-o", "jsonpath={.status.readyReplicas}") == "3"


def test_pods_of_a_crashed_node_run_again_on_its_successor(cluster: ControlPlane, tmp_path, pods, local_node, kubectl):
    local_node.kill()
    try:
        pods.create("survivor", sh("sleep 600"))
        pods.create("once", sh("sleep 600"), restartPolicy="Never")
        local_node.start()
        first = {name: pods.until_ready(name) for name in ("survivor", "once")}
        pids = [int(p["status"]["containerStatuses"][0]["containerID"].rsplit("/", 1)[1]) for p in first.values()]
        local_node.kill()
        _until_dead(*pids)
    finally:
        local_node.start()
    again = pods.until("survivor", lambda p: p["status"]["containerStatuses"][0]["restartCount"] == 1 and _ready(p))
    assert again["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    pods.until_phase("once", "Failed")


def test_a_second_look_at_logs_follows_and_tails(pods, kubectl):
    pods.create("talk", sh("for i in 1 2 3; do echo line $i; done; sleep 2; echo end"), restartPolicy="Never")
    pods.until("talk", lambda p: "running" in state_of(p) or "terminated" in state_of(p))
    assert pods.logs("talk", "--follow").endswith("line 3\nend\n")
    assert pods.logs("talk", "--tail=1") == "end\n"


def test_options_of_logs_are_honoured_or_refused(pods, kubectl):
    pods.create("told", sh("echo one; echo two; sleep 600"))
    pods.until_ready("told")
    pods.until("told", lambda _: "two" in pods.logs("told"))
    assert pods.logs("told", "--limit-bytes=5") == "one\nt"
    assert pods.logs("told", "--tail=1", "--limit-bytes=2") == "tw"
    assert pods.logs("told", "--follow", "--limit-bytes=5") == "one\nt"
    for flag in ("--timestamps", "--since=1h", "--since-time=2026-01-01T00:00:00Z"):
        with pytest.raises(GravswellError, match="without times"):
            pods.logs("told", flag)


@pytest.mark.parametrize(
    ("command", "way_out"),
    [
        (("exec", "quiet", "--", "true"), "containerID"),
        (("attach", "quiet"), "kubectl logs --follow"),
        (("port-forward", "quiet", ":80"), "connect to it directly"),
    ],
)
def test_what_the_node_does_not_offer_is_refused_with_the_way_out(pods, kubectl, command, way_out):
    pods.create("quiet", sh("sleep 600"))
    pods.until_ready("quiet")
    with pytest.raises(GravswellError, match=way_out):
        kubectl("-n", pods.namespace, *command)


def _ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])


def _alive(pid: int) -> bool:
    """Whether it runs; one that is dead and not collected yet (a zombie) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def _until_dead(*pids: int) -> None:
    end = time.monotonic() + 60
    while any(map(_alive, pids)):
        assert time.monotonic() < end, f"alive: {[pid for pid in pids if _alive(pid)]}"
        time.sleep(0.1)


def test_the_local_node_is_one_object_through_restarts(kubectl, local_node: LocalNode):
    before = kubectl("get", "node", "gravswell-local", "-o", "jsonpath={.metadata.uid}")
    local_node.stop()
    ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
    assert kubectl("get", "node", "gravswell-local", "-o", ready) == "False"
    local_node.start()
    kubectl("wait", "node/gravswell-local", "--for=condition=Ready", "--timeout=60s")
    assert kubectl("get", "node", "gravswell-local", "-o", "jsonpath={.metadata.uid}") == before
