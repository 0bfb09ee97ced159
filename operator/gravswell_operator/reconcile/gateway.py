"""The routes of a server, as they are seen and as they are changed: a new version gets no request by them before it has
a weight, it has one after its replicas serve and are endpoints, and it loses that before anything else on the way back.
"""

import logging
from collections.abc import Collection, Mapping, Sequence

from gravswell.errors import GravswellError
from gravswell.serving.contracts import Desired, Report
from gravswell_operator import names
from gravswell_operator.api import InferenceServer, Model
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Key, Record
from gravswell_operator.cluster.resources import ENDPOINT_SLICE, GRPC_ROUTE, HTTP_ROUTE, ROUTES, ResourceType
from gravswell_operator.desired import gateway as desired
from gravswell_operator.desired.objects import Manifest
from gravswell_operator.desired.weights import Split, held_back, split_of, weigher
from gravswell_operator.reconcile import apply, documents
from gravswell_operator.reconcile.context import Context
from gravswell_operator.reconcile.index import server_key
from gravswell_operator.state import PodState, RouteState, Unreadable
from gravswell_operator.statuses import gateway
from gravswell_operator.statuses.gateway import Routes, Weighing

log = logging.getLogger(__name__)

SETTLE_SECONDS = 3.0
"""How old endpoints must be before routes send requests, or more of them, to these: a Gateway hears of endpoints and of
routes by watches of their own, in any order, and fails what it sends to endpoints that it has not heard of."""


def _kinds(server: InferenceServer) -> list[ResourceType]:
    """The routes that the server shall have."""
    asked = server.spec.service.gateway
    if asked is None:
        return []
    return [kind for kind, route in ((HTTP_ROUTE, asked.http), (GRPC_ROUTE, asked.grpc)) if route is not None]


def seen(context: Context, server: InferenceServer) -> Routes:
    """What there is of the server's routes."""
    kinds = _kinds(server)
    if not kinds:
        return Routes()
    found = {k.kind: context.child(k, server.metadata.namespace, server.metadata.name) for k in kinds}
    obstacle = None
    for kind in (*kinds, ENDPOINT_SLICE):
        if kind not in context.optional:
            return Routes(gateway.NOT_LOOKED, found)
        why = context.optional[kind]
        if obstacle is None and why is not None:
            obstacle = gateway.missing(f"{kind.plural}.{kind.group}/{kind.version}", why)
    return Routes(obstacle, found)


def divide(
    context: Context,
    record: Record,
    wanted: Desired,
    pods: Sequence[PodState],
    reports: Mapping[str, Report],
    *,
    routes: Routes,
) -> tuple[Desired, Split | None]:
    """What the agents of a server are told of what is ``wanted``, and how its routes divide the requests.

    They are told nothing of a canary with weights until no Gateway sends its replicas requests beside their weight.
    """
    server = record.view
    model = _weigher(context.models(record.key), server, pods, reports)
    split = split_of(model, wanted, pods, reports) if model is not None else None
    if model is None or split is None or _is_divided(routes):
        return wanted, split
    return held_back(wanted, documents.told(context, record.key), model.spec.entry), split


def _weigher(
    models: Collection[Model | Unreadable],
    server: InferenceServer,
    pods: Sequence[PodState],
    reports: Mapping[str, Report],
) -> Model | None:
    return weigher(models, pods, reports) if server.spec.service.gateway is not None else None


def _is_divided(routes: Routes) -> bool:
    """Whether all Gateways tell the old replicas from the new ones."""
    live = routes.found.values()
    return routes.obstacle is None and all(r is not None and r.taken and len(r.backends) > 1 for r in live)


def weighing(
    context: Context,
    model: Model,
    server: InferenceServer,
    pods: Sequence[PodState],
    reports: Mapping[str, Report],
) -> Weighing:
    """What the weights of the canary of ``model`` depend on, beside its own replicas."""
    routes, key = seen(context, server), server_key(model)
    first, told = weigher(context.models(key), pods, reports), documents.told(context, key)
    obstacle, turn = gateway.obstacle(server, routes), first.metadata.name if first is not None else ""
    if turn != model.metadata.name:
        return Weighing(obstacle, turn, f"the canary of Model {turn} has them" if turn else "")
    divided = split_of(first, told, pods, reports) if first is not None and told is not None else None
    new = names.new_replicas(server.metadata.name)
    said = [route.backends for route in routes.found.values() if route is not None]
    live = [weight for backends in said for service, weight in backends if service == new]
    lacking = gateway.lacking(server, routes, desired.backends(server, divided, pods))
    return Weighing(obstacle, turn, lacking, max(live, default=None))


