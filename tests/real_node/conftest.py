"""One real node with its control plane, the project's own images and cluster DNS, for this folder's tests.

It takes root: namespaces, mounts and control groups. The programs are built from Go modules and the images from the
Containerfile, once for each state of the sources; Debian's packages that are missing are installed.
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
from gravswell_operator.devcluster import ControlPlane, ensure_binaries
from gravswell_operator.devcluster.binaries import CONTROL_PLANE, REAL_NODE
from gravswell_operator.devcluster.gobuild import build
from gravswell_operator.devcluster.processes import die_with
from gravswell_operator.devcluster.realnode import ADDRESS, Machine, RealNode, node_packages, static_image

from ..quiver.stores.emulators import GCS
from .operating import ROOT, RealCluster

NODE = "gravswell-real"


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
            node.import_image(static_image(folder / "bucket.tar", "gravswell.dev/bucket:1", bucket_server))
            for archive in sorted(images.glob("*.tar")):
                node.import_image(archive)
            cluster.start_dns()
        yield cluster
    shutil.rmtree(node.directory / "containerd")  # gigabytes, which pytest would keep of the last three runs


@pytest.fixture(autouse=True)
def _inside(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test of the cluster does, it does in the node's network: nothing else reaches the cluster."""
    if "real_cluster" not in request.fixturenames:
        yield
        return
    with request.getfixturevalue("real_cluster").node.machine.network():
        yield
