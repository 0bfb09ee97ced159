"""A cluster's API server as a notebook wants it: apply, wait until it is there, say what it waits for."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gravswell.cloudbreak import blocking
from gravswell.cloudbreak.waiting import Tell, display
from gravswell.errors import InvalidInputError, NotFoundError, UnavailableError
from gravswell.kube.client import Client
from gravswell.kube.credentials import Account
from gravswell.kube.resources import (
    CONFIG_MAP,
    NAMESPACE,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SECRET,
    SERVICE_ACCOUNT,
    Resource,
    Selection,
    label,
)
from gravswell.kube.watch import DELETED, Body, Change, Listed

PROGRAM = "gravswell-cloudbreak"
"""The owner of what is applied."""
WAIT_SECONDS = 1200.0
"""For a Deployment, DaemonSet or Service: a GPU's image is large, and a node may have to come first."""

DEPLOYMENT = Resource("Deployment", "deployments", "apps")
DAEMON_SET = Resource("DaemonSet", "daemonsets", "apps")
SERVICE = Resource("Service", "services")
GPU_NODE_POOL = Resource("GPUNodePool", "gpunodepools", "gravswell.dev", "v1alpha1", namespaced=False)

KINDS: Mapping[tuple[str, str], Resource] = {
    (resource.api_version, resource.kind): resource
    for resource in (
        CONFIG_MAP,
        DAEMON_SET,
        DEPLOYMENT,
        GPU_NODE_POOL,
        NAMESPACE,
        PERSISTENT_VOLUME_CLAIM,
        SECRET,
        SERVICE,
        SERVICE_ACCOUNT,
        Resource("StatefulSet", "statefulsets", "apps"),
        Resource("Job", "jobs", "batch"),
        Resource("HorizontalPodAutoscaler", "horizontalpodautoscalers", "autoscaling", "v2"),
        Resource("Ingress", "ingresses", "networking.k8s.io"),
        Resource("NetworkPolicy", "networkpolicies", "networking.k8s.io"),
        Resource("PodDisruptionBudget", "poddisruptionbudgets", "policy"),
        Resource("Role", "roles", "rbac.authorization.k8s.io"),
        Resource("RoleBinding", "rolebindings", "rbac.authorization.k8s.io"),
        Resource("InferenceServer", "inferenceservers", "gravswell.dev", "v1alpha1"),
        Resource("Model", "models", "gravswell.dev", "v1alpha1"),
        Resource("ModelRepository", "modelrepositories", "gravswell.dev", "v1alpha1"),
    )
}
"""What can be applied, by ``apiVersion`` and ``kind``."""

T = TypeVar("T")


class K8sClient:
    """Blocking calls on one API server; works in notebooks, whose own loop runs. ``what`` names the cluster."""

    def __init__(self, account: Callable[[], Account], what: str) -> None:
        """``account`` is asked for credentials at each call. It may block."""
        self._account, self._what = account, what

    def apply(self, objects: Iterable[Mapping[str, Any]], namespace: str = "default") -> None:
        """Make the objects, or change them into these, in their order; ``namespace`` where they name none.

        Raises InvalidInputError for a kind that is not among :data:`KINDS`, before anything is made.
        """
        targets: list[tuple[Resource, dict[str, Any]]] = []
        for document in objects:
            resource = KINDS.get((str(document["apiVersion"]), str(document["kind"])))
            if resource is None:
                known = ", ".join(sorted(kind for _, kind in KINDS))
                raise InvalidInputError(
                    f"{document['apiVersion']} {document['kind']} is not among what can be deployed ({known}); apply "
                    "it with kubectl"
                )
            metadata = dict(document["metadata"])
            if resource.namespaced:
                metadata.setdefault("namespace", namespace)
            targets.append((resource, {**document, "metadata": metadata}))

        async def work(client: Client) -> None:
            for resource, document in targets:
                await client.apply(resource, document)

        self._run(work)

    def remove_deployment(self, name: str, namespace: str = "default") -> None:
        """Delete a Deployment, and the Service of its name; what is gone already is fine."""

        async def work(client: Client) -> None:
            for resource in (SERVICE, DEPLOYMENT):
                await client.delete(resource, namespace, name)

        self._run(work)

    def has_daemon_set(self, labels: str) -> bool:
        """Whether any namespace has a DaemonSet with these labels."""

        async def work(client: Client) -> bool:
            return bool((await client.list_all(Selection(DAEMON_SET, labels=labels))).items)

        return self._run(work)

    def wait_for_deployment(self, name: str, namespace: str = "default", seconds: float = WAIT_SECONDS) -> None:
        """Wait until all replicas of a Deployment are ready.

        Raises NotFoundError without it, UnavailableError with what its pods wait for after ``seconds``.
        """
        self._wait(Selection(DEPLOYMENT, namespace, name), _rolled_out, seconds)

    def wait_for_daemon_set(self, name: str, namespace: str = "default", seconds: float = WAIT_SECONDS) -> None:
        """Wait until a DaemonSet is ready on all nodes that it is for, of which there may be none yet."""
        self._wait(Selection(DAEMON_SET, namespace, name), _on_all_nodes, seconds)

    def wait_for_service(self, name: str, namespace: str = "default", seconds: float = WAIT_SECONDS) -> str:
        """Wait until a Service can be reached from outside, and return its address: an IP, or a host's name.

        Of a Service without a load balancer, the address inside of the cluster.
        """
        body = self._wait(Selection(SERVICE, namespace, name), _reachable, seconds)
        if body["spec"].get("type") != "LoadBalancer":
            return str(body["spec"]["clusterIP"])
        first = body["status"]["loadBalancer"]["ingress"][0]
        return str(first.get("ip") or first["hostname"])

    def _wait(self, selection: Selection, lacking: Callable[[Body], str], seconds: float) -> Body:
        with display(f"waiting for {selection}") as tell:
            return self._run(lambda client: _Wait(client, selection, lacking, tell).end(seconds, self._what))

    def _run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        async def main() -> T:
            account = await asyncio.to_thread(self._account)
            async with Client(account, name=PROGRAM) as client:
                return await work(client)

        return blocking.run(main)


