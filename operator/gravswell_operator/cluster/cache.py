"""What was seen of the cluster: one typed, trimmed record for each watched object.

Watch events and the answers to our own writes feed it, whichever is newer. Watches lose deletions when they start anew
(a list does not say what is gone), so :meth:`Cache.forget_missing` compares with a complete list now and then.
"""

import hashlib
import itertools
import time
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from pydantic import ValidationError

from gravswell.errors import UnavailableError
from gravswell_operator.cluster.resources import ResourceType
from gravswell_operator.state import ConfigMapState, unreadable


class Key(NamedTuple):
    """Which object: its kind, its namespace (empty for cluster-scoped ones) and its name."""

    resource: ResourceType
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.resource.kind} {where}{self.name}"


@dataclass(slots=True)
class Record:
    """One object as it was last seen."""

    key: Key
    uid: str
    version: int
    labels: Mapping[str, str]
    owner: str
    """uid of the controlling owner, or empty."""
    going: bool
    """It was deleted, and stays until whoever has a finalizer on it lets it go."""
    view: Any
    """The kind's typed state, or :class:`Unreadable`; None where the kind has none."""
    content: bytes = b""
    """Digest of all but the status, of the kinds that are compared for drift; a ConfigMap's data is in its view."""
    raw: bytes | None = None
    """The object as JSON, of these kinds, until it was compared: kept as text, it takes a tenth of the memory, and most
    of what is left of a child that rests."""
    checked: str = ""
    """Digest of the wanted object that this one was compared with, and found equal to."""
    deleted: bool = False
    """We have deleted it, which no watch has shown yet: what is wanted of its name is not there."""

    def body(self) -> dict[str, Any] | None:
        """The object, parsed anew, or None once it was :meth:`found_equal` to what was wanted then."""
        if self.raw is None:
            return None
        body: dict[str, Any] = orjson.loads(self.raw)
        if isinstance(self.view, ConfigMapState):
            body["data"] = dict(self.view.data)
        return body

    def found_equal(self, digest: str) -> None:
        """The object is what is wanted, whose ``digest`` this is.

        Its text is not needed any more: whatever is wanted next has another digest and is applied for that, and what
        somebody changes comes with an event that brings the text.
        """
        self.checked, self.raw = digest, None

    def same_content(self, other: "Record") -> bool:
        """Whether nothing but the status can differ, of the kinds that are compared for drift."""
        if not self.content or self.content != other.content:
            return False
        return not isinstance(self.view, ConfigMapState) or bool(self.view == other.view)


@dataclass(frozen=True, slots=True)
class Change:
    """What an event did: the record before and after; None where it was or is not there."""

    key: Key
    old: Record | None
    new: Record | None


def version_of(body: Mapping[str, Any]) -> int:
    """The resource version of an object; a later one is newer."""
    return int(body["metadata"].get("resourceVersion") or 0)


def check_time(resource: ResourceType, version: str, known: int) -> None:
    """Raise :class:`UnavailableError` where a list is older than ``known``, what was seen before it was asked for.

    Then nothing that we know can be compared with what it says.
    """
    if int(version or 0) < known:
        raise UnavailableError(
            f"the API server lists {resource.plural} as of version {version}, and showed version {known} before: its "
            "store was restored from a backup; this operator ends and must be started again"
        )


BURIED_SECONDS = 120.0
"""How long a deletion is remembered: twice what an answer to a write may take."""


