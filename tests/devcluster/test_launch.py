"""What a container's spec becomes on this machine."""

from pathlib import Path
from typing import Any

import pytest

from gravswell_operator.devcluster.node.environment import Sources
from gravswell_operator.devcluster.node.images import GRAVSWELL
from gravswell_operator.devcluster.node.launch import MARK, Launch, Place, prepare


@pytest.fixture
def launch(tmp_path: Path) -> Any:
    def make(**container: Any) -> Launch:
        container = {"name": "main", "command": ["echo"], **container}
        pod = {"metadata": {"name": "p"}, "spec": {"containers": [container]}}
        place = Place(tmp_path / "scratch", "node#uid", None, ("127.0.0.1", "6443"))
        return prepare(GRAVSWELL, Sources(pod, container), {"/data": tmp_path / "volume"}, place)

    return make


def test_only_what_a_kubelet_knows_is_expanded(launch):
    names = ("OWN", "KUBERNETES_SERVICE_HOST", "PATH", "HOME", "HOSTNAME", "GRAVSWELL_SIMULATED_GPUS", "UNKNOWN")
    got = launch(args=[f"$({name})" for name in names], env=[{"name": "OWN", "value": "mine-$(HOME)"}])
    assert got.argv == (
        "echo",
        "mine-$(HOME)",
        "127.0.0.1",
        "$(PATH)",
        "$(HOME)",
        "$(HOSTNAME)",
        "$(GRAVSWELL_SIMULATED_GPUS)",
        "$(UNKNOWN)",
    )
    assert got.environment["OWN"] == "mine-$(HOME)"


def test_what_the_pod_declares_wins_over_what_the_node_brings(launch):
    got = launch(args=["$(HOME)"], env=[{"name": "HOME", "value": "/somewhere"}])
    assert (got.argv[1], got.environment["HOME"]) == ("/somewhere", "/somewhere")
    assert got.environment["HOSTNAME"] == "p"
    assert got.environment[MARK] == "node#uid"


def test_paths_of_mounts_are_rewritten_once(launch, tmp_path):
    got = launch(args=["$(FILE)"], env=[{"name": "FILE", "value": "/data/x"}])
    assert got.argv[1] == got.environment["FILE"] == f"{tmp_path}/volume/x"
