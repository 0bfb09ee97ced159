"""What the operator would create for a set of manifests, and what would stop it: without a cluster. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from gravswell.placement import arrange
from gravswell.serving.contracts import Desired
from gravswell_operator.api import GPUNodePool, InferenceServer, Model, ModelRepository
from gravswell_operator.api.common import Resource
from gravswell_operator.api.rollout import Strategy
from gravswell_operator.desired import devices
from gravswell_operator.desired.autoscaling import asks_prometheus, targets
from gravswell_operator.desired.device_plugin import device_plugin
from gravswell_operator.desired.models import age, winner
from gravswell_operator.desired.objects import Manifest, Options
from gravswell_operator.desired.placement import fewest_replicas, may_surge, peak_replicas
from gravswell_operator.desired.pools import Idleness, bounds
from gravswell_operator.desired.repository import children as repository_children
from gravswell_operator.desired.server import ServerPlan
from gravswell_operator.desired.server import children as server_children
from gravswell_operator.desired.source import SECRET_KEYS
from gravswell_operator.providers import PROVIDERS
from gravswell_operator.quantities import parse
from gravswell_operator.statuses.references import blocker


@dataclass(frozen=True)
class Note:
    """Something that a person should know before applying. An ``error`` is what would never become ready."""

    subject: str
    error: bool
    message: str


@dataclass(frozen=True)
class Needs:
    """What the replicas of one server ask of the cluster at most."""

    replicas: int
    gpus: int
    """Of all replicas."""
    vcpus: Decimal
    """Of all replicas, the agents included."""
    memory_bytes: int
    """Of all replicas, the agents included."""
    surge: bool
    """A roll-out starts a new replica before an old one stops."""
    ranks: bool = False
    """They are ranks, which all stop before one of them starts."""


@dataclass(frozen=True)
class Planned:
    """One of the manifests, and what the operator would make of it."""

    resource: Resource
    children: list[Manifest] = field(default_factory=list)
    needs: Needs | None = None

    @property
    def title(self) -> str:
        """Kind and name, with the namespace where there is one."""
        metadata = self.resource.metadata
        where = f"{metadata.namespace}/" if metadata.namespace else ""
        return f"{self.resource.NAMES.kind} {where}{metadata.name}"


@dataclass(frozen=True)
class Plan:
    """The whole answer."""

    objects: list[Planned]
    notes: list[Note]

    @property
    def blocked(self) -> bool:
        """Whether something would never become ready."""
        return any(note.error for note in self.notes)


@dataclass(frozen=True)
class _World:
    """The manifests, as the operator would find each other by them."""

    pools: dict[str, GPUNodePool]
    repositories: dict[tuple[str, str], ModelRepository]
    servers: dict[tuple[str, str], InferenceServer]
    models: list[Model]

    def on_pool(self, pool: str) -> list[InferenceServer]:
        return [s for s in self.servers.values() if s.spec.node_pool_ref and s.spec.node_pool_ref.name == pool]

    def rivals(self, server: InferenceServer) -> dict[str, list[Model]]:
        """The Models that name the server, by the entry that they are for."""
        found: dict[str, list[Model]] = {}
        for model in self.models:
            if _serves(model, server):
                found.setdefault(model.spec.entry, []).append(model)
        return found


def plan(resources: Sequence[Resource], options: Options) -> Plan:
    """What the operator would create for ``resources`` if they were all that there is.

    Of two with the same kind and name the later one counts, as if they were applied one after the other.
    """
    named = {(r.NAMES.kind, *_name(r)): r for r in resources}
    repeated = [r for r in resources if named[r.NAMES.kind, *_name(r)] is not r]
    resources = list(named.values())
    world = _World(
        pools={r.metadata.name: _full(r) for r in resources if isinstance(r, GPUNodePool)},
        repositories={_name(r): r for r in resources if isinstance(r, ModelRepository)},
        servers={_name(r): r for r in resources if isinstance(r, InferenceServer)},
        models=[r for r in resources if isinstance(r, Model)],
    )
    objects: list[Planned] = []
    notes = [
        Note(Planned(r).title, True, "these files have it more than once; applied, the last one replaces the others")
        for r in repeated
    ]
    for resource in resources:
        planned, found = _plan_one(resource, world, options)
        objects.append(planned)
        notes += [Note(planned.title, error, message) for error, message in found]
    return Plan(objects, [*notes, *_collisions(objects)])


def _collisions(objects: list[Planned]) -> list[Note]:
    """Whose children would bear the name of another's: only the first to come gets it."""
    owners: dict[tuple[str, str, str], Planned] = {}
    rivals: dict[tuple[str, str], list[str]] = {}
    for planned in objects:
        for child in planned.children:
            metadata = child["metadata"]
            key = (child["kind"], metadata.get("namespace", ""), metadata["name"])
            owner = owners.setdefault(key, planned)
            if owner is not planned:
                rivals.setdefault((planned.title, owner.title), []).append(f"{child['kind']} {metadata['name']}")
    return [
        Note(title, True, f"{' and '.join(sorted(children))} would be {owner}'s too: give one of the two another name")
        for (title, owner), children in rivals.items()
    ]