@dataclass(frozen=True)
class _Wait:
    """For an object that shall lack nothing."""

    client: Client
    selection: Selection
    lacking: Callable[[Body], str]
    """What it lacks; empty when it is as it shall be."""
    tell: Tell

    async def end(self, seconds: float, where: str) -> Body:
        """The object, once it lacks nothing."""
        selection, what = self.selection, f"{self.selection} of {where}"
        lack = "it was not seen"
        try:
            async with asyncio.timeout(seconds), contextlib.aclosing(self.client.follow(selection)) as seen:
                async for news in seen:
                    body = _latest(news)
                    if body is None:
                        raise NotFoundError(f"{what} is not there; deploy it first")
                    lack = self.lacking(body)
                    if not lack:
                        return body
                    self.tell(f"{selection}: {lack}")
        except TimeoutError:
            blockers = await _blockers(self.client, selection) if selection.resource != SERVICE else ""
            raise UnavailableError(
                f"{what} is not ready after {seconds:.0f} s: {lack}{f'; {blockers}' if blockers else ''}; it goes on, "
                "and can be waited for again"
            ) from None
        raise AssertionError("a follow ends by an error only")


def _latest(news: Listed | Change) -> Body | None:
    if isinstance(news, Listed):
        return news.items[0] if news.items else None
    return None if news.type == DELETED else news.object


def _rolled_out(body: Body) -> str:
    wanted, status = body["spec"].get("replicas", 1), body.get("status") or {}
    if status.get("observedGeneration", 0) < body["metadata"]["generation"]:
        return "not seen by its controller yet"
    for condition in status.get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return str(condition["message"])
    updated, ready = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    fine = updated >= wanted and ready >= wanted and status.get("replicas", 0) == updated
    return "" if fine else f"{ready} of {wanted} replicas ready"


def _on_all_nodes(body: Body) -> str:
    status = body.get("status") or {}
    if status.get("observedGeneration", 0) < body["metadata"]["generation"]:
        return "not seen by its controller yet"
    wanted = status.get("desiredNumberScheduled", 0)
    ready = min(status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0))
    return "" if ready >= wanted else f"ready on {ready} of {wanted} nodes"


def _reachable(body: Body) -> str:
    spec = body["spec"]
    if spec.get("type") != "LoadBalancer":
        return "" if spec.get("clusterIP") else "it has no address yet"
    ingress = ((body.get("status") or {}).get("loadBalancer") or {}).get("ingress")
    return "" if ingress else "the cloud has given it no address yet"


async def _blockers(client: Client, selection: Selection) -> str:
    """What pods of the object wait for, in their own words: the first that says something."""
    owner = await client.get(selection.resource, selection.namespace, str(selection.name))
    chosen = (owner["spec"].get("selector") or {}).get("matchLabels") or {}
    labels = ",".join(f"{key}={value}" for key, value in chosen.items())
    for pod in (await client.list_all(Selection(POD, selection.namespace, labels=labels))).items:
        name, status = label(POD, selection.namespace, pod["metadata"]["name"]), pod.get("status") or {}
        for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") not in {None, "PodInitializing", "ContainerCreating"}:
                return f"{name}: {waiting['reason']} {waiting.get('message', '')}".strip()
        for condition in status.get("conditions") or ():
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return f"{name}: {condition.get('reason')}: {condition.get('message')}"
    return ""
