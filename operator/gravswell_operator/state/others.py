"""Kinds whose definitions others install: KEDA's, Karpenter's, the GPU Operator's and the Gateway API's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gravswell_operator.state.base import Raw


@dataclass(frozen=True, slots=True)
class ScaledObjectState:
    """What KEDA says of a ScaledObject."""

    ready: bool | None
    """None: it has not looked yet."""
    message: str = ""
    """Its own words where it is not ready."""
    paused: bool = False
    """By an annotation of KEDA's: it scales nothing."""
    going: str = ""
    """When it was deleted, which KEDA must let happen; empty: it was not."""


@dataclass(frozen=True, slots=True)
class MachineState:
    """A node that was asked for, from then until it is gone."""

    name: str
    node: str
    """Its node's name; empty until it joins."""
    waits_for: str
    """What it waits for, in words; empty once its node is ready and offers what it shall."""
    terminating: bool


@dataclass(frozen=True, slots=True)
class MakerState:
    """What makes a pool's nodes."""

    ready: bool | None
    """None: nobody has looked at it yet."""
    message: str = ""
    """Its own words where it is not."""


@dataclass(frozen=True, slots=True)
class ClusterPolicyState:
    """The object by which NVIDIA's GPU Operator is told to install drivers and device plugins."""

    name: str
    state: str
    """As it says itself: ready, notReady or ignored; empty before it has looked."""
    plugins: bool = True
    """It installs device plugins: unless it says otherwise, as in the GPU Operator itself."""


@dataclass(frozen=True, slots=True)
class RouteState:
    """A route of the Gateway API, and what becomes of it."""

    backends: tuple[tuple[str, int], ...]
    """The Services that its requests go to, and the weight of each."""
    seen: bool
    """Each of its Gateways has looked at it as it is now."""
    refusal: str = ""
    """Why a Gateway does not take it, in that one's own words; empty where all do that have looked."""

    @property
    def taken(self) -> bool:
        """Whether all of its Gateways send requests by it as it is now."""
        return self.seen and not self.refusal


def scaled_object(raw: Raw) -> ScaledObjectState:
    """KEDA's ScaledObject, by its conditions."""
    conditions = {c["type"]: c for c in (raw.get("status") or {}).get("conditions") or ()}
    ready, paused = conditions.get("Ready", {}), conditions.get("Paused", {})
    message = ready.get("message") or ready.get("reason") or ""
    # Unknown with a reason: some of its triggers cannot be read. Without one, it has not looked.
    unknown = False if message else None
    return ScaledObjectState(
        ready={"True": True, "False": False}.get(ready.get("status", ""), unknown),
        message=message,
        paused=paused.get("status") == "True",
        going=raw["metadata"].get("deletionTimestamp") or "",
    )


_STEPS = ("Launched", "Registered", "Initialized")
"""What a NodeClaim's machine goes through, in this order."""


_WAITS = {
    "Launched": "its machine is being made",
    "Registered": "its machine was made and has not joined the cluster",
    "Initialized": "its node has joined, and is not ready or does not offer its GPUs yet",
}


def machine(raw: Raw) -> MachineState:
    """A NodeClaim of Karpenter's."""
    status = raw.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    waits = ""
    for step in _STEPS:
        condition = conditions.get(step, {})
        if condition.get("status") != "True":
            said = condition.get("message") or ""
            waits = _WAITS[step] + (f" ({said})" if said and said != condition.get("reason") else "")
            break
    return MachineState(
        name=raw["metadata"]["name"],
        node=status.get("nodeName") or "",
        waits_for=waits,
        terminating=bool(raw["metadata"].get("deletionTimestamp")),
    )


def maker(raw: Raw) -> MakerState:
    """A NodePool of Karpenter's, by its conditions."""
    conditions = {c["type"]: c for c in (raw.get("status") or {}).get("conditions") or ()}
    ready = conditions.pop("Ready", {})
    if ready.get("status") == "True":
        return MakerState(True)
    wrong = [c for c in conditions.values() if c["status"] == "False"]
    words = "; ".join(f"{c['type']} is False: {c.get('message') or c.get('reason', '')}" for c in wrong)
    return MakerState(False if wrong else None, words)


def cluster_policy(raw: Raw) -> ClusterPolicyState:
    """The GPU Operator's ClusterPolicy."""
    state = (raw.get("status") or {}).get("state") or ""
    plugin = (raw.get("spec") or {}).get("devicePlugin") or {}
    return ClusterPolicyState(name=raw["metadata"]["name"], state=state, plugins=plugin.get("enabled") is not False)


_WANTED = ("Accepted", "ResolvedRefs")
"""The conditions of a route that must hold for each of its Gateways."""


def route(raw: Raw) -> RouteState:
    """An HTTPRoute or a GRPCRoute of ours: one rule, and what each of its Gateways says of it."""
    metadata, spec = raw["metadata"], raw.get("spec") or {}
    rules: list[Raw] = spec.get("rules") or [{}]
    backends = tuple((b["name"], b.get("weight", 1)) for b in rules[0].get("backendRefs") or ())
    namespace, generation = metadata.get("namespace", ""), metadata.get("generation", 0)
    said: dict[tuple[Any, ...], list[Mapping[str, Raw]]] = {}
    for parent in (raw.get("status") or {}).get("parents") or ():
        current = {c["type"]: c for c in parent.get("conditions") or () if c.get("observedGeneration", 0) >= generation}
        said.setdefault(_parent(parent["parentRef"], namespace), []).append(current)
    asked = [said.get(_parent(reference, namespace), []) for reference in spec.get("parentRefs") or ()]
    # Of one Gateway several controllers may speak; one that does not take the route tells of its own trouble.
    looked = [conditions for parent in asked for conditions in parent]
    return RouteState(
        backends=backends,
        seen=bool(asked) and all(any(_wanted_in(conditions) for conditions in parent) for parent in asked),
        refusal=next((words for conditions in looked if (words := _refusal(conditions))), ""),
    )


def _parent(reference: Raw, namespace: str) -> tuple[Any, ...]:
    return reference.get("namespace") or namespace, *(reference.get(k) for k in ("name", "sectionName", "port"))


def _wanted_in(conditions: Mapping[str, Raw]) -> bool:
    return all(kind in conditions for kind in _WANTED)


def _refusal(conditions: Mapping[str, Raw]) -> str:
    wrong = (c for kind in _WANTED if (c := conditions.get(kind)) is not None and c.get("status") != "True")
    return next((f"{c['type']} is {c.get('status')}: {c.get('message') or c.get('reason', '')}" for c in wrong), "")
