"""The autoscaler of a server: what is seen of it, and how replicas pass from one owner to the next without a jump."""

import logging
from collections.abc import Collection, Sequence
from datetime import datetime

from gravswell.kube import errors
from gravswell_operator import names, state
from gravswell_operator.api import InferenceServer
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Key, Record
from gravswell_operator.cluster.resources import ResourceType
from gravswell_operator.desired.autoscaling import may_sleep
from gravswell_operator.desired.objects import Manifest
from gravswell_operator.reconcile import apply
from gravswell_operator.reconcile.context import Context
from gravswell_operator.statuses import autoscaling
from gravswell_operator.statuses.autoscaling import Scaling

_AUTOSCALERS = (resources.AUTOSCALER, resources.SCALED_OBJECT)

log = logging.getLogger(__name__)


def seen(context: Context, server: InferenceServer) -> Scaling:
    """What there is of the server's autoscaler."""
    name, namespace = server.metadata.name, server.metadata.namespace
    scaled: state.ScaledObjectState | None = context.child(resources.SCALED_OBJECT, namespace, name)
    going = _going(context, server, scaled)
    return Scaling(
        context.child(resources.AUTOSCALER, namespace, names.keda_autoscaler(name) if _by_keda(server) else name),
        scaled,
        autoscaling.obstacle(server, context.options.prometheus, going or _keda_missing(context)),
        going if going is not autoscaling.LEAVING and not _by_keda(server) else None,
    )


def _going(context: Context, server: InferenceServer, scaled: state.ScaledObjectState | None) -> state.Problem | None:
    """Why a ScaledObject that was deleted is still there: KEDA is about to let it go, or is not there to do so."""
    if scaled is None or not scaled.going:
        return None
    passed = (context.now() - datetime.fromisoformat(scaled.going)).total_seconds()
    if passed >= autoscaling.LETTING_GO_SECONDS:
        return autoscaling.held_by_keda(server)
    key = Key(resources.INFERENCE_SERVER, server.metadata.namespace, server.metadata.name)
    context.queue.add(key, autoscaling.LETTING_GO_SECONDS - passed)
    return autoscaling.LEAVING


def contested(context: Context, server: InferenceServer) -> state.Problem | None:
    """Why the server's replicas cannot pass to whom they shall: KEDA scales it, by an object that we cannot see.

    It shows by the HorizontalPodAutoscaler that KEDA makes for a ScaledObject, and that goes with it.
    """
    kind = resources.SCALED_OBJECT
    if _by_keda(server) or _autoscaler_of_keda(context, server) is None:
        return None
    if kind not in context.optional:
        return autoscaling.NOT_LOOKED
    why = context.optional[kind]
    return autoscaling.out_of_sight(server, why) if why else None


def _by_keda(server: InferenceServer) -> bool:
    return server.spec.autoscaling is not None and server.spec.autoscaling.keda is not None


def _autoscaler_of_keda(context: Context, server: InferenceServer) -> Record | None:
    """What KEDA made for the server's ScaledObject, whose labels it bears."""
    name, namespace = server.metadata.name, server.metadata.namespace
    found = context.cache.get(Key(resources.AUTOSCALER, namespace, names.keda_autoscaler(name)))
    return found if found is not None and found.labels.get(names.LABEL_SERVER) == name else None


def _keda_missing(context: Context) -> state.Problem | None:
    """Why nothing can be known of ScaledObjects."""
    kind = resources.SCALED_OBJECT
    if kind not in context.optional:
        return autoscaling.NOT_LOOKED
    why = context.optional[kind]
    return None if why is None else autoscaling.keda_missing(f"{kind.plural}.{kind.group}/{kind.version}", why)


