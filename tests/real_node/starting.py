"""The real node with its control plane, the project's own images and cluster DNS: for the tests, and for benchmarks."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gravswell.cache import cache_dir
from gravswell_operator.devcluster import ControlPlane, ensure_binaries
from gravswell_operator.devcluster.binaries import CONTROL_PLANE, REAL_NODE
from gravswell_operator.devcluster.gobuild import build
from gravswell_operator.devcluster.processes import die_with
from gravswell_operator.devcluster.realnode import ADDRESS, Machine, RealNode, node_packages, static_image

from ..quiver.stores.emulators import GCS
from .operating import BUCKET_IMAGE, ROOT, RealCluster

NODE = "gravswell-real"


def build_images() -> Path:
    """The folder of the images' archives and bills of materials, built by the project's own command."""
    folder = cache_dir() / "images/archives"
    command = [sys.executable, ROOT / "images/build.py", folder]
    subprocess.run(command, check=True, timeout=1800, preexec_fn=die_with(os.getpid()))
    return folder


@contextmanager
def started(folder: Path, images: Path) -> Iterator[RealCluster]:
    """The cluster, for as long as the block lasts; it leaves logs and the control plane's data in ``folder``."""
    binaries = ensure_binaries(names=[*CONTROL_PLANE, *REAL_NODE, "helm"])
    busybox = node_packages()
    bucket_server = build(GCS, cancelled=threading.Event(), tick=lambda _: None)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder / "node/containerd", ignore_errors=True)  # gigabytes
        machine = stack.enter_context(Machine(folder, name=NODE))
        with machine.network():
            plane = ControlPlane(folder / "plane", binaries=binaries, address=ADDRESS, node_name=NODE)
            stack.enter_context(plane)
            stack.callback(machine.kill)  # first, as an API server waits for its clients to go
            node = RealNode(machine, plane, binaries, busybox=busybox)
            node.start()
            cluster = RealCluster(plane, node, binaries["helm"], folder)
            node.import_image(static_image(folder / "coredns.tar", "gravswell.dev/coredns:1", binaries["coredns"]))
            node.import_image(static_image(folder / "bucket.tar", BUCKET_IMAGE, bucket_server))
            for archive in sorted(images.glob("*.tar")):
                node.import_image(archive)
            cluster.start_dns()
        yield cluster
