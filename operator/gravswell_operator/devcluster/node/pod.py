"""One pod from its binding to its end: volumes, init containers, containers, status, graceful deletion."""

import asyncio
import logging
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gravswell.errors import GravswellError, UnavailableError
from gravswell.kube.client import Client
from gravswell.kube.errors import ApiConflictError, ApiNotFoundError
from gravswell.kube.resources import CONFIG_MAP, POD, SECRET, Resource
from gravswell_operator.devcluster.node.addresses import Addresses, refusal
from gravswell_operator.devcluster.node.container import Container, Surroundings
from gravswell_operator.devcluster.node.environment import Sources, expand, referenced, variables
from gravswell_operator.devcluster.node.events import Events
from gravswell_operator.devcluster.node.images import resolve
from gravswell_operator.devcluster.node.launch import Launch, Place, prepare
from gravswell_operator.devcluster.node.process import kill_strays
from gravswell_operator.devcluster.node.settling import settled
from gravswell_operator.devcluster.node.states import Facts, status, timestamp
from gravswell_operator.devcluster.node.tritonfolder import TritonFolder
from gravswell_operator.devcluster.node.volumes import Volumes

log = logging.getLogger(__name__)

Document = dict[str, Any]

_SETTLE_SECONDS = 0.02  # changes that come together are reported together
_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Services:
    """What the pods of a node share. ``pods`` is the folder that holds every pod's own."""

    client: Client
    events: Events
    addresses: Addresses
    triton: TritonFolder
    pods: Path
    mark: str
    host: str
    server: tuple[str, str]
    allocatable: dict[str, str]


def folder_of(pods: Path, namespace: str, name: str) -> Path:
    """Return a pod's own folder: ``<container>.log`` for each container, ``volumes/``, ``scratch/``."""
    return pods / namespace / name


