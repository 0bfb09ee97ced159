"""What every reconcile works with, and how an observed change reaches the queue."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Cache, Change, Key, Record
from gravswell_operator.cluster.client import Client
from gravswell_operator.cluster.events import Recorder
from gravswell_operator.cluster.queue import WorkQueue
from gravswell_operator.cluster.resources import ResourceType
from gravswell_operator.desired.objects import Options
from gravswell_operator.reconcile.index import Index
from gravswell_operator.state import PodState


@dataclass(frozen=True)
class Context:
    """The operator's parts. ``now`` is the wall clock, in UTC."""

    client: Client
    cache: Cache
    index: Index
    queue: WorkQueue[Key]
    recorder: Recorder
    options: Options
    now: Callable[[], datetime]

    def observe(self, resource: ResourceType, body: Mapping[str, Any], *, deleted: bool = False) -> None:
        """Take in what a watch or a write of ours returned, and wake whom it concerns."""
        change = self.cache.observe(resource, body, deleted=deleted)
        if change is not None:
            self.wake([change])

    def wake(self, changes: Iterable[Change]) -> None:
        """Queue everything that these changes concern."""
        for change in changes:
            for key in self.index.apply(change):
                self.queue.add(key)

    def view(self, key: Key | None) -> Any:
        """The typed state of an object, or None where it is not there or cannot be read."""
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
        return [record.view for record in records if record is not None]

    def referrers(self, target: Key, resource: ResourceType) -> list[Any]:
        """The objects of one kind that reference ``target``, as typed state."""
        views = (self.view(key) for key in self.index.referrers(target) if key.resource is resource)
        return [view for view in views if view is not None]
