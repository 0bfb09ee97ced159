"""A network that is cut in two for a server with ranks, and a client in the cluster that puts the answers together."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from gravswell.partitions import partition
from gravswell_operator import names

from ..partitions.graphs import mlp
from .operating import NAMESPACE, Cluster

ENTRY, SERVER, RANKS = "big-2", "big", 2
"""As ``examples/ranks`` has them."""
PODS = [names.rank_pod(SERVER, rank) for rank in range(RANKS)]
HEADLESS = names.headless(SERVER)
START_SECONDS = 300

NETWORK = mlp(16, 32, 8)
ROWS = np.linspace(-1, 1, 48, dtype=np.float32).reshape(3, 16)

ASK = """
import json, sys
import numpy as np
from gravswell.partitions import RankedClient

rows, *servers = sys.argv[1:]
with RankedClient("/files", servers, retry_for=60) as client:
    print(json.dumps(client.infer({"x": np.array(json.loads(rows), np.float32)})["y"].tolist()))
"""


def publish(url: str, folder: Path) -> None:
    """Cut the network by rows, publish its parts, and keep in ``folder`` what their client needs."""
    with partition(NETWORK, RANKS, "row", name=ENTRY) as parts:
        parts.save(folder)
        parts.publish(url)


def answers(cluster: Cluster, name: str, folder: Path) -> bool:
    """Whether a pod ``name`` that asks each rank by the address in the status gets what the network itself answers."""
    servers = [rank["address"] for rank in cluster.get("inferenceserver", SERVER)["status"]["ranks"]]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    command = ("python", "-c", ASK, json.dumps(ROWS.tolist()), *servers)
    found = json.loads(cluster.run_in_pod(name, cluster.image, *command, files=files))
    cluster.kubectl("delete", "pod", name, "--wait=false")
    session = ort.InferenceSession(NETWORK.SerializeToString(), providers=["CPUExecutionProvider"])
    return bool(np.allclose(found, session.run(["y"], {"x": ROWS})[0], atol=1e-5))


def moments(cluster: Cluster, type_: str) -> dict[str, str] | None:
    """Since when a condition holds of each rank's pod, by the pod's name; None unless it holds of all."""
    pods: list[dict[str, Any]] = cluster.kubectl.items("pods", "-n", NAMESPACE, "-l", f"{names.LABEL_SERVER}={SERVER}")
    found = {
        pod["metadata"]["name"]: condition["lastTransitionTime"]
        for pod in pods
        for condition in pod["status"].get("conditions", ())
        if (condition["type"], condition["status"]) == (type_, "True")
    }
    return found if sorted(found) == PODS else None


def until_in_service(cluster: Cluster) -> None:
    """Wait until all ranks take traffic."""
    cluster.until(lambda: moments(cluster, "Ready"), START_SECONDS)
    cluster.until_condition("inferenceserver", SERVER, "RanksReady", status="True")
    cluster.until(lambda: cluster.endpoints(HEADLESS) == {*PODS})
