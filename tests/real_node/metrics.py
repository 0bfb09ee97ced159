"""The real metrics-server on the real node."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gravswell_operator.devcluster import ensure_binaries
from gravswell_operator.devcluster.binaries import METRICS
from gravswell_operator.devcluster.gobuild import module_folder
from gravswell_operator.devcluster.realnode import static_image

from .operating import RealCluster

IMAGE = "gravswell.dev/metrics-server:1"


def ensure_metrics_server() -> tuple[Path, Path]:
    """The program, and the folder of its module's manifests; in the node's network neither could be had."""
    return ensure_binaries(names=["metrics-server"])["metrics-server"], module_folder(METRICS) / "manifests/base"


@contextmanager
def metrics_server(cluster: RealCluster, program: Path, manifests: Path, folder: Path) -> Iterator[None]:
    """By its own manifests, for as long as the block lasts, which begins when it has figures.

    It believes kubelets by the cluster's authority, and looks as often as it can: every ten seconds.
    """
    cluster.node.import_image(static_image(folder / "metrics.tar", IMAGE, program))
    shutil.copytree(manifests, folder / "base", copy_function=shutil.copyfile)
    container, account = "/spec/template/spec/containers/0", "/var/run/secrets/kubernetes.io/serviceaccount"
    arguments = [
        f"--kubelet-certificate-authority={account}/ca.crt",
        "--metric-resolution=10s",
        "--kubelet-request-timeout=5s",
    ]
    changes = [
        *({"op": "add", "path": f"{container}/args/-", "value": argument} for argument in arguments),
        {"op": "replace", "path": f"{container}/image", "value": IMAGE},
        {"op": "replace", "path": f"{container}/readinessProbe/initialDelaySeconds", "value": 1},
    ]
    overlay = {"resources": ["base"], "patches": [{"target": {"kind": "Deployment"}, "patch": json.dumps(changes)}]}
    (folder / "kustomization.yaml").write_text(json.dumps(overlay))
    try:
        cluster.kubectl("apply", "--server-side", "-k", str(folder))
        available = ("wait", "--for=condition=Available", "--timeout=120s", "apiservice/v1beta1.metrics.k8s.io")
        cluster.kubectl(*available, timeout=150)
        yield
    finally:  # an API that nobody serves keeps every namespace from going
        cluster.kubectl("delete", "-k", str(folder), "--ignore-not-found", "--wait=false")