class _Graves:
    """What was deleted of late: at which version, by uid."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._versions: dict[str, tuple[int, float]] = {}
        """Oldest first, so that forgetting looks at nothing else."""

    def bury(self, uid: str, version: int) -> None:
        now = self._clock()
        self._versions.pop(uid, None)
        self._versions[uid] = version, now + BURIED_SECONDS
        for old in itertools.takewhile(lambda uid: self._versions[uid][1] < now, list(self._versions)):
            del self._versions[old]

    def hold(self, uid: str, version: int) -> bool:
        """Whether this is from before the deletion. A later version is of an object that carries our label again."""
        return uid in self._versions and version <= self._versions[uid][0]


class Cache:
    """All records, by kind, namespace and name. Used from one event loop only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._records: dict[ResourceType, dict[tuple[str, str], Record]] = {}
        self._latest: dict[ResourceType, int] = {}
        self._graves = _Graves(clock)

    def get(self, key: Key) -> Record | None:
        """The record of one object, or None."""
        return self._records.get(key.resource, {}).get((key.namespace, key.name))

    def all(self, resource: ResourceType) -> Iterator[Record]:
        """Every record of a kind."""
        return iter(list(self._records.get(resource, {}).values()))

    def size(self, resource: ResourceType | None = None) -> int:
        """How many objects are known, of one kind or of all."""
        if resource is not None:
            return len(self._records.get(resource, ()))
        return sum(len(records) for records in self._records.values())

    def latest(self, resource: ResourceType) -> int:
        """The highest resource version that was seen of a kind; 0 where nothing was. A list is never older."""
        return self._latest.get(resource, 0)

    def _seen(self, resource: ResourceType, version: int) -> None:
        self._latest[resource] = max(version, self._latest.get(resource, 0))

    def observe(self, resource: ResourceType, body: Mapping[str, Any], *, deleted: bool = False) -> Change | None:
        """Take in what a watch or a write returned. None when it is no news: older than what is known, or the same."""
        metadata = body["metadata"]
        key = Key(resource, metadata.get("namespace") or "", metadata["name"])
        uid, version = metadata.get("uid", ""), version_of(body)
        self._seen(resource, version)
        if deleted:
            self._graves.bury(uid, version)
        elif self._graves.hold(uid, version):
            return None  # a late answer to a write of ours must not bring it back
        records = self._records.setdefault(resource, {})
        old = records.get((key.namespace, key.name))
        if old is not None and version <= old.version and not (deleted and old.uid == uid):
            return None
        if deleted:
            if old is None:
                return None
            del records[(key.namespace, key.name)]
            return Change(key, old, None)
        new = _record(key, version, body)
        if old is not None and old.uid == uid and new.same_content(old):
            new.raw, new.checked = old.raw, old.checked  # only its status is another one
        records[(key.namespace, key.name)] = new
        return Change(key, old, new)

    def drop(self, record: Record) -> Change | None:
        """Forget an object that the API server says is not there, unless another of its name is known by now."""
        key = record.key
        known = self.get(key)
        if known is None or known.uid != record.uid:
            return None
        del self._records[key.resource][(key.namespace, key.name)]
        return Change(key, known, None)

    def forget_missing(self, resource: ResourceType, present: Container[tuple[str, str]], version: str) -> list[Change]:
        """Drop what a complete list as of ``version`` lacks; it has the objects ``present``, by namespace and name."""
        at = int(version or 0)
        self._seen(resource, at)
        records = self._records.setdefault(resource, {})
        gone = [k for k, record in records.items() if k not in present and record.version <= at]
        changes = []
        for name in gone:
            old = records.pop(name)
            self._graves.bury(old.uid, at)
            changes.append(Change(old.key, old, None))
        return changes


def _record(key: Key, version: int, body: Mapping[str, Any]) -> Record:
    metadata = body["metadata"]
    owners = metadata.get("ownerReferences") or ()
    raw = _trimmed(body) if key.resource.raw else None
    return Record(
        key=key,
        uid=metadata.get("uid", ""),
        version=version,
        labels=metadata.get("labels") or {},
        owner=next((o["uid"] for o in owners if o.get("controller")), ""),
        going="deletionTimestamp" in metadata,
        view=_view(key.resource, body),
        content=hashlib.blake2b(raw, digest_size=16).digest() if raw is not None else b"",
        raw=raw,
    )


def _view(resource: ResourceType, body: Mapping[str, Any]) -> Any:
    if resource.view is None:
        return None
    try:
        return resource.view(body)
    except ValidationError:
        pass  # a status of another release does not matter: it is ours, and written anew
    try:
        return resource.view({**body, "status": {}})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return unreadable(resource.kind, body, f"{where or 'the object'}: {first['msg']}")


_DROPPED_METADATA = ("managedFields", "selfLink", "creationTimestamp", "generateName", "resourceVersion")


def _trimmed(body: Mapping[str, Any]) -> bytes:
    """What drift is found in: everything but the status, the managed fields, and what the view holds already."""
    metadata = {k: v for k, v in body["metadata"].items() if k not in _DROPPED_METADATA}
    kept = {k: v for k, v in body.items() if k not in ("status", "metadata")}
    if body.get("kind") == "ConfigMap":
        kept.pop("data", None)
    # Copied: orjson leaves the room in it that it wrote into, which would be kept as long as the object.
    return bytes(memoryview(orjson.dumps({**kept, "metadata": metadata})))
