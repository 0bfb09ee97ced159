"""Owners of replicas, surges, drivers, pod security, and two operators at once."""

import http.server
import json
import signal
import subprocess
import sys
import threading


def test_a_hand_over_to_an_autoscaler_keeps_the_replicas(world):
    world.make_repository()
    world.make_server(replicas=4)
    world.rolled_out()
    world.kubectl(
        "patch",
        "inferenceserver",
        "server",
        "--type=merge",
        "-p",
        json.dumps({"spec": {"replicas": None, "autoscaling": {"minReplicas": 2, "maxReplicas": 6}}}),
    )
    world.until(lambda: world.get("hpa", "server"))
    world.rolled_out()
    assert world.get("deployment", "server")["spec"]["replicas"] == 4
    fields = [
        entry["manager"]
        for entry in json.loads(world.kubectl("get", "deployment", "server", "-o", "json", "--show-managed-fields"))[
            "metadata"
        ]["managedFields"]
        if "f:replicas" in json.dumps(entry["fieldsV1"].get("f:spec", {}))
    ]
    assert "gravswell-operator" not in fields
    # The autoscaler writes through /scale, and nobody writes against it.
    world.kubectl("scale", "deployment", "server", "--replicas=5")
    world.patch("inferenceserver", "server", {"metadata": {"annotations": {"look": "again"}}})
    world.rolled_out()
    assert world.get("deployment", "server")["spec"]["replicas"] == 5
    # And back: the operator takes them, and the autoscaler goes.
    world.kubectl(
        "patch",
        "inferenceserver",
        "server",
        "--type=merge",
        "-p",
        json.dumps({"spec": {"replicas": 3, "autoscaling": None}}),
    )
    world.until(lambda: world.get("deployment", "server")["spec"]["replicas"] == 3)
    world.until(lambda: world.get("hpa", "server") is None)


def test_an_autoscaled_server_starts_with_its_fewest_replicas(world):
    world.make_repository()
    world.make_server(autoscaling={"minReplicas": 3, "maxReplicas": 6})
    world.until(lambda: (world.get("deployment", "server") or {"spec": {}})["spec"].get("replicas") == 3)


def test_a_roll_out_never_needs_gpus_that_are_not_there(world):
    """Three nodes of eight, all taken: the new pods get the place of the old ones."""
    world.make_pool()
    world.make_repository()
    full = {"nodePoolRef": {"name": world.pool}, "gpus": 8, "replicas": 3}
    world.make_server(**full)
    world.rolled_out()
    strategy = world.get("deployment", "server")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 0, "maxUnavailable": 1}
    before = set(world.pods())
    world.make_server(**full, podTemplate={"env": [{"name": "CHANGED", "value": "yes"}]})
    world.until(lambda: not before & set(world.pods()))
    world.rolled_out()


def test_drivers_are_installed_and_removed(world):
    name = f"{world.pool}-device-plugin"

    def plugin():
        return world.kubectl("get", "ds", name, "-n", "gravswell-drivers", "-o", "name", "--ignore-not-found").strip()

    world.make_pool(drivers={"install": True})
    world.condition("gpunodepool", world.pool, "DriversInstalled", status="True")
    assert plugin()
    world.make_pool(drivers={"install": False})
    world.until(lambda: not plugin())
    world.make_pool(drivers={"install": True})
    world.until(plugin)
    world.kubectl("delete", "gpunodepool", world.pool)
    world.until(lambda: not plugin())


def test_nodes_that_come_and_go_are_counted(world):
    world.make_pool(provider={"type": "Static", "static": {"matchLabels": {"rack": world.namespace}}})
    world.condition("gpunodepool", world.pool, status="False", reason="NoNodes")
    world.kubectl("label", "node", "plain", f"rack={world.namespace}", "--overwrite")
    world.condition("gpunodepool", world.pool, status="True")
    world.kubectl("cordon", "plain")
    world.condition("gpunodepool", world.pool, status="False", reason="NotEnoughNodes")
    world.kubectl("uncordon", "plain")
    world.condition("gpunodepool", world.pool, status="True")
    world.kubectl("label", "node", "plain", "rack-")
    world.condition("gpunodepool", world.pool, status="False", reason="NoNodes")


def test_the_pods_pass_the_restricted_standard(world):
    world.kubectl("label", "namespace", world.namespace, "pod-security.kubernetes.io/enforce=restricted")
    world.make_repository()
    world.make_server()
    world.rolled_out()
    world.until(lambda: world.get("deployment", "models-lister")["status"].get("readyReplicas") == 1)


def test_without_an_operator_nothing_hangs(world, operator):
    world.make_repository()
    world.make_server()
    world.make_model()
    world.rolled_out()
    operator.stop()
    try:
        world.kubectl("delete", "isrv,mdl,mr", "--all", "--timeout=30s")
        world.until(lambda: not world.objects("deployments,services,roles", selector="app.kubernetes.io/managed-by"))
        # And a namespace with our objects in it ends as well.
        world.until(lambda: not world.objects("pods"))  # else its controller waits half of their grace at a time
        world.make_repository()
        world.kubectl("delete", "namespace", world.namespace, "--timeout=60s")
        world.kubectl("create", "namespace", world.namespace)
    finally:
        operator.start()


def test_what_happened_while_it_was_away_is_caught_up(world, operator):
    world.make_repository()
    world.make_server()
    world.rolled_out()
    operator.stop()
    world.kubectl("delete", "service", "server")
    world.make_server(replicas=2)
    operator.start()
    world.until(lambda: world.get("service", "server"))
    world.rolled_out()
    assert len(world.pods()) == 2


def test_one_of_two_operators_is_active_and_the_other_takes_over(world, operator, cluster, tmp_path):
    """One with the chart's account, and one that an administrator starts from elsewhere."""
    second = type(operator)(cluster.kubeconfig, tmp_path / "second.log")
    second.start(wait=False)
    world.until(lambda: second.log.exists() and "holds the lease" in second.log.read_text())
    assert not second.is_ready()
    operator.stop(signal.SIGKILL)  # it gives nothing back
    try:
        world.until(second.is_ready)
        world.make_repository()
        world.make_server()
        world.rolled_out()
    finally:
        assert second.stop() == 0
        operator.start()


def test_definitions_that_are_not_there_are_one_message(operator, tmp_path, cluster):
    """Against an API server that does not know the kinds: no stack trace."""

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b'{"message": "not found"}')

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "c", "user": {"token": "t"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    done = run_operator("--kubeconfig", path, "--no-lease")
    server.shutdown()
    assert done.returncode == 3
    assert "install the definitions first" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_api_server_that_is_not_there_is_one_message(tmp_path):
    done = run_operator("--kubeconfig", tmp_path / "absent")
    assert done.returncode == 3
    assert "there is no kubeconfig" in done.stderr


def run_operator(*arguments):
    command = [sys.executable, "-m", "gravswell", "operator", "run", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
