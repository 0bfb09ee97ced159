"""From ``kubectl apply`` to the first answer through the Service, stage by stage, on a real kubelet. As root.

::

    python benchmarks/cold_start.py
    python benchmarks/cold_start.py --image warm --repository bucket --rounds 5 --output json

The operator runs, and then a ModelRepository, an InferenceServer of one replica and a Model are applied at once, of an
entry of ``--megabytes`` (100) that is proved by its golden tensors, as every entry is. Whoever asks the Service on and
on gets the first answer so many seconds after the command began. Where that time went is what
``InferenceServer.status.startup`` says, from the pod's creation until the replica was ready; ``around`` is the rest:
kubectl, the repository's lister, the operator and the Service. When the pod was created is known to the second, so
``around`` may have up to one less than is true, and a stage as much more.

``volume`` is a folder of the node, ``bucket`` a server of ``gs://`` in the cluster; the files are in the page cache.
``warm``: the node has Triton's image. ``cold``: it was taken from the node, which pulls it from a registry on the same
machine: what a network takes comes on top. Gravswell's own image is there in any case, for the operator runs on that
node, and so are the layers that both images begin with. The image of Triton is the embedded one (470 MB, for CPUs).

The bar: the slowest start with a warm image takes at most 20 s.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import onnx
from bars import at_most, hold
from onnx import TensorProto, helper, numpy_helper
from rich.table import Table

from gravswell import quiver as qv
from gravswell.cli.output import Output, emit
from gravswell.kube import credentials
from gravswell.kube.client import Client
from gravswell.kube.errors import ApiNotFoundError
from gravswell.kube.resources import Resource
from gravswell_operator.api.startup import Stage
from gravswell_operator.devcluster.realnode import Registry

ROOT = Path(__file__).parents[1]
API = "gravswell.dev/v1alpha1"
BAR_SECONDS = 20.0
WAIT_SECONDS = 300.0
POLL_SECONDS = 0.05
ENTRY, SERVER, WIDTH = "perceptron", "server", 1024
OURS = f"isrv/{SERVER}", f"mdl/{ENTRY}", "mr/models"
TRITON = "ghcr.io/gravswell/tritonserver-cpu:24.10-py3"
IMAGES, REPOSITORIES = ("warm", "cold"), ("volume", "bucket")
STAGES = tuple(stage.value for stage in Stage if stage is not Stage.READY)
AROUND = "around"
SERVICES = Resource("Service", "services")

Row = dict[str, Any]


def perceptron(megabytes: float) -> onnx.ModelProto:
    """Layers of 1,024 by 1,024 random weights, 4.2 MB each, as many as come nearest to that size."""
    size = WIDTH * WIDTH * 4
    layers = max(1, round(megabytes * 1e6 / size))
    random = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for k in range(layers):
        weight = random.standard_normal((WIDTH, WIDTH), np.float32) / np.float32(WIDTH**0.5)
        weights.append(numpy_helper.from_array(weight, f"w{k}"))
        result = "y" if k == layers - 1 else f"h{k}"
        nodes += [helper.make_node("MatMul", [name, f"w{k}"], [f"m{k}"]), helper.make_node("Tanh", [f"m{k}"], [result])]
        name = result
    tensors = [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["n", WIDTH]) for tensor in ("x", "y")]
    graph = helper.make_graph(nodes, ENTRY, tensors[:1], tensors[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def publish(url: str, megabytes: float) -> None:
    """Publish the model as version 1."""
    entry = qv.ModelRepository(url).add(ENTRY, platform=qv.Platform.ONNX)
    entry.export_version(perceptron(megabytes))


def account(startup: Mapping[str, Any], seconds: float) -> dict[str, float]:
    """Seconds of each stage of a start that took ``seconds`` in all, by what the status says of it, and ``around``."""
    told = {stage["name"]: float(stage["seconds"]) for stage in startup["stages"]}
    stages = {stage: told.get(stage, 0.0) for stage in STAGES}
    return {**stages, AROUND: round(max(seconds - sum(stages.values()), 0.0), 1)}


def summary(image: str, repository: str, starts: Sequence[Row]) -> Row:
    """What several starts of the same kind took: the median one's stages, and whether the slowest keeps to the bar."""
    inner = sorted(starts, key=lambda start: float(start["seconds"]))[(len(starts) - 1) // 2]
    slowest = max(start["seconds"] for start in starts)
    row: Row = {
        "image": image,
        "repository": repository,
        "seconds": statistics.median_low([start["seconds"] for start in starts]),
        "slowest": slowest,
        "stages": inner["stages"],
        "pulledMegabytes": inner["pulledMegabytes"],
        "starts": [start["seconds"] for start in starts],
    }
    if image == "warm":
        row["met"] = slowest <= BAR_SECONDS
    return row


def missed(rows: Sequence[Row]) -> list[str]:
    """A line for each kind of start with a warm image whose slowest misses the bar."""
    warm = [row for row in rows if "met" in row]
    what = "the slowest start with a warm image, its model in a {}"
    return [line for row in warm for line in at_most(what.format(row["repository"]), row["slowest"], BAR_SECONDS, " s")]


def table(rows: Sequence[Row], megabytes: float) -> Table:
    """The result for a person."""
    made = Table(title=f"seconds from kubectl apply to the first answer, a model of {megabytes:g} MB")
    made.add_column("image, repository")
    for row in rows:
        made.add_column(f"{row['image']}, {row['repository']}", justify="right")
    lines = {"median": [row["seconds"] for row in rows], "slowest": [row["slowest"] for row in rows]}
    lines |= {stage: [row["stages"][stage] for row in rows] for stage in (*STAGES, AROUND)}
    for name, figures in lines.items():
        made.add_row(name, *(f"{figure:.1f}" for figure in figures))
    warm = [row["met"] for row in rows if "met" in row]
    if warm:
        made.caption = f"at most {BAR_SECONDS:g} s with a warm image: {'met' if all(warm) else 'missed'}"
    return made


class Starts:
    """Starts of one server after another, on a cluster that runs the operator."""

    def __init__(self, cluster: Any, namespace: str, registry: Registry) -> None:
        self._cluster, self._namespace, self._registry = cluster, namespace, registry
        values = np.zeros(WIDTH, np.float32).tolist()
        given = {"name": "x", "shape": [1, WIDTH], "datatype": "FP32", "data": values}
        self._question = json.dumps({"inputs": [given]}).encode()

    def one(self, image: str, repository: Mapping[str, Any]) -> Row:
        """Apply everything, wait for the first answer, read the account of the start, and take everything away."""
        if image == "cold":
            self._cluster.until(lambda: not self._cluster.node.is_used(TRITON))
            self._cluster.node.remove_image(TRITON)
        sent, began = self._registry.sent, time.monotonic()
        self._cluster.apply(*self._objects(repository))
        seconds = round(asyncio.run(self._first_answer()) - began, 1)
        pulled = self._registry.sent - sent
        if (image == "cold") != (pulled > self._registry.size / 2):  # some layers the node has of the other image
            raise RuntimeError(f"{pulled} bytes of Triton's image were pulled, and it was to be {image}")
        startup = self._cluster.until(self._told)
        self._cluster.kubectl("delete", "-n", self._namespace, *OURS, "--timeout=60s")
        self._cluster.until(lambda: not self._pods())
        return {
            "seconds": seconds,
            "stages": account(startup, seconds),
            "pulledMegabytes": round(pulled / 1e6, 1),
        }

    def _objects(self, repository: Mapping[str, Any]) -> list[dict[str, Any]]:
        specs: dict[tuple[str, str], Mapping[str, Any]] = {
            ("ModelRepository", "models"): repository,
            ("InferenceServer", SERVER): {
                "repositoryRef": {"name": "models"},
                "tag": "24.10",
                "vcpus": "500m",
                "memory": "2Gi",
                "modelStorage": "2Gi",
                "replicas": 1,
            },
            ("Model", ENTRY): {"serverRef": {"name": SERVER}, "entry": ENTRY, "version": "latest"},
        }
        return [
            {
                "apiVersion": API,
                "kind": kind,
                "metadata": {"name": name, "namespace": self._namespace},
                "spec": dict(spec),
            }
            for (kind, name), spec in specs.items()
        ]

    async def _first_answer(self) -> float:
        """When it came, on the monotonic clock."""
        end = time.monotonic() + WAIT_SECONDS
        known = await credentials.from_kubeconfig(self._cluster.kubectl.kubeconfig)
        async with Client(known, name="benchmark") as api, aiohttp.ClientSession() as session:
            address = ""
            while time.monotonic() < end:
                if not address:
                    address = await self._address(api)
                if address and await self._answers(session, address):
                    return time.monotonic()
                await asyncio.sleep(POLL_SECONDS)
        raise TimeoutError(f"no answer within {WAIT_SECONDS:g} s\n{self._cluster.describe()}")

    async def _address(self, api: Client) -> str:
        try:
            service = await api.get(SERVICES, self._namespace, SERVER)
        except ApiNotFoundError:
            return ""
        return str(service["spec"].get("clusterIP", ""))

    async def _answers(self, session: aiohttp.ClientSession, address: str) -> bool:
        try:
            async with session.post(f"http://{address}:8000/v2/models/{ENTRY}/infer", data=self._question) as answer:
                await answer.read()
                return answer.status == 200
        except aiohttp.ClientConnectionError:  # nobody is behind the Service yet
            return False

    def _told(self) -> Mapping[str, Any] | None:
        status = self._cluster.get("inferenceserver", SERVER, self._namespace).get("status", {})
        startup: Mapping[str, Any] = status.get("startup", {})
        return startup if startup.get("stage") == Stage.READY else None

    def _pods(self) -> list[Any]:
        found: list[Any] = self._cluster.kubectl.items(
            "pods", "-n", self._namespace, "-l", f"gravswell.dev/server={SERVER}"
        )
        return found


def measure(
    folder: Path, images: Sequence[str], repositories: Sequence[str], megabytes: float, rounds: int
) -> list[Row]:
    """Start the node, install the chart, publish the model, and start servers."""
    sys.path.insert(0, str(ROOT))
    from tests.real_node import prepared, starting  # noqa: PLC0415  the node is the tests'

    archives = starting.build_images()
    rows = []
    with starting.started(folder / "cluster", archives) as cluster, cluster.network():
        prepared.install(cluster)
        specs = {}
        if "volume" in repositories:
            specs["volume"] = prepared.make_volume(cluster, folder / "volume")
            publish(str(folder / "volume/repository"), megabytes)
        if "bucket" in repositories:
            specs["bucket"] = prepared.make_bucket(cluster, "shelf")
            with prepared.bucket_server(cluster):
                publish(specs["bucket"]["url"], megabytes)
        with Registry(folder / "registry") as registry:
            if "cold" in images:
                registry.add(archives / "tritonserver-cpu.tar", TRITON)
                cluster.node.pull_from(TRITON.partition("/")[0], registry.url)
            starts = Starts(cluster, prepared.NAMESPACE, registry)
            for image, repository in product(images, repositories):
                took = [starts.one(image, specs[repository]) for _ in range(rounds)]
                rows.append(summary(image, repository, took))
    return rows


def main() -> None:
    """Measure and print; exits with 1 if the bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", choices=IMAGES, action="append")
    parser.add_argument("--repository", choices=REPOSITORIES, action="append")
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("a real node needs root (namespaces, mounts, control groups); run this with sudo")
    if options.rounds < 1:
        parser.error("--rounds: at least one start of each kind is measured")
    with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as folder:
        rows = measure(
            Path(folder),
            options.image or IMAGES,
            options.repository or REPOSITORIES,
            megabytes=options.megabytes,
            rounds=options.rounds,
        )
    emit(Output(options.output), rows, lambda: table(rows, options.megabytes))
    hold(missed(rows))


if __name__ == "__main__":
    main()
