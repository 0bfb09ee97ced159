"""Probes and hooks on the local node."""

from pathlib import Path
from typing import Any


def sh(script: str, **more: Any) -> dict[str, Any]:
    return {"command": ["sh", "-c", script], **more}


FILES = {"volumeMounts": [{"name": "f", "mountPath": "/f"}]}
VOLUME: dict[str, Any] = {"volumes": [{"name": "f", "emptyDir": {}}]}


def shared(folder: Path) -> dict[str, Any]:
    """The same with a folder of the test's own, which says by its files when something happens."""
    return {"volumes": [{"name": "f", "hostPath": {"path": str(folder)}}]}


def status_of(pod: dict[str, Any]) -> dict[str, Any]:
    nothing = {"state": {}, "restartCount": 0, "ready": True}  # before the node has said anything
    found: dict[str, Any] = next(iter(pod["status"].get("containerStatuses", [])), nothing)
    return found


def exec_probe(script: str, **more: Any) -> dict[str, Any]:
    """A command each second, which is late only if it hangs: none of these is about that."""
    return {"exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1, "timeoutSeconds": 60, **more}


def test_readiness_comes_and_goes_with_its_probe(pods, tmp_path):
    probe = exec_probe("cat /f/ok", failureThreshold=2)
    pods.create("wavering", sh("sleep 600", readinessProbe=probe, **FILES), **shared(tmp_path))
    pods.until("wavering", lambda p: "running" in status_of(p)["state"] and not status_of(p)["ready"])
    (tmp_path / "ok").touch()
    pods.until_ready("wavering")
    (tmp_path / "ok").unlink()
    pod = pods.until("wavering", lambda p: not status_of(p)["ready"])
    conditions = {c["type"]: c for c in pod["status"]["conditions"]}
    assert conditions["Ready"]["status"] == "False"
    assert conditions["Ready"]["reason"] == "ContainersNotReady"
    assert "main" in conditions["Ready"]["message"]
    assert status_of(pod)["restartCount"] == 0
    assert "Readiness probe failed" in pods.until_event("wavering", "Unhealthy")["message"]


def test_a_container_that_fails_its_liveness_probe_is_restarted(pods):
    script = "[ -e /f/seen ] || { touch /f/seen /f/sick; }; sleep 2; rm -f /f/second; sleep 600"
    probe = exec_probe("[ ! -e /f/sick ] || { rm /f/sick; exit 1; }", failureThreshold=1)
    pods.create("sick", sh(script, livenessProbe=probe, **FILES), terminationGracePeriodSeconds=1, **VOLUME)
    pod = pods.until("sick", lambda p: status_of(p)["restartCount"] == 1 and status_of(p)["ready"])
    assert status_of(pod)["lastState"]["terminated"]["exitCode"] == 143
    assert "liveness" in pods.until_event("sick", "Killing")["message"]


def test_other_probes_wait_for_the_startup_probe(pods, tmp_path):
    pods.create(
        "slow",
        sh(
            "sleep 600",
            startupProbe=exec_probe("cat /f/up", failureThreshold=600),
            livenessProbe=exec_probe("cat /f/up", failureThreshold=1),
            **FILES,
        ),
        **shared(tmp_path),
    )
    pod = pods.until("slow", lambda p: "running" in status_of(p)["state"])
    assert status_of(pod)["started"] is False
    assert status_of(pod)["ready"] is False
    pods.until_event("slow", "Unhealthy")
    (tmp_path / "up").touch()
    ready = pods.until_ready("slow")
    assert status_of(ready)["started"] is True
    assert status_of(ready)["restartCount"] == 0


def test_a_startup_probe_that_never_succeeds_restarts_the_container(pods):
    pods.create(
        "never", sh("sleep 600", startupProbe=exec_probe("false", failureThreshold=2)), terminationGracePeriodSeconds=1
    )
    pods.until("never", lambda p: status_of(p)["restartCount"] >= 1)
    assert "Startup probe failed" in pods.until_event("never", "Unhealthy")["message"]


def test_http_and_tcp_probes_reach_the_pods_own_address_by_port_name(pods):
    serve = {
        "command": ["python", "-m", "http.server", "--bind", "$(POD_IP)", "8080"],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"name": "web", "containerPort": 8080}],
    }
    pods.create(
        "named",
        {
            **serve,
            "startupProbe": {"tcpSocket": {"port": "web"}, "periodSeconds": 1, "failureThreshold": 60},
            "readinessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 1},
        },
    )
    pods.until_ready("named")
    pods.create("lost", {**serve, "readinessProbe": {"httpGet": {"path": "/none", "port": "web"}, "periodSeconds": 1}})
    pods.until("lost", lambda _: any("statuscode: 404" in event["message"] for event in pods.events("lost")))
    assert not status_of(pods.get("lost"))["ready"]


def test_a_grpc_probe_asks_the_health_service(pods):
    script = (
        "import os, sys, time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import grpc\n"
        "def check(request, context): return b'\\x08\\x01' if request == b'\\x0a\\x03abc' else b'\\x08\\x02'\n"
        "class Handler(grpc.GenericRpcHandler):\n"
        "    def service(self, details):\n"
        "        assert details.method == '/grpc.health.v1.Health/Check'\n"
        "        return grpc.unary_unary_rpc_method_handler(check)\n"
        "server = grpc.server(ThreadPoolExecutor(2), handlers=[Handler()])\n"
        "server.add_insecure_port(os.environ['POD_IP'] + ':9000')\n"
        "server.start()\n"
        "time.sleep(600)\n"
    )
    container = {
        "command": ["python", "-c", script],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    }
    good = {"grpc": {"port": 9000, "service": "abc"}, "periodSeconds": 1}
    bad = {"grpc": {"port": 9000, "service": "xyz"}, "periodSeconds": 1}
    pods.create("healthy", {**container, "readinessProbe": good})
    pods.create("unhealthy", {**container, "readinessProbe": bad})
    pods.until_ready("healthy")
    pods.until("unhealthy", lambda _: any("not serving" in event["message"] for event in pods.events("unhealthy")))


def test_a_container_whose_post_start_hook_fails_is_killed_and_restarted(pods):
    hook = {"exec": {"command": ["sh", "-c", "[ -e /f/second ] || { touch /f/second; exit 3; }"]}}
    pods.create(
        "unlucky",
        sh("sleep 600", lifecycle={"postStart": hook}, **FILES),
        terminationGracePeriodSeconds=1,
        **VOLUME,
    )
    pod = pods.until("unlucky", lambda p: status_of(p)["restartCount"] == 1 and status_of(p)["ready"])
    assert status_of(pod)["lastState"]["terminated"]["exitCode"] == 143
    assert "command exited with 3" in pods.until_event("unlucky", "FailedPostStartHook")["message"]
    assert pods.until_event("unlucky", "Killing")["message"] == "FailedPostStartHook"


def test_hooks_run_and_a_late_one_is_cut_off_by_the_grace_period(pods, kubectl):
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo started > /f/hook"]}},
        "preStop": {"exec": {"command": ["sleep", "600"]}},
    }
    pods.create(
        "hooked",
        sh("while ! cat /f/hook; do sleep 0.1; done; sleep 600", lifecycle=hooks, **FILES),
        terminationGracePeriodSeconds=2,
        **VOLUME,
    )
    pods.until("hooked", lambda _: "started" in pods.logs("hooked"))
    kubectl("delete", "pod", "hooked", "-n", pods.namespace, "--timeout=60s")
