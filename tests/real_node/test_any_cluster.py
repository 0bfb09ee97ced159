"""The whole path on a cluster that is known by a context of a kubeconfig alone: here the real node's."""

import os
import subprocess
import sys

import pytest

from gravswell_operator.devcluster.kubeconfig import CONTEXT

from .operating import ROOT, RealCluster
from .removal import left

WHOLE_PATH = "tests/real_node/test_whole_path.py"


def run(cluster: RealCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest with ``--context``, as the cluster's user would run it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", WHOLE_PATH, "--context", *arguments]
    environment = {**os.environ, "KUBECONFIG": str(cluster.plane.kubeconfig)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=500)


def test_it_is_installed_there_serves_and_is_removed(real_cluster):
    done = run(real_cluster, CONTEXT, "-k", "installs or by_its_name or port_of_the_nodes or removing")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    assert left(real_cluster) == []


def test_a_cluster_that_has_something_of_ours_is_left_alone(real_cluster):
    real_cluster.kubectl("create", "namespace", "gravswell-drivers")
    try:
        done = run(real_cluster, CONTEXT)
        assert done.returncode == pytest.ExitCode.USAGE_ERROR
        assert f"the cluster of the context {CONTEXT} has namespace/gravswell-drivers: " in done.stdout + done.stderr
        assert left(real_cluster) == ["namespace/gravswell-drivers"]
    finally:  # or no other module could install anything
        real_cluster.kubectl("delete", "namespace", "gravswell-drivers")


def test_a_context_that_is_not_there_is_named(real_cluster):
    done = run(real_cluster, "elsewhere")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "cannot locate context elsewhere" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
