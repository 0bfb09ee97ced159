"""The engine on an API server in memory: what it applies is stored and observed, and every write is on record."""

import asyncio
import copy
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gravswell.kube import errors
from gravswell.kube.resources import Selection
from gravswell.kube.watch import Listed
from gravswell.serving.contracts import DESIRED_KEY, LISTING_KEY, Desired, ListedEntry, ListedVersion, Listing
from gravswell_operator import names
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Cache, Key
from gravswell_operator.cluster.queue import WorkQueue
from gravswell_operator.cluster.resources import ResourceType
from gravswell_operator.conditions import Transition
from gravswell_operator.desired.objects import Options
from gravswell_operator.reconcile.context import Context
from gravswell_operator.reconcile.engine import Engine
from gravswell_operator.reconcile.index import Index

from ..exposition import total


def _managed(old: dict[str, Any], manager: str, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Who owns an object's replicas: of no other field anybody asks."""
    others = [entry for entry in old.get("managedFields", ()) if entry["manager"] != manager]
    owned = {"f:spec": {"f:replicas": {}}} if "replicas" in manifest.get("spec", {}) else {}
    return [*others, {"manager": manager, "fieldsV1": owned}]


def _kept_replicas(old: dict[str, Any], manager: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """The replicas of an object that is applied without them: they go only where nobody else wrote them."""
    kept = {k: v for k, v in old.get("spec", {}).items() if k == "replicas"}
    owners = {m["manager"] for m in old["metadata"].get("managedFields", ()) if m["fieldsV1"]}
    return kept if "spec" in manifest and owners != {manager} else {}


class Api:
    """The verbs of :class:`gravswell.kube.client.Client`, on a dictionary."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.writes: list[str] = []
        self.refuse: Callable[[str], Exception | None] = lambda _: None
        """Asked with ``VERB Kind name`` before each request."""
        self.written: Callable[[ResourceType, dict[str, Any]], None] = lambda *_: None
        """Told of each status that was written, before the answer is sent."""
        self._versions = itertools.count(1)
        self.fence: Callable[[], None] = lambda: None

    def store(self, body: dict[str, Any]) -> dict[str, Any]:
        metadata = body["metadata"]
        metadata.setdefault("uid", f"uid-{body['kind']}-{metadata['name']}")
        metadata["resourceVersion"] = str(next(self._versions))
        self.objects[body["kind"], metadata.get("namespace", ""), metadata["name"]] = body
        return copy.deepcopy(body)

    def _request(self, verb: str, resource: ResourceType, name: str) -> None:
        words = f"{verb} {resource.kind} {name}"
        if verb != "get":
            self.writes.append(words)
        if (error := self.refuse(words)) is not None:
            raise error

    async def get(self, resource: ResourceType, namespace: str, name: str) -> dict[str, Any]:
        self._request("get", resource, name)
        try:
            return copy.deepcopy(self.objects[resource.kind, namespace or "", name])
        except KeyError:
            raise errors.ApiNotFoundError(f"{resource.kind} {name} is not there") from None

    async def list_all(self, selection: Selection) -> Listed:
        self._request("get", selection.resource, selection.name or "")  # type: ignore[arg-type]  # of ours alone
        found = [
            o
            for (kind, _, name), o in self.objects.items()
            if (kind, name) == (selection.resource.kind, selection.name)
        ]
        return Listed(copy.deepcopy(found), str(next(self._versions)))

    async def apply(self, resource: ResourceType, manifest: dict[str, Any], *, manager: str = "") -> dict[str, Any]:
        metadata = manifest["metadata"]
        self._request(f"apply as {manager}" if manager else "apply", resource, metadata["name"])
        if resource is resources.ROLE_BINDING:
            role = manifest["roleRef"]["name"]
            if ("Role", metadata["namespace"], role) not in self.objects:
                raise errors.ApiNotFoundError(f'RoleBinding {metadata["name"]}: role "{role}" not found')
        await asyncio.sleep(0)  # what is sent at the same time does not find this one
        old = self.objects.get((resource.kind, metadata.get("namespace", ""), metadata["name"]), {"metadata": {}})
        expected = metadata.get("resourceVersion")
        if expected is not None and old["metadata"].get("resourceVersion", expected) != expected:
            raise errors.ApiConflictError(f"{resource.kind} {metadata['name']}: the object has been modified")
        merged = {**old, **copy.deepcopy(manifest), "metadata": {**old["metadata"], **copy.deepcopy(metadata)}}
        if kept := _kept_replicas(old, manager or names.FIELD_MANAGER, manifest):
            merged["spec"] = {**kept, **merged["spec"]}
        merged["metadata"]["managedFields"] = _managed(old["metadata"], manager or names.FIELD_MANAGER, manifest)
        if resource in resources.ROUTES:  # as of every kind with a definition; of the others nobody asks here
            merged["metadata"]["generation"] = old["metadata"].get("generation", 0) + (
                merged["spec"] != old.get("spec")
            )
        if "data" in manifest and "data" in old:
            merged["data"] = {**old["data"], **manifest["data"]}  # each key of a ConfigMap has an owner of its own
        return self.store(merged)

    async def apply_status(self, resource: ResourceType, manifest: dict[str, Any]) -> dict[str, Any]:
        metadata = manifest["metadata"]
        self._request("status", resource, metadata["name"])
        old = self.objects[resource.kind, metadata.get("namespace", ""), metadata["name"]]
        if old.get("status") == manifest["status"]:
            return copy.deepcopy(old)  # no change, no new version, no event: as the real one
        stored = self.store({**old, "status": copy.deepcopy(manifest["status"])})
        self.written(resource, stored)
        return stored

    async def merge(
        self, resource: ResourceType, namespace: str, name: str, change: dict[str, Any], **how: Any
    ) -> dict[str, Any]:
        self._request("merge", resource, name)
        old = self.objects[resource.kind, namespace, name]
        if how.get("subresource") == "status":  # of a pod: conditions merge by their type
            changed = {c["type"]: c for c in change["status"]["conditions"]}
            kept = [c for c in old["status"]["conditions"] if c["type"] not in changed]
            return self.store({**old, "status": {**old["status"], "conditions": [*kept, *changed.values()]}})
        data = {**old.get("data", {}), **change.get("data", {})}
        return self.store({**old, "data": {k: v for k, v in data.items() if v is not None}})

    async def delete(self, resource: ResourceType, namespace: str, name: str, uid: str) -> None:
        self._request("delete", resource, name)
        self.objects.pop((resource.kind, namespace, name), None)


class Events:
    """Remembers what a person would have been told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.words: list[str] = []

    def transition(self, regarding: dict[str, Any], transition: Transition) -> None:
        self.told.append(f"{regarding['kind']} {transition.reason}")
        self.words.append(f"{regarding['kind']} {regarding['name']}: {transition.message}")


class World:
    """The engine and everything around it, driven by hand."""

    def __init__(self, manifest: Callable[..., dict[str, Any]]) -> None:
        self._manifest = manifest
        self.api, self.events = Api(), Events()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.time = 0.0
        self.passed = 0.0
        """Without the seconds in which the engine does what is due: by :attr:`now` that takes no time."""
        self.restart()

    def restart(self) -> None:
        """The operator starts, and sees what is there."""
        self.context = Context(
            client=self.api,  # type: ignore[arg-type]
            cache=Cache(),
            index=Index(),
            queue=WorkQueue[Key](lambda: self.time, kind=lambda key: key.resource),
            recorder=self.events,  # type: ignore[arg-type]
            options=Options(image="ours"),
            now=lambda: self.now,
            clock=lambda: self.passed,
        )
        self.engine = Engine(self.context)
        for (kind, _, _), body in self.api.objects.items():
            known = (*resources.WATCHED, *resources.OPTIONAL)
            self.context.observe(next(r for r in known if r.kind == kind), copy.deepcopy(body), listed=True)

    def failures(self, **labels: str) -> float:
        """How many reconciles have failed, of those with these labels in the metrics."""
        return total(self.context.metrics.registry.collect(), "gravswell_reconcile_errors_total", **labels)

    def see(self, resource: ResourceType, body: dict[str, Any], *, deleted: bool = False) -> dict[str, Any]:
        """Something happened in the cluster, and a watch says so."""
        stored = self.api.store(copy.deepcopy(body))
        if deleted:
            key = (body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"])
            self.api.objects.pop(key)
        self.context.observe(resource, stored, deleted=deleted)
        return stored

    def own(self, resource: ResourceType, change: dict[str, Any] | None = None) -> Key:
        """The good manifest of the kind, with a change, is applied by a user."""
        body = self._manifest(resource.kind, change)
        metadata = {"generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z", **body["metadata"]}
        if resource.namespaced:
            metadata.setdefault("namespace", "ns")
        seen = self.see(resource, {**body, "metadata": metadata})["metadata"]
        return Key(resource, seen.get("namespace", ""), seen["name"])

    def publish(
        self, *numbers: int, url: str = "pvc://claim/folder", accessible: bool = True, entry: str = "my-model"
    ) -> None:
        """As the lister of the repository ``models``: the one entry there has these versions."""
        versions = tuple(ListedVersion(number=n, digest=f"{n:064x}") for n in numbers)
        entries = (ListedEntry(name=entry, versions=versions),) if versions else ()
        listing = Listing(repository=url, observed_at=self.now, accessible=accessible, entries=entries)
        found = self.get("ConfigMap", "models-listing")
        assert found is not None
        self.see(resources.CONFIG_MAP, {**found, "data": {**found["data"], LISTING_KEY: listing.to_json()}})

    def change(self, resource: ResourceType, name: str, **spec: Any) -> None:
        """A user changes the spec of an object."""
        body = self.get(resource.kind, name)
        assert body is not None
        generation = body["metadata"]["generation"] + 1
        self.see(
            resource,
            {**body, "metadata": {**body["metadata"], "generation": generation}, "spec": {**body["spec"], **spec}},
        )

    def remove(self, resource: ResourceType, name: str) -> None:
        """Somebody deletes an object."""
        body = self.get(resource.kind, name)
        assert body is not None
        self.see(resource, body, deleted=True)

    def desired(self) -> dict[str, int]:
        """What the agents of ``server`` are told: versions by entry."""
        found = self.get("ConfigMap", "server-desired")
        assert found is not None
        return {m.name: m.version for m in Desired.model_validate_json(found["data"][DESIRED_KEY]).models}

    def pass_by(self, **span: float) -> None:
        """Time passes."""
        seconds = timedelta(**span).total_seconds()
        self.now += timedelta(**span)
        self.passed += seconds
        self.time += seconds

    async def settle(self) -> None:
        """Reconcile whatever is due, until nothing is."""
        for _ in range(100):
            if not await self.tick():
                return
        raise AssertionError("it never settles")

    async def tick(self) -> int:
        """A second passes, and what is due by then is reconciled; how many that were."""
        self.time += 1
        due = [e for e in self.context.queue._entries.values() if e.due <= self.time]
        for _ in due:
            key = await self.context.queue.get()
            await self.engine.handle(key)
            self.context.queue.done(key)
        return len(due)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        found = [o for (k, _, n), o in self.api.objects.items() if (k, n) == (kind, name)]
        return found[0] if found else None

    def condition(self, kind: str, name: str, type_: str = "Ready") -> dict[str, Any]:
        body = self.get(kind, name)
        assert body is not None
        return next(c for c in body["status"]["conditions"] if c["type"] == type_)


@pytest.fixture
def world(manifest) -> World:
    return World(manifest)


SERVER = {"spec": {"nodePoolRef": None, "gpus": 0}}


def serve(world: World) -> World:
    """A repository and a server on the CPU are applied to ``world``: seen and not reconciled yet."""
    world.own(resources.MODEL_REPOSITORY)
    world.own(resources.INFERENCE_SERVER, SERVER)
    return world


@pytest.fixture
def served(world: World) -> World:
    return serve(world)