async def apply_children(
    context: Context,
    record: Record,
    made: Sequence[Manifest],
    scaling: Scaling,
    out_of_reach: Collection[ResourceType] = (),
) -> None:
    """Make the children what is wanted, and let nobody take a replica away on the way from one autoscaler to another.

    What is of a kind that is ``out_of_reach`` stays as it is.

    An autoscaler that is no longer wanted goes first: KEDA refuses to scale what another one scales, and neither may
    answer what we write of the replicas. With a ScaledObject goes what KEDA made for it: where KEDA itself is gone,
    nobody else would take that away.
    """
    left_alone = {*out_of_reach, *([resources.SCALED_OBJECT] if scaling.obstacle is not None else [])}
    wanted = [m for m in made if resources.of(m) not in left_alone]
    kinds = {resources.of(manifest) for manifest in made}
    for kind in _AUTOSCALERS:
        found = context.cache.get(Key(kind, record.key.namespace, record.key.name))
        # One that lost its owner (--cascade=orphan) would scale on beside us.
        if kind not in kinds and found is not None and not found.going and apply.may_write(record, found):
            await _delete(context, record, found)
    left = _autoscaler_of_keda(context, record.view)
    if left is not None and not left.going and (scaling.abandoned or not _by_keda(record.view)):
        await _delete(context, record, left)
    await _hand_over_replicas(context, record, made, scaling)
    await apply.apply_children(context, record, wanted, made)


async def _delete(context: Context, owner: Record, unwanted: Record) -> None:
    log.info("%s: deleting %s, which is no longer wanted", owner.key, unwanted.key)
    await context.client.delete(unwanted.key.resource, unwanted.key.namespace, unwanted.key.name, unwanted.uid)


async def _hand_over_replicas(context: Context, owner: Record, made: Sequence[Manifest], seen: Scaling) -> None:
    """Before we let go of the Deployment's replicas, give them to a second owner.

    A field that loses its only owner falls back to its default, and a server of ten replicas to one. The second
    owner holds them until the autoscaler, which writes through ``/scale``, takes them. It never takes none: to an
    autoscaler that is switched off, so where somebody scaled to none, they are set again. KEDA's may have none, and
    keeps it so while it is paused; where KEDA is gone, one that sleeps is woken.
    """
    server: InferenceServer = owner.view
    scaling = server.spec.autoscaling
    if scaling is None:
        return
    name, namespace = server.metadata.name, server.metadata.namespace
    record = context.cache.get(Key(resources.DEPLOYMENT, namespace, name))
    if record is None or not apply.may_write(owner, record):
        return
    live: state.WorkloadState = record.view
    running = live.desired
    least = max(scaling.min_replicas, 1) if seen.abandoned else scaling.min_replicas
    if running or (may_sleep(server) and not seen.abandoned):
        if _has_digest_of(record, made):
            return  # we have let go already
        held = await _held(context, record)
        if held is None:
            return
        running = held
    elif _is_paused(context, namespace, name):
        return
    replicas = min(max(running, least), scaling.max_replicas)
    manifest = {
        "apiVersion": resources.DEPLOYMENT.api_version,
        "kind": resources.DEPLOYMENT.kind,
        "metadata": {"name": name, "namespace": namespace, "uid": record.uid},
        "spec": {"replicas": replicas},
    }
    body = await context.client.apply(resources.DEPLOYMENT, manifest, manager=names.HANDOVER_MANAGER)
    context.observe(resources.DEPLOYMENT, body)


def _is_paused(context: Context, namespace: str, name: str) -> bool:
    scaled: state.ScaledObjectState | None = context.child(resources.SCALED_OBJECT, namespace, name)
    return scaled is not None and scaled.paused


async def _held(context: Context, record: Record) -> int | None:
    """The replicas that are ours to give; None where we have let go of them, and an autoscaler may write them now.

    Asked of the API server, which alone knows who owns a field: an autoscaler that we see may have gone already.
    """
    try:
        body = await context.client.get(resources.DEPLOYMENT, record.key.namespace, record.key.name)
    except errors.ApiNotFoundError:
        return None
    owners = (m for m in body["metadata"].get("managedFields") or () if m["manager"] == names.FIELD_MANAGER)
    owned = any("f:replicas" in (fields.get("fieldsV1") or {}).get("f:spec", {}) for fields in owners)
    return int(body["spec"]["replicas"]) if owned else None


def _has_digest_of(record: Record, made: Sequence[Manifest]) -> bool:
    """Whether the Deployment is the one that is wanted, whose replicas we do not say."""
    wanted = next(m["metadata"]["annotations"] for m in made if resources.of(m) is record.key.resource)
    live = record.body()
    said = (live["metadata"].get("annotations") or {}).get(names.ANNOTATION_DIGEST) if live else record.checked
    return bool(said == wanted[names.ANNOTATION_DIGEST])
