"""Who uses a cluster's servers and their GPUs now: by what the objects say of themselves, and Triton's own metrics.

Reads the API server as a user may, and the pods' metrics where this machine reaches them. Nothing is written.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from pydantic import ValidationError

from gravswell import addresses, utils
from gravswell.errors import NotFoundError
from gravswell.kube import resources as kube
from gravswell.kube.client import Client
from gravswell.kube.errors import ApiForbiddenError, ApiNotFoundError
from gravswell.kube.resources import Selection
from gravswell.serving.contracts import ModelState
from gravswell_operator import conditions, names, state
from gravswell_operator.api import ConditionStatus, InferenceServer, Model
from gravswell_operator.api.common import Resource
from gravswell_operator.api.rollout import RolloutState
from gravswell_operator.cluster import resources
from gravswell_operator.desired.models import winner

METRICS_SECONDS = 1.5
"""How long a replica may take to tell its metrics. One that is out of reach costs no more than this."""
TRITON_PODS = names.selector_text({names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_ROLE: names.ROLE_TRITON})


@dataclass(frozen=True)
class ModelUse:
    """A model on one replica."""

    name: str
    version: int | None
    """What takes traffic there; None for nothing."""
    state: str
    """Of :class:`ModelState`; of a model that is not served anywhere, the reason."""
    devices: tuple[int, ...]
    """Those that it was given; none where it runs on every one."""
    message: str = ""


@dataclass(frozen=True)
class ReplicaUse:
    """One pod of a server."""

    pod: str
    node: str
    ready: bool
    models: tuple[ModelUse, ...]
    gpu_use: tuple[float, ...] | None = None
    """Percent of each of its GPUs, in the order of their UUIDs, which need not be that of their numbers; None where its
    metrics are out of reach or tell of no GPU."""
    rank: int | None = None
    """Which one it is, of a server with ranks."""
    lacks: str = ""
    """Why this rank keeps all of them out of service, in words; empty where it does not."""


@dataclass(frozen=True)
class RolloutUse:
    """A change of a model's version that is under way, or was rolled back."""

    model: str
    """The entry."""
    from_version: int | None
    """What served before; None for nothing."""
    to: int
    state: RolloutState
    progress: str
    """Where it stands, in a few words."""
    weight: int | None
    """Percent of the requests through the server's Gateway that the new version gets by the routes as they are; None
    where each replica gets the same."""
    message: str


@dataclass(frozen=True)
class ServerUse:
    """One InferenceServer."""

    namespace: str
    name: str
    ready: bool
    reason: str
    message: str
    gpus: int
    """Of each replica."""
    simulated_gpus: bool
    replicas: tuple[ReplicaUse, ...]
    unserved: tuple[ModelUse, ...]
    """Models of the server that no replica was told to serve, and why."""
    startup: dict[str, Any] | None = None
    """``status.startup``: where the time of the last start of a replica went, or goes."""
    rollouts: tuple[RolloutUse, ...] = ()
    """By model."""


@dataclass(frozen=True)
class Usage:
    """All servers that were asked for, by name."""

    servers: tuple[ServerUse, ...]
    notes: tuple[str, ...] = ()
    """What could not be seen."""