def _name(resource: Resource) -> tuple[str, str]:
    return resource.metadata.namespace, resource.metadata.name


def _full(pool: GPUNodePool) -> GPUNodePool:
    """The pool as it is once all of its nodes are there."""
    nodes = bounds(pool, Idleness()).maximum
    status = pool.status.model_copy(
        update={"nodes": nodes, "ready_nodes": nodes, "allocatable_gpus": nodes * pool.spec.accelerator.count}
    )
    return pool.model_copy(update={"status": status})


_Found = list[tuple[bool, str]]
"""Whether it is an error, and the message."""


def _plan_one(resource: Resource, world: _World, options: Options) -> tuple[Planned, _Found]:
    if isinstance(resource, GPUNodePool | ModelRepository | InferenceServer) and resource.spec.suspend:
        return Planned(resource), [(False, "spec.suspend is true: the operator creates and changes nothing here")]
    if isinstance(resource, GPUNodePool):
        return _plan_pool(resource, world, options)
    if isinstance(resource, ModelRepository):
        return Planned(resource, repository_children(resource, options)), _repository_notes(resource)
    if isinstance(resource, InferenceServer):
        return _plan_server(resource, world, options)
    assert isinstance(resource, Model)
    return Planned(resource), _model_notes(resource, world)


def _repository_notes(repository: ModelRepository) -> _Found:
    """What the objects do not show: whom they need beside them."""
    spec, namespace = repository.spec, repository.metadata.namespace
    if spec.url.startswith("file://"):
        return [(False, f"{spec.url} is a folder that only the development cluster's node can read")]
    if spec.bucket is None:
        return []
    if spec.credentials_secret_ref is not None:
        secret = spec.credentials_secret_ref.name
        keys = SECRET_KEYS[spec.bucket]
        return [(False, f"its pods wait until namespace {namespace} has the Secret {secret}, with {keys}")]
    if spec.service_account_name is not None:
        account = spec.service_account_name
        return [(False, f"no pod is made until namespace {namespace} has the ServiceAccount {account}")]
    return [
        (False, f"without credentialsSecretRef and serviceAccountName {spec.url} is read with the nodes' own identity")
    ]


def _plan_pool(pool: GPUNodePool, world: _World, options: Options) -> tuple[Planned, _Found]:
    made = PROVIDERS[pool.spec.provider.type].objects(pool, bounds(pool, Idleness()))
    if pool.spec.drivers.install:
        made.append(device_plugin(pool, options))
    wanted = sum(s.spec.gpus * peak_replicas(s) for s in world.on_pool(pool.metadata.name))
    offered = world.pools[pool.metadata.name].status.allocatable_gpus
    notes: _Found = []
    if pool.spec.provider.karpenter is not None:
        node_class = pool.spec.provider.karpenter.node_class_ref
        notes.append(
            (False, f"no node is made until the cluster has Karpenter, and {node_class.kind} {node_class.name}")
        )
    if pool.spec.provider.custom is not None:
        needs = f"the operator's image has the provider {pool.spec.provider.custom.name}, as docs/providers.md says"
        notes.append((False, f"no node is made until {needs}"))
    if wanted > offered:
        sized = f"its size of {pool.spec.size}" if pool.spec.size is not None else "one node"
        if pool.spec.autoscaling is not None:
            sized = f"its autoscaling.max of {pool.spec.autoscaling.max}"
        notes.append(
            (
                False,
                f"the servers on it ask for {wanted} GPUs, and {sized} offers {offered}; with fewer nodes than that, "
                "some replicas stay Pending",
            )
        )
    return Planned(pool, made), notes


def _plan_server(server: InferenceServer, world: _World, options: Options) -> tuple[Planned, _Found]:
    namespace = server.metadata.namespace
    repository = world.repositories.get((namespace, server.spec.repository_ref.name))
    reference = server.spec.node_pool_ref
    pool = world.pools.get(reference.name) if reference is not None else None
    notes: _Found = []
    if repository is None:
        notes.append(
            (
                False,
                f"ModelRepository {server.spec.repository_ref.name} is not in these files: nothing is created until "
                f"namespace {namespace} has it",
            )
        )
    if reference is not None and pool is None:
        notes.append(
            (
                False,
                f"GPUNodePool {reference.name} is not in these files: nothing is created until the cluster has it",
            )
        )
    if not any(_serves(model, server) for model in world.models) and server.spec.models == "Declared":
        notes.append((False, "no Model in these files names it, so it would serve nothing; or set models: All"))
    if repository is None or (reference is not None and pool is None):
        return Planned(server), notes
    problem = blocker(server, repository, pool)
    if problem is not None:
        return Planned(server), [*notes, (True, problem.message)]
    on_pool = world.on_pool(pool.metadata.name) if pool is not None else []
    surge = may_surge(server, pool, [(other, peak_replicas(other)) for other in on_pool])
    desired = Desired(repository=repository.spec.url)
    if not options.prometheus:
        options = replace(options, prometheus="(autoscaling.prometheus of the chart)")
    made = server_children(ServerPlan(server, repository, pool, desired, surge, options))
    notes += [*_autoscaling_notes(server), *_gateway_notes(server)]
    if not surge and may_surge(server, pool, [(other, fewest_replicas(other)) for other in on_pool]):
        # The operator goes by the replicas that there are as the roll-out begins.
        notes.append(
            (
                False,
                "with all replicas that autoscalers may bring, no node of its pool has room for another: a roll-out "
                "replaces one at a time then; while there are fewer, and a node has room, the new one starts first",
            )
        )
    return Planned(server, made, _needs(server, made, surge)), notes