class Pod:
    """A pod of this node; :meth:`run` returns when it is gone from the API server or the node stops."""

    def __init__(self, document: Document, services: Services) -> None:
        self.document = document
        self._services = services
        metadata = document["metadata"]
        self.uid: str = metadata["uid"]
        self.folder = folder_of(services.pods, metadata["namespace"], metadata["name"])
        self._namespace, self._name = str(metadata["namespace"]), str(metadata["name"])
        self._mark = f"{services.mark}#{self.uid}"
        self._address = ""
        self._since = (document.get("status") or {}).get("startTime") or timestamp()
        self._initialized = False
        self._ending = asyncio.Event()
        self._deadline = float("inf")
        self._gone = False
        self.removed = False
        """Set at the end of :meth:`run` if the object is gone or going."""
        self._changed = asyncio.Event()
        self._reported: Document | None = None
        self._volumes = Volumes(services.client, self.folder / "volumes", lambda: self.document, self._complain)
        self._initializers: list[Container] = []
        self._sidecars: list[Container] = []
        self._containers: list[Container] = []
        self._tasks: list[asyncio.Task[int]] = []

    def __str__(self) -> str:
        return f"Pod {self._namespace}/{self._name}"

    def update(self, document: Document) -> None:
        """Take a newer version of the object: changed metadata, or the wish to delete it."""
        self.document = document
        self._volumes.touch()
        if "deletionTimestamp" in document["metadata"]:
            self._end(document["metadata"].get("deletionGracePeriodSeconds", 30))
        if document["spec"].get("readinessGates"):
            self._changed.set()

    def vanish(self) -> None:
        """The object is gone from the API server: end at once."""
        self._gone = True
        self._end(0)

    def writes(self, container: str) -> bool:
        """Whether more may come to the log of ``container``."""
        every = (*self._initializers, *self._sidecars, *self._containers)
        return any(c.spec["name"] == container and c.state.running is not None for c in every)

    def stop(self, grace: float) -> None:
        """The node ends: stop the processes, leave the object."""
        self._end(grace)

    async def run(self) -> None:
        """Run the pod to its end and, where its deletion was asked for, remove the object."""
        self._prepare_folder()
        self._address = self._services.addresses.take()
        self._make_containers()
        if "deletionTimestamp" in self.document["metadata"]:
            self.update(self.document)
        reporting = asyncio.create_task(self._report_changes())
        working = asyncio.create_task(self._work())
        try:
            await self._ending.wait()
            await self._stop_containers()
        finally:
            for task in (working, reporting, *self._tasks):
                task.cancel()
            outcomes = await asyncio.gather(working, reporting, *self._tasks, return_exceptions=True)
            await self._volumes.close()
            kill_strays(self._mark)
            self._services.addresses.release(self._address)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                log.error("%s: %r", self, outcome, exc_info=outcome)
        await self._finish()

    def _prepare_folder(self) -> None:
        note = self.folder / "uid"
        if self.folder.exists() and (not note.exists() or note.read_text() != self.uid):
            shutil.rmtree(self.folder)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        note.write_text(self.uid)

    def _make_containers(self) -> None:
        spec = self.document["spec"]
        before = self.document.get("status") or {}
        known = {s["name"]: s for key in ("containerStatuses", "initContainerStatuses") for s in before.get(key) or ()}
        around = Surroundings(
            address=self._address,
            logs=self.folder,
            policy=spec.get("restartPolicy", "Always"),
            grace=spec.get("terminationGracePeriodSeconds", 30),
            prepare=self._launch,
            tell=self._tell,
            changed=self._changed.set,
        )
        once = replace(around, policy="Never" if around.policy == "Never" else "OnFailure")
        for initial in spec.get("initContainers") or ():
            kept = initial.get("restartPolicy") == "Always"
            container = Container(initial, around if kept else once, before=known.get(initial["name"]))
            (self._sidecars if kept else self._initializers).append(container)
        self._containers = [Container(c, around, before=known.get(c["name"])) for c in spec["containers"]]

    async def _work(self) -> None:
        self._changed.set()
        if all(container.settled for container in self._containers):
            self._initialized = True
            return
        for container in (*self._initializers, *self._sidecars, *self._containers):
            if container.settled and container in self._containers:
                continue
            container.state.wait("ContainerCreating" if not self._initializers else "PodInitializing")
        await self._volumes.set_up()
        if not await self._initialize():
            return
        self._initialized = True
        for container in self._containers:
            if container.state.waiting:
                container.state.wait("ContainerCreating")
        self._changed.set()
        mains = [asyncio.create_task(c.run()) for c in self._containers if not c.settled]
        self._tasks += mains
        await asyncio.gather(*mains)
        await asyncio.gather(*(sidecar.stop(self._left) for sidecar in self._sidecars))
        self._changed.set()

    async def _initialize(self) -> bool:
        """Run the init containers in order; False if one failed for good."""
        by_name = {container.spec["name"]: container for container in (*self._initializers, *self._sidecars)}
        for spec in self.document["spec"].get("initContainers") or ():
            container = by_name[spec["name"]]
            task = asyncio.create_task(container.run())
            self._tasks.append(task)
            if container in self._sidecars:
                await container.begun.wait()
            elif await task != 0:
                return False
        return True

    async def _launch(self, container: Document) -> Launch:
        image = resolve(container["image"])
        _require_free_ports(container, self._address)
        triton = await self._services.triton.get() if image.needs_triton else None
        maps, secrets = referenced(container)
        pod = {**self.document, "status": {"podIP": self._address, "hostIP": self._services.host}}
        sources = Sources(
            pod=pod,
            container=container,
            config_maps=await self._read_all(CONFIG_MAP, maps),
            secrets=await self._read_all(SECRET, secrets),
            allocatable=self._services.allocatable,
        )
        own = variables(sources, {})
        mounts = self._volumes.mounts(container, lambda text: expand(text, own))
        place = Place(self.folder / "scratch", self._mark, triton, self._services.server)
        return prepare(image, sources, mounts, place)

    def _end(self, grace: float) -> None:
        self._deadline = min(self._deadline, asyncio.get_running_loop().time() + grace)
        self._ending.set()

    def _left(self) -> float:
        return self._deadline - asyncio.get_running_loop().time()

    async def _stop_containers(self) -> None:
        await asyncio.gather(*(c.stop(self._left) for c in (*self._containers, *self._initializers)))
        await asyncio.gather(*(sidecar.stop(self._left) for sidecar in self._sidecars))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    async def _finish(self) -> None:
        deleting = "deletionTimestamp" in self.document["metadata"]
        if not self._gone:
            try:
                await self._report()
            except (ApiNotFoundError, ApiConflictError):
                self._gone = True  # somebody was faster; another pod may have the name already
            except GravswellError as error:
                log.warning("the end of %s could not be reported: %s", self, error)
        if deleting or self._gone:
            self._services.events.forget(self.uid)
            # In a thread, for the gigabytes of an emptyDir; what a dying process still writes goes with it.
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
        if deleting and not self._gone:  # last, as on a real node: an object that is gone left nothing behind
            await self._remove_object()
        self.removed = deleting or self._gone

    async def _remove_object(self) -> None:
        while True:
            try:
                await self._services.client.delete(POD, self._namespace, self._name, self.uid, grace_seconds=0)
            except GravswellError as error:
                log.warning("%s could not be removed yet: %s", self, error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def _report_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(_SETTLE_SECONDS)
            try:
                await self._report()
            except (ApiNotFoundError, ApiConflictError):
                return  # the object is gone; the watch says so too
            except GravswellError as error:
                log.warning("status of %s: %s", self, error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._changed.set()

    async def _report(self) -> None:
        new = status(
            Facts(
                pod=self.document,
                containers=[c.state for c in self._containers],
                initializers=[c.state for c in self._initializers],
                sidecars=[c.state for c in self._sidecars],
                address=self._address,
                host=self._services.host,
                since=self._since,
                initialized=self._initialized,
            )
        )
        if new == self._reported:
            return
        # Strategic merge would add to the addresses of an earlier run.
        whole = {key: [{"$patch": "replace"}, *new[key]] for key in ("hostIPs", "podIPs") if key in new}
        body = {"metadata": {"uid": self.uid}, "status": new | whole}
        answer = await self._services.client.merge(
            POD, self._namespace, self._name, body, subresource="status", strategic=True
        )
        self._reported = new
        self.document = {**self.document, "status": answer["status"]}

    async def _read_all(self, resource: Resource, names: set[str]) -> dict[str, Document]:
        """Return the objects that are there; which of them may be missing is for the reader to judge."""
        found = {}
        for name in sorted(names):
            try:
                found[name] = await settled(partial(self._services.client.get, resource, self._namespace, name))
            except ApiNotFoundError:
                continue
        return found

    def _complain(self, message: str) -> None:
        self._tell("FailedMount", message, True)

    def _tell(self, reason: str, message: str, warning: bool) -> None:
        self._services.events.tell(self.document, reason, message, warning=warning)


def _require_free_ports(container: Document, address: str) -> None:
    """Raise :class:`UnavailableError` if a program outside of the pod holds a port that the container declares."""
    for port in (p["containerPort"] for p in container.get("ports") or () if p.get("protocol", "TCP") == "TCP"):
        if (error := refusal(address, port)) is not None:
            raise UnavailableError(
                f"port {port} cannot be had on the pod's address {address} ({error.strerror}): a program of this "
                f"machine listens on 0.0.0.0:{port}; stop it or bind it to 127.0.0.1"
            ) from error
