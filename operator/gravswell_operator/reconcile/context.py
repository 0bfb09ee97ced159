"""What every reconcile works with, and how an observed change reaches the queue."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from gravswell.kube.client import Client
from gravswell_operator import names
from gravswell_operator.api import Model
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Cache, Change, Key, Record
from gravswell_operator.cluster.events import Recorder
from gravswell_operator.cluster.metrics import Metrics
from gravswell_operator.cluster.queue import Urgency, WorkQueue
from gravswell_operator.cluster.resources import ResourceType
from gravswell_operator.desired.objects import Options
from gravswell_operator.providers.base import CALLS, Cloud
from gravswell_operator.providers.custom import installed
from gravswell_operator.providers.gke import Gke
from gravswell_operator.reconcile.index import Index, owner_key, spec_changed
from gravswell_operator.state import MachineState, PodState, Unreadable, on_node


@dataclass(frozen=True)
class Context:
    """The operator's parts. ``now`` is the wall clock, in UTC; ``clock`` has monotonic seconds, whoever sets that."""

    client: Client
    cache: Cache
    index: Index
    queue: WorkQueue[Key]
    recorder: Recorder
    options: Options
    now: Callable[[], datetime]
    clock: Callable[[], float] = time.monotonic
    metrics: Metrics = field(default_factory=Metrics)
    writing: dict[Key, Any] = field(default_factory=dict)
    """The statuses that are being written, as their views will have them; whoever writes one, removes it again."""
    clouds: Mapping[str, Cloud] = field(default_factory=lambda: {**installed(), "GKE": Gke()})
    """The providers whose things live outside the cluster, by :attr:`gravswell_operator.api.providers.Provider.key`."""
    verify_cluster: bool = True
    """Whether clouds are told the certificate authorities of this cluster's API server, so that they refuse another."""
    cloud_calls: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CALLS))
    """Held by each pass over a pool in a cloud."""
    releasing: dict[str, float] = field(default_factory=dict)
    """Since when the cloud is asked to let go of pools that are being deleted, by their uid, by :attr:`clock`:
    one of the machine that is set right must not have a pool given up."""
    ahead: dict[Key, dict[str, timedelta]] = field(default_factory=dict)
    """By Models, for each time in their roll-outs, and by pools, for the time since when nobody uses them: how far
    ``now`` was ahead of ``clock`` when it was first seen. See :mod:`gravswell_operator.reconcile.jumps`."""
    starting: dict[Key, tuple[int, timedelta]] = field(default_factory=dict)
    """Of servers whose ranks start: since when, in seconds since 1970, and how far ``now`` was ahead of ``clock`` when
    that was seen first: see :mod:`gravswell_operator.reconcile.jumps`."""
    draining: dict[Key, set[str]] = field(default_factory=dict)
    """By pools that are gone, the uids of their machines of which it was told what they wait for."""
    facts: dict[str, str] = field(default_factory=dict)
    """What was asked of the cluster once, and stays."""
    settling: dict[Key, dict[Key, tuple[str, float]]] = field(default_factory=dict)
    """By servers, the Services and EndpointSlices that their routes are about to send more requests to: the digest of
    each, and since when, by :attr:`clock`, it is so."""
    optional: dict[ResourceType, str | None] = field(default_factory=dict)
    """For each kind that may be absent, once it was looked for: None where it is watched; where it is not, why, and an
    empty text where the API server does not know it."""

    def found(self, resource: ResourceType, why: str | None) -> None:
        """Whether a kind that may be absent is there now; whom that concerns is woken when it is news."""
        if resource in self.optional and self.optional[resource] == why:
            return
        self.optional[resource] = why
        if resource is resources.SCALED_OBJECT:
            woken = self._scaled_by_keda()
        elif resource in (*resources.ROUTES, resources.ENDPOINT_SLICE):
            woken = self._behind_gateways()
        else:
            woken = self.index.pools
        for key in woken:
            self.queue.add(key)

    def _behind_gateways(self) -> set[Key]:
        """The servers that shall have routes, and their Models, whose canaries may wait for these."""
        servers = (r for r in self.cache.all(resources.INFERENCE_SERVER) if not isinstance(r.view, Unreadable))
        found = {server.key for server in servers if server.view.spec.service.gateway is not None}
        return found.union(*(self.index.referrers(key) for key in found))

    def _scaled_by_keda(self) -> set[Key]:
        """The servers that shall have a ScaledObject, and those that KEDA scales, whatever they shall."""
        servers = (r for r in self.cache.all(resources.INFERENCE_SERVER) if not isinstance(r.view, Unreadable))
        scalings = ((server.key, server.view.spec.autoscaling) for server in servers)
        wanted = {key for key, scaling in scalings if scaling is not None and scaling.keda is not None}
        owners = ((r.key.name, owner_key(r)) for r in self.cache.all(resources.AUTOSCALER))
        return wanted | {key for name, key in owners if key is not None and name == names.keda_autoscaler(key.name)}

    def observe(
        self, resource: ResourceType, body: Mapping[str, Any], *, deleted: bool = False, listed: bool = False
    ) -> None:
        """Take in what a list, a watch or a write of ours returned, and wake whom it concerns."""
        change = self.cache.observe(resource, body, deleted=deleted)
        if change is not None:
            self.wake([change], Urgency.LOOK if listed else Urgency.NEWS)

    def forget(self, record: Record) -> None:
        """An object is not there though no watch has said so; wake whom that concerns."""
        change = self.cache.drop(record)
        if change is not None:
            self.wake([change])

    def wake(self, changes: Iterable[Change], urgency: Urgency = Urgency.NEWS) -> None:
        """Queue everything that these changes concern; what a person asks for, before everything else.

        What our own status write does to an object is no news to the object itself, whether the answer or a watch says
        it first: a failure that is told would else be tried again at once, for ever.
        """
        for change in changes:
            woken = self.index.apply(change)
            if self._is_own_status(change):
                woken.discard(change.key)
            for key in woken:
                self.queue.add(key, urgency=Urgency.EDIT if _is_edit(change, key) else urgency)

    def _is_own_status(self, change: Change) -> bool:
        if change.new is None or change.key not in self.writing or spec_changed(change):
            return False
        return bool(change.new.view.status == self.writing[change.key])

    def view(self, key: Key | None) -> Any:
        """The typed state of an object, :class:`Unreadable`, or None where it is not there."""
        record = self.cache.get(key) if key is not None else None
        return record.view if record is not None else None

    def child(self, resource: ResourceType, namespace: str, name: str) -> Any:
        """The typed state of a child by name, or None."""
        return self.view(Key(resource, namespace, name))

    def children(self, owner: Record) -> list[Record]:
        """The children that ``owner`` controls."""
        records = (self.cache.get(key) for key in self.index.children(owner.key))
        return [r for r in records if r is not None and r.owner == owner.uid and r.key.resource is not resources.POD]

    def pods(self, owner: Key) -> list[PodState]:
        """The pods of a server or of a repository's lister."""
        records = (self.cache.get(k) for k in self.index.children(owner) if k.resource is resources.POD)
        return [self._on_its_node(record.view) for record in records if record is not None]

    def machines(self, pool: Key) -> list[MachineState]:
        """The nodes that were asked for, for a pool."""
        records = (self.cache.get(k) for k in self.index.children(pool) if k.resource is resources.NODE_CLAIM)
        return [record.view for record in records if record is not None]

    def accounts(self, owner: Key) -> list[str]:
        """The ServiceAccounts that the pods of a server or of a repository's lister run as.

        By the label that makes a pod one of theirs: whoever can make such a pod can make it run as any account there.
        """
        pods = (pod for pod in self.pods(owner) if not pod.finished)
        return sorted({pod.service_account for pod in pods if pod.service_account})

    def _on_its_node(self, pod: PodState) -> PodState:
        return on_node(pod, self.view(Key(resources.NODE, "", pod.node))) if pod.node else pod

    def referrers(self, target: Key, resource: ResourceType) -> Iterator[Any]:
        """The objects of one kind that reference ``target`` and can be read, as typed state: found as they are asked
        for, since a pool may have thousands and most servers have no use for the others."""
        return (view for view in self._referrers(target, resource) if not isinstance(view, Unreadable))

    def models(self, server: Key) -> list[Model | Unreadable]:
        """The Models that name ``server`` and stay, also those that cannot be read."""
        views = self._referrers(server, resources.MODEL)
        return [v for v in views if not (v.deleting if isinstance(v, Unreadable) else v.metadata.deletion_timestamp)]

    def unreadable(self, pool: Key) -> bool:
        """Whether a server names the pool that cannot be read: what it asks for is not known."""
        return any(isinstance(v, Unreadable) for v in self._referrers(pool, resources.INFERENCE_SERVER))

    def _referrers(self, target: Key, resource: ResourceType) -> Iterator[Any]:
        views = (self.view(key) for key in self.index.referrers(target) if key.resource is resource)
        return (view for view in views if view is not None)


def _is_edit(change: Change, woken: Key) -> bool:
    """Whether somebody asks for something else of an object that was there, and this is where it takes effect.

    A Model's edit does so in its server too; that of a pool or of a repository may concern thousands.
    """
    if change.old is None or change.key.resource not in resources.OWN:
        return False
    takes_effect = woken == change.key or change.key.resource is resources.MODEL
    return takes_effect and spec_changed(change)
