"""A busy time of users, the same each time; and what is there in the end, to compare with a time without faults.

All of it is in one namespace of a fixed name, one run after the other, so that nothing need be translated.
"""

import http.client
import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from gravswell.errors import GravswellError
from gravswell_operator.devcluster import ControlPlane

from ..operating import Namespace
from ..reconciling.conftest import World

NAMESPACE = "busy"
SEED = 20261122
SERVERS = 5
SETTLED_SECONDS = 400
"""Longer than the five minutes for which a ReplicaSet's controller waits for the event of a pod that it has made or
deleted, where that was lost with an API server: until then it neither makes nor deletes another one."""
OUTAGE_SECONDS = 90
"""How long users try again where the API server does not answer."""
MANAGED = "app.kubernetes.io/managed-by=gravswell"
OWN = ("isrv", "mdl", "mr")
CHILDREN = (
    "deployments",
    "services",
    "configmaps",
    "serviceaccounts",
    "roles",
    "rolebindings",
    "pdb",
    "statefulsets",
    "hpa",
    "networkpolicies",
)
_GIVEN = {
    "clusterIP",
    "clusterIPs",
    "nodePort",
    "healthCheckNodePort",
    "pod",
    "lastTransitionTime",
    "idleSince",
    "startup",
}
"""What the API server and the clock choose, another value each time."""

Answer = TypeVar("Answer")
State = dict[str, Any]
Process = Callable[[], None]
"""Fails where the operator has ended that should be running."""


class Busy(World):
    """The namespace of the busy time."""

    def __init__(self, cluster: ControlPlane) -> None:
        Namespace.__init__(self, cluster, NAMESPACE)

    def apply(self, kind: str, name: str, **spec: Any) -> None:
        patiently(lambda: super(Busy, self).apply(kind, name, **spec))

    def delete(self, kind: str, name: str = "") -> None:
        patiently(lambda: super(Busy, self).delete(kind, name))

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        return patiently(lambda: super(Busy, self).get(kind, name))

    def objects(self, *kinds: str, selector: str = "") -> list[dict[str, Any]]:
        return patiently(lambda: super(Busy, self).objects(*kinds, selector=selector))

    def work(self, pause: float) -> None:
        """What users do, ``pause`` seconds apart: create, edit, scale, suspend and delete, of all kinds."""
        for step in self.steps():
            step()
            time.sleep(pause)

    def steps(self) -> Iterator[Callable[[], None]]:
        yield self.make_pool
        yield self.make_repository
        random_ = random.Random(SEED)
        for step in range(8 * SERVERS):
            name = f"server-{step % SERVERS}"
            action = random_.choice(["replicas", "memory", "delete a child", "model", "suspend", "pool", "repository"])
            if step < SERVERS or action == "replicas":
                number = random_.randint(1, 3)
                yield lambda name=name, number=number: self.make_server(name, replicas=number)
            elif action == "memory":
                memory = f"{random_.randint(2, 5)}Gi"
                on = {"nodePoolRef": {"name": self.pool}, "gpus": 1} if random_.random() < 0.5 else {}
                yield lambda name=name, memory=memory, on=on: self.make_server(name, memory=memory, replicas=1, **on)
            elif action == "model":
                yield lambda name=name: self.make_model(f"of-{name}", serverRef={"name": name})
            elif action == "suspend":
                yield lambda name=name: self.make_server(name, replicas=2, suspend=True)
                yield lambda name=name: self.make_server(name, replicas=2)
            elif action == "pool":
                size = random_.randint(1, 3)
                yield lambda size=size: self.make_pool(size=size)
            elif action == "repository":
                interval = f"{random_.randint(20, 90)}s"
                yield lambda interval=interval: self.make_repository(syncInterval=interval)
            else:
                kind, child = random_.choice([("svc", name), ("cm", f"{name}-desired"), ("role", f"{name}-agent")])
                yield lambda kind=kind, child=child: self.delete(kind, child)
        yield lambda: self.make_pool(size=2)
        yield lambda: self.delete("mdl", "of-server-1")
        yield lambda: self.delete("isrv", "server-0")

    def state(self) -> State:
        """Everything of ours in the namespace, without what another run gives other values."""
        found: State = {}
        bodies = [body for kind in OWN for body in self.objects(kind)]
        pool = self.get("gpunodepool", self.pool)
        for body in [*bodies, *([pool] if pool is not None else [])]:
            status = {k: v for k, v in (body.get("status") or {}).items() if v != []}  # the same as none
            found[f"{body['kind']} {body['metadata']['name']}"] = _settled({**body["spec"], "status": status})
        for kind in CHILDREN:
            for body in self.objects(kind, selector=MANAGED):
                owners = [(o["kind"], o["name"]) for o in body["metadata"].get("ownerReferences") or ()]
                content = {k: _settled(v) for k, v in body.items() if k not in ("metadata", "status")}
                found[f"{kind} {body['metadata']['name']}"] = [owners, body["metadata"]["labels"], content]
        for server in {b["metadata"]["name"] for b in bodies if b["kind"] == "InferenceServer"}:
            found[f"pods {server}"] = len(self.pods(server))
        return found

    def settled(self, alive: Process) -> State:
        """The state, once it stays the same for seconds, no replica is missing and nothing of ``server-0`` is left."""
        until = time.monotonic() + SETTLED_SECONDS
        before = self.state()
        while True:
            time.sleep(3)
            alive()
            after = self.state()
            missing = self._unsettled(before, after)
            if not missing:
                return after
            told = json.dumps(missing, sort_keys=True, indent=1)
            assert time.monotonic() < until, f"not settled within {SETTLED_SECONDS} s: {told}"
            before = after

    def _unsettled(self, before: State, after: State) -> State:
        """What still changes, with both its states, and what else is not as it is in the end."""
        missing = differences(before, after)
        for body in self.objects("isrv"):
            name, status = body["metadata"]["name"], body.get("status") or {}
            said = [c["reason"] for c in status.get("conditions", ()) if c["type"] == "Progressing"]
            if said != ["RolledOut"] or status.get("observedGeneration") != body["metadata"]["generation"]:
                missing[f"not rolled out: {name}"] = status
        left = self.objects(*CHILDREN, "pods", selector="gravswell.dev/server=server-0")
        if left:
            missing["left of server-0"] = [f"{body['kind']} {body['metadata']['name']}" for body in left]
        return missing

    def clear(self) -> None:
        """Delete all, and wait until it has gone."""
        self.delete("gpunodepool", self.pool)
        for kind in OWN:
            self.delete(kind)
        self.until(lambda: not self.objects(*CHILDREN, "pods", selector=MANAGED), 180)


def patiently(act: Callable[[], Answer]) -> Answer:
    """Do it, as a user who tries again where the API server does not answer."""
    until = time.monotonic() + OUTAGE_SECONDS
    while True:
        try:
            return act()
        except (OSError, http.client.HTTPException, GravswellError, KeyError):  # KeyError: kinds not discovered yet
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def differences(one: State, other: State) -> State:
    """What is not the same in both, with both its states."""
    keys = one.keys() | other.keys()
    return {name: [one.get(name), other.get(name)] for name in keys if one.get(name) != other.get(name)}


def assert_same(disturbed: State, undisturbed: State) -> None:
    """The same objects, and each as it is without a fault."""
    assert disturbed.keys() == undisturbed.keys()
    differ = differences(disturbed, undisturbed)
    assert not differ, json.dumps(differ, sort_keys=True, indent=1)


def _settled(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _settled(v) for k, v in value.items() if k not in _GIVEN}
    return [_settled(v) for v in value] if isinstance(value, list) else value
