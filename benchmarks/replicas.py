"""Requests per second of 1, 2, 4 and 8 replicas of a model that waits, on the development cluster.

::

    python benchmarks/replicas.py --replicas 1 2 4 8 --delay 0.2

The model takes as long as ``--delay`` says for each request and computes nothing, as a model on a GPU does that has the
CPUs for nothing but waiting: so replicas of one machine can show what more of them bring. The operator, the agents and
Triton are real, and so are the clients: one that balances over all replicas (gravswell's), and as many plain ones
(Triton's, over gRPC) as there are replicas, each at the replica to which a Service would have brought it. In proportion
is a rate that is as many times that of the first number as there are more replicas: 1.00 in the last columns. The bar
is 0.9 for either kind of client: one in ten may go to what shares the machine's cores. It ends with 1 where that is
missed.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bars import at_least, hold
from rich.table import Table
from tritonclient.grpc import InferenceServerClient, InferInput

from gravswell.cli.output import Output, emit
from gravswell.serving import Client
from gravswell_operator.devcluster import DevCluster
from gravswell_operator.devcluster.processes import Child

ROOT = Path(__file__).parents[1]
API = "gravswell.dev/v1alpha1"
ENTRY, SERVER, WIDTH = "delayed", "server", 4
IN_FLIGHT = 2
"""Requests that each replica has: one that it computes, and one that waits its turn."""
READY_SECONDS = 600.0
IN_PROPORTION = 0.9
"""The bar."""

_CONFIG = f"""
name: "{ENTRY}"
backend: "python"
input {{ name: "x" data_type: TYPE_FP32 dims: [ -1, {WIDTH} ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ -1, {WIDTH} ] }}
instance_group {{ count: 1 kind: KIND_CPU }}
"""
_MODEL = """
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            time.sleep({seconds})
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]))
        return responses
"""

Result = dict[str, Any]


def write_model(repository: Path, seconds: float) -> None:
    """Put the model into the repository, without a manifest: it is no export, so its Model turns verification off."""
    version = repository / ENTRY / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(_CONFIG)
    (version / "model.py").write_text(_MODEL.format(seconds=seconds))


def balanced(addresses: Sequence[str], calls: int) -> float:
    """Requests per second of one client that balances: ``calls`` for each of the HTTP ``addresses``, on average."""
    rows = np.zeros((calls * len(addresses), WIDTH), np.float32)
    with Client(list(addresses), in_flight=IN_FLIGHT) as client:
        client.infer(ENTRY, {"x": rows[: len(addresses)]}, batch_size=1)
        began = time.perf_counter()
        client.infer(ENTRY, {"x": rows}, batch_size=1)
        return len(rows) / (time.perf_counter() - began)


def plain(addresses: Sequence[str], calls: int) -> float:
    """Requests per second of plain clients, one after the other for each: as many at each of the gRPC ``addresses``."""
    failures: list[Exception] = []

    def ask(address: str) -> None:
        asked = InferInput("x", [1, WIDTH], "FP32").set_data_from_numpy(np.zeros((1, WIDTH), np.float32))
        try:
            with InferenceServerClient(address, channel_args=[("grpc.enable_http_proxy", 0)]) as client:
                for _ in range(calls):
                    client.infer(ENTRY, [asked])
        except Exception as error:  # noqa: BLE001  raised in the caller's thread
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(a,)) for a in addresses for _ in range(IN_FLIGHT)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return calls * len(threads) / (time.perf_counter() - began)


def measure(folder: Path, counts: Sequence[int], delay: float, calls: int) -> list[Result]:
    """The rates of each number of replicas."""
    repository = folder / "repository"
    write_model(repository, delay)
    rows: list[Result] = []
    with DevCluster(folder / "cluster") as cluster:
        _prepare(cluster, repository)
        arguments = ["operator", "run", "--kubeconfig", str(cluster.kubeconfig), "--listen", "127.0.0.1:0"]
        operator = Child("operator", [sys.executable, "-m", "gravswell", *arguments], log=folder / "operator.log")
        try:
            for count in counts:
                hosts = _scale(cluster, count)
                rates = {
                    "balanced": balanced([f"{host}:8000" for host in hosts], calls),
                    "plain": plain([f"{host}:8001" for host in hosts], calls),
                }
                rows.append({"replicas": count, **rates})
        finally:
            operator.process.terminate()
            operator.process.wait(timeout=60)
    for row in rows:
        for kind in ("balanced", "plain"):
            row[f"{kind}InProportion"] = row[kind] / row["replicas"] / (rows[0][kind] / rows[0]["replicas"])
    return rows


def _prepare(cluster: DevCluster, repository: Path) -> None:
    cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
    specs = {
        ("ModelRepository", "models"): {"url": repository.as_uri(), "syncInterval": "5s"},
        # So little CPU that as many replicas fit as are asked for: they wait.
        ("InferenceServer", SERVER): {
            "repositoryRef": {"name": "models"},
            "tag": "24.08",
            "vcpus": "10m",
            "memory": "256Mi",
            "modelStorage": "100Mi",
            "replicas": 1,
        },
        ("Model", ENTRY): {"serverRef": {"name": SERVER}, "entry": ENTRY, "verification": "None"},
    }
    items = [
        {"apiVersion": API, "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec}
        for (kind, name), spec in specs.items()
    ]
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


def _scale(cluster: DevCluster, count: int) -> list[str]:
    """The addresses of the replicas, once as many as asked for are ready and no other is left."""
    cluster.kubectl("scale", "inferenceserver", SERVER, f"--replicas={count}")
    until = time.monotonic() + READY_SECONDS
    while True:
        listed = cluster.kubectl("get", "pods", "-l", f"gravswell.dev/server={SERVER}", "-o", "json")
        pods = json.loads(listed)["items"]
        conditions = [{c["type"]: c["status"] for c in pod["status"].get("conditions", ())} for pod in pods]
        if len(pods) == count and all(found.get("Ready") == "True" for found in conditions):
            return [pod["status"]["podIP"] for pod in pods]
        if time.monotonic() > until:
            raise TimeoutError(f"{count} replicas are not ready within {READY_SECONDS:.0f} s")
        time.sleep(1)


def missed(rows: Sequence[Result]) -> list[str]:
    """The numbers of replicas whose rate is not in proportion, by the kind of clients."""
    return [
        line
        for row in rows
        for kind in ("balanced", "plain")
        for line in at_least(
            f"{row['replicas']} replicas, {kind}: in proportion", row[f"{kind}InProportion"], IN_PROPORTION
        )
    ]


def table(rows: Sequence[Result], delay: float) -> Table:
    """The result for a person."""
    made = Table(title=f"requests/s of a model that waits {delay:g} s")
    for column in ("replicas", "balanced", "plain", "balanced: in proportion", "plain: in proportion"):
        made.add_column(column, justify="right")
    for row in rows:
        shares = (f"{row[f'{kind}InProportion']:.2f}" for kind in ("balanced", "plain"))
        made.add_row(str(row["replicas"]), f"{row['balanced']:.1f}", f"{row['plain']:.1f}", *shares)
    return made


def main() -> None:
    """Measure and print; exits with 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--delay", type=float, default=0.2, help="seconds that a request takes")
    parser.add_argument("--calls", type=int, default=50, help="requests for each replica")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options.replicas, options.delay, options.calls)
    emit(Output(options.output), rows, lambda: table(rows, options.delay))
    hold(missed(rows))


if __name__ == "__main__":
    main()