async def look(
    client: Client, *, namespace: str | None = None, selector: str = "", name: str | None = None, metrics: bool = True
) -> Usage:
    """The servers of a namespace, or of all (None), that have the labels of ``selector``, or just the one of a name.

    Raises :class:`NotFoundError` where that one is not there, or the cluster has no such kind, and what
    :class:`Client` raises.
    """
    notes: list[str] = []
    try:
        listed, models = await asyncio.gather(
            client.list_all(Selection(resources.INFERENCE_SERVER, namespace, name=name, labels=selector)),
            client.list_all(Selection(resources.MODEL, namespace)),
        )
    except ApiNotFoundError:
        raise NotFoundError(
            "the cluster has no InferenceServers: install gravswell's chart, or choose another cluster with --context"
        ) from None
    if name is not None and not listed.items:
        where = "in any namespace" if namespace is None else f"in namespace {namespace}"
        labels = f" with the labels {selector}" if selector else ""
        raise NotFoundError(f"there is no InferenceServer {name}{labels} {where}; gravswell top -A shows all")
    pods: Sequence[Mapping[str, Any]] = ()
    if listed.items:
        try:
            pods = (await client.list_all(Selection(kube.POD, namespace, labels=TRITON_PODS))).items
        except ApiForbiddenError as error:
            notes.append(f"{error}; replicas are shown as the Models know them")
    servers = _parsed(InferenceServer, listed.items, notes)
    usage = Usage(tuple(use_of(s, _parsed(Model, _of(s, models.items), notes), _pods(s, pods)) for s in servers))
    if metrics:
        usage = await _with_gpu_use(usage, {_key(pod["metadata"]): pod for pod in pods})
    return replace(usage, notes=tuple(dict.fromkeys(notes)))


def _parsed(kind: type[Resource], items: Iterable[Mapping[str, Any]], notes: list[str]) -> list[Any]:
    found = []
    for item in items:
        try:
            found.append(kind.model_validate(item))
        except ValidationError as error:
            what = f"{kind.NAMES.kind} {'/'.join(_key(item['metadata']))}"
            notes.append(f"{what} is of another release of gravswell and left out: {error.errors()[0]['msg']}")
    return sorted(found, key=lambda r: (r.metadata.namespace, r.metadata.name))


def _key(metadata: Mapping[str, Any]) -> tuple[str, str]:
    return metadata.get("namespace", ""), metadata["name"]


