"""The chart installed by the real helm on the development cluster: the operator's container runs on the local node."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gravswell_operator.devcluster import DevCluster

from .installing import RELEASE, SYSTEM, cluster, operator_log, run

__all__ = ["cluster", "run"]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/gravswell"
WAIT = ("--wait", "--timeout", "240s")


def about(cluster: DevCluster) -> dict[str, str]:
    """The line of the operator's log, as the chart has it written, that a server's Service was made."""
    lines = [json.loads(line) for line in operator_log(cluster).splitlines()]
    return next(line for line in lines if line["message"].endswith("creating Service default/digits"))


def operators(cluster: DevCluster) -> list[dict]:
    selector = "app.kubernetes.io/component=operator"
    pods = json.loads(cluster.kubectl("get", "pods", "-n", SYSTEM, "-l", selector, "-o", "json"))["items"]
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def ready(pod: dict) -> bool:
    return {"Ready": "True"}.items() <= {c["type"]: c["status"] for c in pod["status"]["conditions"]}.items()


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until ``holds`` does; a minute or two is for a machine that does much else."""
    deadline = time.monotonic() + 120
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert holds()


CHILDREN = {
    "ConfigMap",
    "DaemonSet",
    "Deployment",
    "HorizontalPodAutoscaler",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Role",
    "RoleBinding",
    "Service",
    "ServiceAccount",
}


def children(cluster: DevCluster) -> set[str]:
    """The kinds of what the operator has made."""
    plurals = ",".join(re.sub("ys$", "ies", f"{kind.lower()}s") for kind in sorted(CHILDREN))
    listed = cluster.kubectl("get", plurals, "-A", "-l", "app.kubernetes.io/managed-by=gravswell", "-o", "json")
    return {item["kind"] for item in json.loads(listed)["items"]}


def everything(url: str) -> str:
    """Manifests that need a child of every kind."""
    pool = yaml.safe_load((ROOT / "examples/gpunodepool.yaml").read_text())
    pool["spec"]["drivers"] = {"install": True}
    repository = yaml.safe_load((ROOT / "examples/modelrepository.yaml").read_text())
    repository["spec"]["url"] = url
    server = yaml.safe_load((ROOT / "examples/inferenceserver.yaml").read_text())
    del server["spec"]["replicas"]
    server["spec"]["autoscaling"] = {"minReplicas": 1, "maxReplicas": 2}
    return yaml.safe_dump_all([pool, repository, server])


@pytest.mark.timeout(1800)  # the bounds of its waits add up to as much
def test_install_work_upgrade_uninstall(run, cluster, tmp_path):
    run("install", RELEASE, str(CHART), "--create-namespace", *WAIT)
    (first,) = operators(cluster)
    assert ready(first)
    assert first["spec"]["nodeName"] == "gravswell-local"

    # It works, with the rights of the chart and no others.
    cluster.kubectl("apply", "-f", str(ROOT / "examples/gpunodepool.yaml"))
    cluster.kubectl("wait", "--for=condition=Ready", "gnp/simulated", "--timeout=60s")
    assert json.loads(cluster.kubectl("get", "gnp/simulated", "-o", "json"))["status"]["allocatableGPUs"] == 8
    lease = json.loads(cluster.kubectl("get", "leases", "-n", "kube-system", "-o", "json"))["items"]
    held = {item["metadata"]["name"]: item["spec"]["holderIdentity"] for item in lease}
    assert held["gravswell-operator"]

    # helm test: run by the image itself, with rights that go with it.
    assert "Phase:          Succeeded" in run("test", RELEASE, "--timeout", "240s")
    assert "gravswell-check" not in cluster.kubectl("get", "clusterrole", "-o", "name")

    run("upgrade", RELEASE, str(CHART), "--set", "log.level=debug,networkPolicy.servers=true", *WAIT)
    (second,) = operators(cluster)
    assert second["metadata"]["name"] != first["metadata"]["name"]
    assert ready(second)
    cluster.kubectl("patch", "gnp/simulated", "--type=merge", "-p", '{"spec": {"size": 2}}')
    cluster.kubectl("wait", "--for=condition=Ready=False", "gnp/simulated", "--timeout=60s")

    # Every kind of child, under the chart's role: none is forbidden, and all outlive the operator.
    cluster.kubectl("apply", "-f", "-", stdin=everything(tmp_path.as_uri()))
    eventually(lambda: children(cluster) >= CHILDREN)
    assert "forbidden" not in operator_log(cluster).lower()
    assert {"kind": "InferenceServer", "namespace": "default", "name": "digits"}.items() <= about(cluster).items()
    before = children(cluster)
    run("uninstall", RELEASE, *WAIT)
    eventually(lambda: not operators(cluster))

    # What users have stays, and goes when they say so, without an operator.
    assert "gravswell.dev" in cluster.kubectl("get", "crd", "-o", "name")
    assert cluster.kubectl("get", "gnp/simulated", "-o", "name")
    assert children(cluster) == before
    cluster.kubectl("delete", "gravswell", "--all", "-n", "default", "--timeout=30s")
    eventually(lambda: not children(cluster))


def test_definitions_that_come_after_the_operator(run, cluster):
    """Without them it cannot work, says so, and is restarted until it can."""
    cluster.kubectl("delete", "crd", "-l", "app.kubernetes.io/part-of=gravswell")
    run("install", RELEASE, str(CHART), "--set", "crds.install=false", "--create-namespace")
    eventually(lambda: "install the definitions first" in operator_log(cluster))
    cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    cluster.kubectl("rollout", "status", f"deployment/{RELEASE}", "-n", SYSTEM, "--timeout=180s", timeout=200)
    run("uninstall", RELEASE)