def in_use(context: Context, server: InferenceServer, routes: Routes) -> bool:
    """Whether requests may still go to the Services that told the replicas apart: until every Gateway has seen that no
    route names them. What cannot be looked at may do so, too."""
    name, namespace, kinds = server.metadata.name, server.metadata.namespace, _kinds(server)
    sides = (names.old_replicas(name), names.new_replicas(name)) if kinds else ()
    if all(context.cache.get(Key(resources.SERVICE, namespace, side)) is None for side in sides):
        return False
    rest = desired.backends(server, None, ())
    for kind in kinds:
        route = routes.found[kind.kind]
        if kind not in context.optional or context.optional[kind]:
            return True
        if route is not None and not (route.seen and route.backends == rest):
            return True
    return False


def out_of_reach(context: Context, routes: Routes) -> tuple[ResourceType, ...]:
    """The kinds that are left as they are: all routes, where one of the kinds that they need cannot be had."""
    if routes.obstacle is None:
        return ()
    return (*ROUTES, *([] if context.optional.get(ENDPOINT_SLICE, "") is None else [ENDPOINT_SLICE]))


def settling(context: Context, record: Record, made: Sequence[Manifest]) -> float:
    """Seconds until the routes of ``made`` may be applied, where they raise somebody's share; 0 where they may be now.

    After a restart of the operator all of it is waited for again.
    """
    raised = {name for m in made if resources.of(m) in ROUTES for name in _raised(context, m)}
    known, now, left = context.settling.pop(record.key, {}), context.clock(), 0.0
    settled: dict[Key, tuple[str, float]] = {}
    for manifest in (m for m in made if _serves(m) in raised):
        if not apply.is_settled(context, record, manifest):
            left = SETTLE_SECONDS
            continue
        key, digest = apply.key_of(manifest), manifest["metadata"]["annotations"][names.ANNOTATION_DIGEST]
        before, since = known.get(key, (digest, now))
        settled[key] = (digest, since if before == digest else now)
        left = max(left, settled[key][1] + SETTLE_SECONDS - now)
    if settled:
        context.settling[record.key] = settled
    return left


def _raised(context: Context, route: Manifest) -> set[str]:
    """The Services of a canary that a route shall begin to name, or send more requests to."""
    metadata = route["metadata"]
    live: RouteState | None = context.child(resources.of(route), metadata["namespace"], metadata["name"])
    before = dict(live.backends) if live is not None else {}
    sides = {names.old_replicas(metadata["name"]), names.new_replicas(metadata["name"])}
    wanted = {backend["name"]: backend["weight"] for backend in route["spec"]["rules"][0]["backendRefs"]}
    return {name for name, weight in wanted.items() if name in sides and weight > before.get(name, -1)}


def _serves(manifest: Manifest) -> str | None:
    """The Service that a Service is, or that an EndpointSlice is of."""
    kind, metadata = resources.of(manifest), manifest["metadata"]
    if kind is ENDPOINT_SLICE:
        return str(metadata["labels"][names.LABEL_SERVICE])
    return str(metadata["name"]) if kind is resources.SERVICE else None


async def lower(context: Context, record: Record, made: Sequence[Manifest]) -> None:
    """Apply those routes that shall send fewer requests to the new version than they do, before anybody is told to
    serve the old one again. What fails of it is tried again with all else, and told then."""
    lowered = [m for m in made if resources.of(m) in ROUTES and _is_lower(context, m)]
    try:
        await apply.apply_each(context, record, lowered)
    except GravswellError as error:
        log.warning("%s: the Gateway still sends requests to a new version: %s", record.key, error)


def _is_lower(context: Context, route: Manifest) -> bool:
    metadata = route["metadata"]
    live: RouteState | None = context.child(resources.of(route), metadata["namespace"], metadata["name"])
    new = names.new_replicas(metadata["name"])
    wanted = {backend["name"]: backend["weight"] for backend in route["spec"]["rules"][0]["backendRefs"]}
    return live is not None and new in wanted and dict(live.backends).get(new, 0) > wanted[new]


async def keep_endpoints(
    context: Context, record: Record, pods: Sequence[PodState], reports: Mapping[str, Report]
) -> None:
    """Of a server that is otherwise left alone: replicas that come and go still do so in the EndpointSlices that there
    are, for its routes may name them."""
    there = {child.key.name for child in context.children(record) if child.key.resource is ENDPOINT_SLICE}
    if not there:
        return
    model = _weigher(context.models(record.key), record.view, pods, reports)
    told = documents.told(context, record.key)
    divided = split_of(model, told, pods, reports) if model is not None and told is not None else None
    made = desired.children(record.view, divided, pods, apart=True)
    slices = [m for m in made if resources.of(m) is ENDPOINT_SLICE and m["metadata"]["name"] in there]
    await apply.apply_each(context, record, slices)