def _of(server: InferenceServer, models: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The Models that name the server."""
    wanted = server.metadata.namespace, server.metadata.name
    references = ((item, (item.get("spec") or {}).get("serverRef") or {}) for item in models)
    return [item for item, to in references if (item["metadata"].get("namespace", ""), to.get("name")) == wanted]


def _pods(server: InferenceServer, pods: Iterable[Mapping[str, Any]]) -> list[state.PodState]:
    wanted = server.metadata.namespace, server.metadata.name
    own = (
        p
        for p in pods
        if (p["metadata"].get("namespace", ""), p["metadata"]["labels"].get(names.LABEL_SERVER)) == wanted
    )
    return sorted((pod for pod in map(state.pod, own) if pod.active), key=_order)


def _order(pod: state.PodState) -> tuple[int, str]:
    return pod.rank.number if pod.rank is not None else 0, pod.name


def use_of(server: InferenceServer, models: Sequence[Model], pods: Sequence[state.PodState]) -> ServerUse:
    """One server, by its own status, those of the Models that name it, and its pods. Pure."""
    ready = conditions.ready(server.status)
    declared = {entry: winner(m for m in models if m.spec.entry == entry) for entry in {m.spec.entry for m in models}}
    listed = {loaded.name for loaded in server.status.models}
    # The server's status names the first hundred; of the others the Models themselves say what became of them.
    told = listed | {entry for entry, model in declared.items() if model.status.desired_version is not None}
    known = {replica.pod for model in declared.values() for replica in model.status.replicas}
    there = list(pods) or [_unseen(name, ready=True) for name in sorted(known)]
    ranks = {rank.pod: rank for rank in server.status.ranks}
    there += [_unseen(name, ready=False) for name in ranks if name not in {pod.name for pod in there}]
    there.sort(key=lambda pod: ranks[pod.name].rank if pod.name in ranks else len(ranks))
    return ServerUse(
        namespace=server.metadata.namespace,
        name=server.metadata.name,
        ready=ready is not None and ready.status is ConditionStatus.TRUE,
        reason=ready.reason if ready is not None else "",
        message=ready.message if ready is not None else "the operator has not looked at it yet",
        gpus=server.spec.gpus,
        simulated_gpus=server.status.simulated_gpus,
        replicas=tuple(
            ReplicaUse(
                pod.name,
                pod.node,
                pod.ready,
                tuple(_models(server, declared, told, pod.name, len(there))),
                rank=ranks[pod.name].rank if pod.name in ranks else None,
                lacks=ranks[pod.name].message if pod.name in ranks else "",
            )
            for pod in there
        ),
        unserved=tuple(_unserved(model) for entry, model in sorted(declared.items()) if entry not in told),
        startup=server.status.startup.to_dict() if server.status.startup is not None else None,
        rollouts=tuple(_rollouts(declared)),
    )


def _rollouts(declared: Mapping[str, Model]) -> Iterable[RolloutUse]:
    for entry, model in sorted(declared.items()):
        last = model.status.rollout
        if last is not None and last.state is not RolloutState.COMPLETE:
            yield RolloutUse(entry, last.from_version, last.to, last.state, last.progress, last.weight, last.message)


def _unseen(pod: str, *, ready: bool) -> state.PodState:
    return state.PodState(pod, ready=ready, terminating=False, finished=False, problem=None)


def _models(
    server: InferenceServer, declared: Mapping[str, Model], told: Iterable[str], pod: str, pods: int
) -> Iterable[ModelUse]:
    """What became on one replica of each entry that it was told to serve."""
    listed = {loaded.name: loaded for loaded in server.status.models}
    for name in sorted(told):
        model, loaded = declared.get(name), listed.get(name)
        placed = model.status.placement if model is not None else None
        devices = (
            tuple(placed.devices)
            if placed is not None
            else tuple(device.device for device in server.status.devices if name in device.models)
        )
        said = next((r for r in model.status.replicas if r.pod == pod), None) if model is not None else None
        if said is not None:
            yield ModelUse(name, said.version, said.state.value, devices, said.message)
        elif loaded is not None:  # of an entry without a Model only the number of replicas is told
            everywhere = loaded.replicas >= pods
            yield ModelUse(name, loaded.version, ModelState.SERVING.value if everywhere else "", devices)
        else:
            yield ModelUse(name, None, "", devices)


def _unserved(model: Model) -> ModelUse:
    ready = conditions.ready(model.status)
    reason, message = (ready.reason, ready.message) if ready is not None else ("", "the operator has not looked yet")
    return ModelUse(model.spec.entry, None, reason, (), message)


async def _with_gpu_use(usage: Usage, pods: Mapping[tuple[str, str], Mapping[str, Any]]) -> Usage:
    """``usage``, with what those replicas say of their GPUs that have some and are in reach."""
    asked = {
        key: address
        for server in usage.servers
        for replica in server.replicas
        if server.gpus and not server.simulated_gpus and replica.ready
        if (key := (server.namespace, replica.pod)) in pods
        if (address := (pods[key].get("status") or {}).get("podIP"))
    }
    told = dict(zip(asked, await read_gpu_use(list(asked.values())), strict=True))
    servers = (
        replace(s, replicas=tuple(replace(r, gpu_use=told.get((s.namespace, r.pod))) for r in s.replicas))
        for s in usage.servers
    )
    return replace(usage, servers=tuple(servers))


async def read_gpu_use(hosts: Sequence[str]) -> list[tuple[float, ...] | None]:
    """Percent of each GPU of the replicas at ``hosts``, in the order of their UUIDs; None of one that does not say."""
    timeout = aiohttp.ClientTimeout(total=METRICS_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        return await asyncio.gather(*(_read(session, host) for host in hosts))


async def _read(session: aiohttp.ClientSession, host: str) -> tuple[float, ...] | None:
    try:
        async with session.get(f"http://{addresses.join(host, names.PORT_METRICS)}/metrics") as answer:
            return tuple(utils.gpu_use(await answer.text()).values()) or None
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None  # outside the cluster's network, pods are not to be reached: what the objects say is shown
