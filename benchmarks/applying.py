"""What the benchmarks of the operator apply until it is done: servers, their children, what others make of them."""

import asyncio
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import kserve
from simulated_cluster import (
    NAMESPACE,
    POOL,
    REPOSITORY,
    cluster_of,
    cpu_by_process,
    pool_spec,
    repository_spec,
    server,
)

from gravswell.kube import credentials
from gravswell.kube.client import Client
from gravswell.kube.resources import Selection
from gravswell.kube.watch import Listed
from gravswell.serving.contracts import Desired, DesiredModel
from gravswell_operator.api import GPUNodePool, InferenceServer, ModelRepository
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.resources import ResourceType
from gravswell_operator.desired.objects import Options
from gravswell_operator.desired.server import ServerPlan, children
from gravswell_operator.devcluster import ControlPlane
from gravswell_operator.runtime import DEFAULT_IMAGE

STALL_SECONDS = 600.0
"""With none more done in so long, none will be. Ten thousand take most of an hour."""

Manifest = dict[str, Any]
Result = dict[str, Any]


def plain(name: str) -> list[Manifest]:
    """A Deployment of one pod, and a Service: the least that a server is."""
    labels = {"app": name}
    container = {"name": "c", "image": "none", "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}
    toleration = {"key": "kwok.x-k8s.io/node", "operator": "Exists"}
    pod = {"containers": [container], "tolerations": [toleration], "nodeSelector": {"type": "kwok"}}
    metadata = {"name": name, "namespace": NAMESPACE}
    template = {"metadata": {"labels": labels}, "spec": pod}
    deployment = {"selector": {"matchLabels": labels}, "template": template}
    service = {"selector": labels, "ports": [{"port": 8001}]}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
    ]


def child_objects(name: str, owner: Manifest) -> list[Manifest]:
    """What the operator applies for one server, field by field, owned by ``owner``."""
    view = InferenceServer.model_validate(server(name))
    repository = ModelRepository.model_validate(
        {"metadata": {"name": REPOSITORY, "namespace": NAMESPACE}, "spec": repository_spec()}
    )
    pool = GPUNodePool.model_validate({"metadata": {"name": POOL}, "spec": pool_spec()})
    model = DesiredModel(name="model", version=1, digest=f"{1:064x}")
    desired = Desired(repository=repository.spec.url, models=(model,))
    made = children(ServerPlan(view, repository, pool, desired, True, Options(image=DEFAULT_IMAGE)))
    for manifest in made:
        # Without these the garbage collector would delete them: their InferenceServer is not there.
        manifest["metadata"]["ownerReferences"] = [owner]
    return made


def available(body: Manifest) -> bool:
    """Whether a Deployment's pod is ready."""
    return bool((body.get("status") or {}).get("availableReplicas"))


def ready(body: Manifest) -> bool:
    """Whether an object's condition Ready is True."""
    found = (body.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found)


async def apply_all(
    cluster: ControlPlane,
    kind: ResourceType,
    made: dict[str, list[Manifest]],
    done: Callable[[Manifest], bool],
) -> Result:
    """Apply everything at once, and watch until the object of ``kind`` of each name is done."""
    applied: dict[str, float] = {}
    finished: dict[str, float] = {}
    account = await credentials.from_kubeconfig(cluster.kubeconfig)
    async with Client(account, name="benchmark") as client:

        async def watch() -> None:
            # Followed, not watched once: the API server ends the watch of a reader that is too slow for it.
            async for seen in client.follow(Selection(kind)):
                for body in seen.items if isinstance(seen, Listed) else [seen.object]:
                    name = body["metadata"]["name"]
                    if name in made and name not in finished and done(body):
                        finished[name] = time.perf_counter()
                if len(finished) == len(made):
                    return

        async def apply(name: str) -> None:
            for manifest in made[name]:
                await client.apply(_kind_of(manifest), manifest)
            applied[name] = time.perf_counter()

        started = time.perf_counter()
        watching = asyncio.create_task(watch())
        await asyncio.gather(*(apply(name) for name in made))
        before = -1
        while not watching.done():
            if len(finished) == before:
                raise TimeoutError(f"{before} of {len(made)} {kind.plural} are done, none more in {STALL_SECONDS:g} s")
            before = len(finished)
            await asyncio.wait({watching}, timeout=STALL_SECONDS)
        await watching
        seconds = time.perf_counter() - started
    latencies = sorted(max(finished[name] - applied[name], 0.0) for name in made)
    return {
        "seconds": seconds,
        "perSecond": len(made) / seconds,
        "latencyMedian": statistics.median(latencies),
        "latency95": percentile(latencies, 0.95),
    }


def _kind_of(manifest: Manifest) -> ResourceType:
    kinds = (*resources.OWN, *resources.CHILDREN, kserve.INFERENCE_SERVICE)
    return next(kind for kind in kinds if kind.kind == manifest["kind"])


def _deployment(manifests: Iterable[Manifest]) -> str:
    name: str = next(m["metadata"]["name"] for m in manifests if m["kind"] == "Deployment")
    return name


def percentile(ordered: list[float], share: float) -> float:
    """The value that ``share`` of them do not exceed."""
    return ordered[math.ceil(share * len(ordered)) - 1]


def server_names(count: int, first: int = 0) -> list[str]:
    """The names of the servers."""
    return [f"server-{index:05}" for index in range(first, first + count)]


def spent(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """CPU seconds of each program between two looks."""
    return {name: after[name] - before.get(name, 0.0) for name in after}


def limit(
    folder: Path,
    count: int,
    make: Callable[[str, Manifest], list[Manifest]],
    prepare: Callable[[ControlPlane], None] = lambda _: None,
) -> Result:
    """The objects of ``count`` servers from here, without an operator; a Deployment is among those of each."""
    with cluster_of(folder, count) as cluster:
        prepare(cluster)
        made = cluster.kubectl("create", "configmap", "owner", "-n", NAMESPACE, "-o", "json")
        uid = json.loads(made)["metadata"]["uid"]
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "controller": True}
        objects = {_deployment(manifests): manifests for manifests in (make(n, owner) for n in server_names(count))}
        cpu = cpu_by_process()
        result = asyncio.run(apply_all(cluster, resources.DEPLOYMENT, objects, available))
        return result | {"cpuSeconds": spent(cpu, cpu_by_process())}
