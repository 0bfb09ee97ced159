"""The chart installed by the real helm on the development cluster: the operator's container runs on the local node."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gravswell_operator.devcluster import DevCluster

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/gravswell"
RELEASE, SYSTEM = "gravswell", "gravswell-system"
WAIT = ("--wait", "--timeout", "240s")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    with DevCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="module")
def run(helm, cluster):
    """``run(*arguments)``: helm against the cluster; its output, or a failed test with the operator's log."""

    def call(*arguments):
        done = helm("--kubeconfig", str(cluster.kubeconfig), "--namespace", SYSTEM, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr + operator_log(cluster)
        return done.stdout

    return call


def operator_log(cluster: DevCluster) -> str:
    """What every operator of this cluster has written."""
    return "".join(path.read_text() for path in sorted(cluster.pods.glob(f"{SYSTEM}/*/operator*.log")))


def operators(cluster: DevCluster) -> list[dict]:
    selector = "app.kubernetes.io/component=operator"
    pods = json.loads(cluster.kubectl("get", "pods", "-n", SYSTEM, "-l", selector, "-o", "json"))["items"]
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def ready(pod: dict) -> bool:
    return {"Ready": "True"}.items() <= {c["type"]: c["status"] for c in pod["status"]["conditions"]}.items()


def test_install_work_upgrade_uninstall(run, cluster):
    run("install", RELEASE, str(CHART), "--create-namespace", *WAIT)
    (first,) = operators(cluster)
    assert ready(first)
    assert first["spec"]["nodeName"] == "gravswell-local"

    # It works, with the rights of the chart and no others.
    cluster.kubectl("apply", "-f", str(ROOT / "examples/gpunodepool.yaml"))
    cluster.kubectl("wait", "--for=condition=Ready", "gnp/simulated", "--timeout=60s")
    assert json.loads(cluster.kubectl("get", "gnp/simulated", "-o", "json"))["status"]["allocatableGPUs"] == 8
    lease = json.loads(cluster.kubectl("get", "leases", "-n", SYSTEM, "-o", "json"))["items"]
    assert [bool(item["spec"]["holderIdentity"]) for item in lease] == [True]

    run("upgrade", RELEASE, str(CHART), "--set", "log.level=debug", *WAIT)
    (second,) = operators(cluster)
    assert second["metadata"]["name"] != first["metadata"]["name"]
    assert ready(second)
    cluster.kubectl("patch", "gnp/simulated", "--type=merge", "-p", '{"spec": {"size": 2}}')
    cluster.kubectl("wait", "--for=condition=Ready=False", "gnp/simulated", "--timeout=60s")

    assert "forbidden" not in operator_log(cluster).lower()
    run("uninstall", RELEASE, *WAIT)
    deadline = time.monotonic() + 60
    while operators(cluster) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not operators(cluster)

    # What users have stays, and goes when they say so, without an operator.
    assert "gravswell.dev" in cluster.kubectl("get", "crd", "-o", "name")
    assert cluster.kubectl("get", "gnp/simulated", "-o", "name")
    cluster.kubectl("delete", "gnp/simulated", "--timeout=30s")


def test_definitions_that_come_after_the_operator(run, cluster):
    """Without them it cannot work, says so, and is restarted until it can."""
    cluster.kubectl("delete", "crd", "-l", "app.kubernetes.io/part-of=gravswell")
    run("install", RELEASE, str(CHART), "--set", "crds.install=false", "--create-namespace")
    deadline = time.monotonic() + 120
    while "install the definitions first" not in operator_log(cluster) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert "install the definitions first" in operator_log(cluster)
    cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    cluster.kubectl("rollout", "status", f"deployment/{RELEASE}", "-n", SYSTEM, "--timeout=180s", timeout=200)
    run("uninstall", RELEASE)
