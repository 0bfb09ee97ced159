"""The node agent: registers the node, watches the pods bound to it, and runs each of them."""

import asyncio
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gravswell.kube import credentials
from gravswell.kube.client import Client
from gravswell.kube.resources import POD, Selection
from gravswell.kube.watch import DELETED, Listed
from gravswell_operator.devcluster.controlplane import HOST, NODE_NAME
from gravswell_operator.devcluster.node.addresses import LOOPBACK, Addresses
from gravswell_operator.devcluster.node.events import COMPONENT, Events
from gravswell_operator.devcluster.node.kubelet import LogServer
from gravswell_operator.devcluster.node.pod import Pod, Services
from gravswell_operator.devcluster.node.process import end_strays
from gravswell_operator.devcluster.node.registration import Capacity, heartbeat, leave, node_document, register
from gravswell_operator.devcluster.node.tritonfolder import TritonFolder

log = logging.getLogger(__name__)

Document = dict[str, Any]

STOP_GRACE = 5.0
"""Seconds that containers get when the node is stopped."""


@dataclass(frozen=True)
class Options:
    """How to run a node.

    ``directory`` is its own folder, ``pki`` the control plane's certificates, ``addresses`` its pods'.
    """

    kubeconfig: Path
    directory: Path
    pki: Path
    addresses: IPv4Network = LOOPBACK
    name: str = NODE_NAME
    capacity: Capacity = field(default_factory=Capacity)


class NodeAgent:
    """Runs the pods that the scheduler binds to the node until :meth:`stop`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._pods: dict[str, tuple[Pod, asyncio.Task[None]]] = {}
        self._removed: set[str] = set()  # until the watch has said so too: older news of them may be on their way
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask :meth:`run` to end."""
        self._stopping.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Run the node; ``ready`` is called once it is registered and watches."""
        options = self._options
        folder = options.directory / "pods"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark = str(options.directory.resolve())
        if strays := end_strays(options.directory):
            log.warning("ended %d processes of an earlier run", strays)
        logs = LogServer(folder, options.pki, self._is_running)
        port = await logs.start(HOST)
        try:
            account = await credentials.from_kubeconfig(options.kubeconfig)
            server = urlsplit(account.endpoint.url)
            async with Client(account, name=COMPONENT) as client:
                resources = options.capacity.resources(folder)
                events = Events(client, options.name)
                services = Services(
                    client=client,
                    events=events,
                    addresses=Addresses(options.addresses),
                    triton=TritonFolder(),
                    pods=folder,
                    mark=mark,
                    host=HOST,
                    server=(str(server.hostname), str(server.port)),
                    allocatable=resources,
                )
                node = await register(client, node_document(options.name, resources, HOST, port))
                await self._serve(client, node, services, ready)
        finally:
            await logs.stop()

    async def _serve(self, client: Client, node: Document, services: Services, ready: Callable[[], None]) -> None:
        background = [
            asyncio.create_task(heartbeat(client, node)),
            asyncio.create_task(services.events.run()),
            asyncio.create_task(self._watch(client, services, ready)),
        ]
        stopping: asyncio.Task[bool] = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([*background, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in background:
                if task.done():
                    task.result()  # they run for ever, so this raises what ended it
        finally:
            await self._stop_pods()
            stopping.cancel()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, stopping, return_exceptions=True)
            await leave(client, self._options.name)

    async def _watch(self, client: Client, services: Services, ready: Callable[[], None]) -> None:
        mine = Selection(POD, fields=f"spec.nodeName={self._options.name}")
        async for seen in client.follow(mine):
            if isinstance(seen, Listed):
                self._removed.clear()
                for pod in seen.items:
                    self._take(pod, services)
                self._drop_others({pod["metadata"]["uid"] for pod in seen.items}, services)
                ready()
            elif seen.type == DELETED:
                self._removed.discard(seen.object["metadata"]["uid"])
                self._vanish(seen.object["metadata"]["uid"])
            else:
                self._take(seen.object, services)

    def _take(self, document: Document, services: Services) -> None:
        uid = document["metadata"]["uid"]
        if uid in self._pods:
            self._pods[uid][0].update(document)
            return
        if uid in self._removed:
            return
        ended = (document.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
        if ended and "deletionTimestamp" not in document["metadata"]:
            return
        pod = Pod(document, services)
        task = asyncio.create_task(pod.run(), name=f"pod {document['metadata']['name']}")
        self._pods[uid] = (pod, task)
        task.add_done_callback(lambda done: self._forget(uid, done))

    def _forget(self, uid: str, done: "asyncio.Task[None]") -> None:
        pod, _ = self._pods.pop(uid)
        if pod.removed:
            self._removed.add(uid)
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("%s ended with an error", done.get_name(), exc_info=error)

    def _vanish(self, uid: str) -> None:
        if uid in self._pods:
            self._pods[uid][0].vanish()

    def _drop_others(self, present: set[str], services: Services) -> None:
        """End pods that are gone, and clean up after pods of an earlier run that are."""
        for uid in set(self._pods) - present:
            self._vanish(uid)
        for note in services.pods.glob("*/*/uid"):
            if note.read_text() not in present and note.read_text() not in self._pods:
                shutil.rmtree(note.parent, ignore_errors=True)

    async def _stop_pods(self) -> None:
        running = list(self._pods.values())
        for pod, _ in running:
            pod.stop(STOP_GRACE)
        if running:
            await asyncio.wait([task for _, task in running], timeout=STOP_GRACE + 5)

    def _is_running(self, namespace: str, name: str, container: str) -> bool:
        for pod, _ in self._pods.values():
            metadata = pod.document["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, name):
                return pod.writes(container)
        return False
