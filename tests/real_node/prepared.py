"""What tests and benchmarks have on a cluster before they begin: the chart, a bucket's server, a folder as a volume."""

import json
import os
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

from gravswell_operator.demo.reach import forward

from .operating import BUCKET_IMAGE, NAMESPACE, ROOT, Cluster
from .removal import STORAGE, SYSTEM, VOLUME

CHART = ROOT / "charts/gravswell"
CLAIM = "models"


def install(cluster: Cluster, chart: Path = CHART, values: Mapping[str, str] = MappingProxyType({})) -> None:
    """Install the chart with its own values but for ``values`` and for the images: of Triton, the one for CPUs."""
    for name in (SYSTEM, STORAGE, NAMESPACE):
        cluster.namespace(name)
    cluster.helm(
        "install", "gravswell", str(chart), "-n", SYSTEM, "--wait", "--timeout=180s", *images(cluster), *sets(values)
    )


def images(cluster: Cluster) -> list[str]:
    """The values that say where the cluster has the images."""
    return sets({"image.repository": cluster.image.rpartition(":")[0], "triton.repository": cluster.triton_repository})


def sets(values: Mapping[str, str]) -> list[str]:
    """Values as helm takes them."""
    return [f"--set={key}={value}" for key, value in values.items()]


def make_bucket(cluster: Cluster, name: str) -> dict[str, Any]:
    """Start the server of ``gs://`` and make a bucket there; return the spec of a repository in it, and its Secret."""
    manifests = Path(__file__).with_name("bucket.yaml").read_text().replace("IMAGE", BUCKET_IMAGE)
    cluster.kubectl("apply", "--server-side", "-n", STORAGE, "-f", "-", stdin=manifests)
    cluster.kubectl("-n", STORAGE, "rollout", "status", "deployment/bucket", "--timeout=120s", timeout=150)
    body, headers = json.dumps({"name": name}).encode(), {"Content-Type": "application/json"}
    with bucket_server(cluster) as address:
        urllib.request.urlopen(urllib.request.Request(f"{address}/storage/v1/b", body, headers), timeout=30).close()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "models-bucket", "namespace": NAMESPACE}}
    cluster.apply({**secret, "stringData": {"endpoint": f"http://bucket.{STORAGE}.svc"}})
    return {"url": f"gs://{name}/models", "credentialsSecretRef": {"name": "models-bucket"}, "syncInterval": "5s"}


@contextmanager
def bucket_server(cluster: Cluster) -> Iterator[str]:
    """The bucket's server, as this process reaches it: through kubectl, for it may be outside of the cluster."""
    with ExitStack() as stack:
        address = f"http://{forward(cluster.kubectl, stack, 'service/bucket', 80, namespace=STORAGE)}"
        with mock.patch.dict(os.environ, STORAGE_EMULATOR_HOST=address):
            yield address


def make_volume(cluster: Cluster, folder: Path) -> dict[str, Any]:
    """Make a folder of the node a volume; return the spec of a repository in its subfolder ``repository``."""
    same = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    (folder / "repository").mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # for the user of agents and listers
    volume = {
        **same,
        "capacity": {"storage": "10Gi"},
        "claimRef": {"namespace": NAMESPACE, "name": CLAIM},
        "hostPath": {"path": str(folder), "type": "Directory"},
        "persistentVolumeReclaimPolicy": "Retain",
    }
    claim = {**same, "volumeName": VOLUME, "resources": {"requests": {"storage": "10Gi"}}}
    cluster.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": VOLUME}, "spec": volume},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM, "namespace": NAMESPACE},
            "spec": claim,
        },
    )
    return {"url": f"pvc://{CLAIM}/repository", "syncInterval": "5s"}
