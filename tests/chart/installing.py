"""The chart installed by helm on a development cluster, for the modules that import these fixtures."""

from collections.abc import Iterator

import pytest

from gravswell_operator.devcluster import DevCluster

RELEASE, SYSTEM = "gravswell", "gravswell-system"


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
