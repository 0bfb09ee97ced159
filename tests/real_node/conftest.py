"""One real node with its control plane, the project's own images and cluster DNS, for this folder's tests.

It takes root: namespaces, mounts and control groups. The programs are built from Go modules and the images from the
Containerfile, once for each state of the sources; Debian's packages that are missing are installed.

With ``--context`` the tests that need no node of their own run on a cluster of the user's, which has the images.
"""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gravswell.cache import cache_dir
from gravswell.errors import ConflictError, GravswellError
from gravswell_operator.devcluster import ControlPlane, ensure_binaries
from gravswell_operator.devcluster.binaries import CONTROL_PLANE, REAL_NODE
from gravswell_operator.devcluster.gobuild import build
from gravswell_operator.devcluster.kubectl import Kubectl
from gravswell_operator.devcluster.processes import die_with
from gravswell_operator.devcluster.realnode import ADDRESS, Machine, RealNode, node_packages, static_image

from ..quiver.stores.emulators import GCS
from .operating import ROOT, Cluster, RealCluster
from .removal import left

NODE = "gravswell-real"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--context``: leave out what needs a node of its own."""
    if config.getoption("context") is None:
        return
    kept, out = [], []
    for item in items:
        names = getattr(item, "fixturenames", ())
        ours = item.path.is_relative_to(Path(__file__).parent)
        (kept if not ours or ("cluster" in names and "real_cluster" not in names) else out).append(item)
    config.hook.pytest_deselected(items=out)
    items[:] = kept


@pytest.fixture(scope="session")
def images() -> Path:
    """The folder of the images' archives and bills of materials, built by the project's own command."""
    folder = cache_dir() / "images/archives"
    command = [sys.executable, ROOT / "images/build.py", folder]
    subprocess.run(command, check=True, timeout=1800, preexec_fn=die_with(os.getpid()))
    return folder


@pytest.fixture(scope="session")
def real_cluster(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[RealCluster]:
    names = [*CONTROL_PLANE, *REAL_NODE, "helm"]
    binaries = ensure_binaries(names=names)
    busybox = node_packages()
    bucket_server = build(GCS, cancelled=threading.Event(), tick=lambda _: None)
    folder = tmp_path_factory.mktemp("real-node")
    with ExitStack() as stack:
        machine = stack.enter_context(Machine(folder, name=NODE))
        with machine.network():
            plane = ControlPlane(folder / "plane", binaries=binaries, address=ADDRESS, node_name=NODE)
            stack.enter_context(plane)
            stack.callback(machine.kill)  # first, as an API server waits for its clients to go
            node = RealNode(machine, plane, binaries, busybox=busybox)
            node.start()
            cluster = RealCluster(plane, node, binaries["helm"], folder)
            node.import_image(static_image(folder / "coredns.tar", "gravswell.dev/coredns:1", binaries["coredns"]))
            node.import_image(static_image(folder / "bucket.tar", cluster.bucket_image, bucket_server))
            for archive in sorted(images.glob("*.tar")):
                node.import_image(archive)
            cluster.start_dns()
        yield cluster
    shutil.rmtree(node.directory / "containerd")  # gigabytes, which pytest would keep of the last three runs


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The cluster of ``--context``, where nothing of gravswell's may be; else the real node's."""
    context = request.config.getoption("context")
    if context is None:
        real: RealCluster = request.getfixturevalue("real_cluster")
        return real
    try:
        return users_cluster(context, request.config.getoption("images"), tmp_path_factory.mktemp("users-cluster"))
    except GravswellError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


def users_cluster(context: str, registry: str, folder: Path) -> Cluster:
    """The cluster of a context. ConflictError where it has something of gravswell's."""
    binaries = ensure_binaries(names=["kubectl", "helm"])
    bucket = f"docker.io/fsouza/fake-gcs-server:{GCS.module.version.removeprefix('v')}"
    kubectl = Kubectl(binaries["kubectl"], context=context)
    cluster = Cluster(kubectl, binaries["helm"], folder, os.environ, registry=registry, bucket=bucket)
    if found := left(cluster):
        raise ConflictError(
            f"the cluster of the context {context} has {', '.join(found)}: these tests install gravswell and remove "
            "all of it; name a cluster without it"
        )
    return cluster


@pytest.fixture(autouse=True)
def _inside(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test of a cluster does, it does where that can be reached."""
    name = next((name for name in ("real_cluster", "cluster") if name in request.fixturenames), None)
    if name is None:
        yield
        return
    with request.getfixturevalue(name).network():
        yield