def _autoscaling_notes(server: InferenceServer) -> _Found:
    """Whom the autoscaler needs beside it."""
    scaling = server.spec.autoscaling
    if scaling is None:
        return []
    if scaling.keda is None:
        served = [t.metric.served_as for t in targets(scaling) if t.metric is not None]
        needs = f"custom.metrics.k8s.io serves {', '.join(served)}" if served else "metrics.k8s.io is there"
        return [(False, f"it scales as soon as the API {needs} (docs/autoscaling.md)")]
    asked = ", and the installation names a Prometheus (autoscaling.prometheus)" if asks_prometheus(scaling) else ""
    return [(False, f"it scales as soon as the cluster has KEDA{asked}")]


def _gateway_notes(server: InferenceServer) -> _Found:
    """Whom the routes need beside them."""
    gateway, namespace = server.spec.service.gateway, server.metadata.namespace
    if gateway is None:
        return []
    parents = [parent for route in (gateway.http, gateway.grpc) if route is not None for parent in route.parent_refs]
    named = sorted({f"{parent.namespace or namespace}/{parent.name}" for parent in parents})
    needs = f"has the Gateway API, and {', '.join(named)}, whose listeners allow routes from namespace {namespace}"
    notes = [(False, f"no request comes through a Gateway until the cluster {needs}")]
    if gateway.collides:
        why = "http and grpc of service.gateway ask for the same hostname of the same listener, which takes one of them"
        notes.append((True, f"{why}: set other hostnames for each, or another sectionName"))
    return notes


def _serves(model: Model, server: InferenceServer) -> bool:
    return model.metadata.namespace == server.metadata.namespace and (
        model.spec.server_ref.name == server.metadata.name
    )


def _needs(server: InferenceServer, made: list[Manifest], surge: bool) -> Needs:
    replicas = peak_replicas(server)
    workload = next(m for m in made if m["kind"] in ("Deployment", "StatefulSet"))
    containers: list[dict[str, Any]] = workload["spec"]["template"]["spec"]["containers"]
    requests = [c["resources"]["requests"] for c in containers]
    return Needs(
        replicas=replicas,
        gpus=replicas * server.spec.gpus,
        vcpus=replicas * sum((parse(r["cpu"]) for r in requests), Decimal(0)),
        memory_bytes=int(replicas * sum((parse(r["memory"]) for r in requests), Decimal(0))),
        surge=surge,
        ranks=server.spec.ranks is not None,
    )


def _model_notes(model: Model, world: _World) -> _Found:
    if model.spec.suspend:
        return [(False, "spec.suspend is true: the server keeps what was resolved last, and at first has nothing")]
    namespace, server = model.metadata.namespace, model.spec.server_ref.name
    if (namespace, server) not in world.servers:
        return [(False, f"InferenceServer {server} is not in these files; nothing serves it until {namespace} has it")]
    rivals = world.rivals(world.servers[namespace, server])
    first = winner(rivals[model.spec.entry])
    if first is not model:
        return [
            (True, f"Model {first.metadata.name} is for the same entry {model.spec.entry} of the same server; one of "
             "the two would get the condition Conflict")
        ]  # fmt: skip
    found = world.servers[namespace, server]
    return [*_place_notes(model, found, map(winner, rivals.values())), *_rollout_notes(model, found)]


def _rollout_notes(model: Model, server: InferenceServer) -> _Found:
    """Where a canary is none."""
    name = server.metadata.name
    if model.spec.rollout.strategy is not Strategy.CANARY:
        return []
    if server.spec.ranks is not None:
        return [(False, f"all ranks of InferenceServer {name} are one replica, so a new version goes to all at once")]
    if model.spec.rollout.plan.weighted and server.spec.service.gateway is None:
        why = "a weight is a share of what comes through a Gateway"
        way_out = "set its service.gateway, or leave weight out of the canary's steps"
        return [(True, f"no new version would be rolled out: {why}, and InferenceServer {name} has none; {way_out}")]
    if peak_replicas(server) > 1:
        return []
    return [
        (False, f"InferenceServer {name} has no more than one replica, so a canary takes all of the traffic, and the "
         "judge has no old version to compare it with")
    ]  # fmt: skip


def _place_notes(model: Model, server: InferenceServer, models: Iterable[Model]) -> _Found:
    """Whether there are devices for ``model``, where these are all that the server has."""
    choosing = sorted((m for m in models if not m.spec.suspend), key=age)
    layout = arrange([wish for m in choosing for wish in devices.wishes(m)], server.spec.gpus)
    if model.spec.entry not in layout.refused:
        return []
    return [(True, devices.refusal(server, layout, model.spec.entry))]
