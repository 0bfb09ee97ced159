"""Reconciling a ``GPUNodePool``: what makes its nodes, its device plugin, and what became of both."""

from collections.abc import Sequence

from gravswell.errors import GravswellError
from gravswell.kube.resources import Selection
from gravswell_operator import conditions, names, state
from gravswell_operator.api import ConditionStatus, GPUNodePool
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Key, Record
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.device_plugin import device_plugin
from gravswell_operator.desired.objects import Manifest
from gravswell_operator.desired.pools import bounds, idleness, in_use
from gravswell_operator.providers import PROVIDERS, nodes_of
from gravswell_operator.providers.base import CloudState
from gravswell_operator.reconcile import apply, clouds, jumps, status
from gravswell_operator.reconcile.context import Context
from gravswell_operator.state import Problem
from gravswell_operator.statuses import pool as statuses

_SHOWN = 3
"""Pods that a message names before it says how many more."""


async def reconcile(context: Context, record: Record) -> None:
    """One pass over one pool."""
    pool = jumps.unused_since(context, record)
    # A server that cannot be read may run on the pool: its nodes must not go for that.
    used = in_use(pool, context.referrers(record.key, resources.INFERENCE_SERVER)) or context.unreadable(record.key)
    idle = idleness(pool, used=used, now=context.now())
    jumps.note(context, record.key, record.view.status.idle_since, idle.stamp)
    shall = bounds(pool, idle)
    made = PROVIDERS[pool.spec.provider.type].objects(pool, shall)
    kinds = {resources.of(manifest) for manifest in made}
    asked = kinds | ({resources.CLUSTER_POLICY} if pool.spec.drivers.install else set())
    if any(kind not in context.optional for kind in asked):
        return  # nobody has looked for them yet, and who does wakes every pool
    missing = next((_missing(context, pool, kind) for kind in kinds if context.optional[kind] is not None), None)
    policy, unknown = _policy(context), None
    plugins: list[Manifest] = []
    if pool.spec.drivers.install and policy is None:
        if context.optional[resources.CLUSTER_POLICY]:  # refused: a second plugin would fight with the GPU Operator's
            unknown = _missing(context, pool, resources.CLUSTER_POLICY)
        plugins.append(device_plugin(pool, context.options))
    failure: GravswellError | None = None
    plugin_failure: GravswellError | None = None
    cloud: CloudState | None = None
    # Of kinds that cannot be seen nothing is applied; they stay, for they may come into sight during this pass.
    try:
        if missing is None and _lost(context, pool, made) and await _gone(context, record):
            context.forget(record)
            return
        cloud = await clouds.step(context, record, shall)
        await apply.apply_children(context, record, made if missing is None else (), keep=(*made, *plugins))
    except clouds.BusyError:
        context.queue.add(record.key, clouds.BUSY_SECONDS)
        return
    except GravswellError as error:
        failure = error
    try:
        await apply.apply_children(context, record, plugins if unknown is None else (), keep=(*made, *plugins))
    except GravswellError as error:
        plugin_failure = error
    plugin: state.WorkloadState | None = context.child(
        resources.DAEMON_SET, context.options.drivers_namespace, names.device_plugin(pool.metadata.name)
    )
    view = statuses.PoolView(
        pool=pool,
        nodes=nodes_of(pool, (r.view for r in context.cache.all(resources.NODE) if r.view is not None)),
        plugin=plugin,
        plugin_pods=context.pods(record.key),
        plugin_problem=apply.problem(plugin_failure) if plugin_failure is not None else None,
        policy=policy,
        policy_unknown=unknown,
        problem=apply.problem(failure) if failure is not None else None,
        missing=missing if cloud is None else cloud.problem,
        maker=context.child(resources.KARPENTER_NODE_POOL, "", pool.metadata.name)
        if cloud is None
        else state.MakerState(True),
        remembered=cloud.remembered if cloud is not None else pool.status.cloud,
        machines=context.machines(record.key),
        used=used,
        idle=idle,
    )
    await status.write(context, record, statuses.findings(view), statuses.fields(view))
    if (failed := failure or plugin_failure) is not None:
        raise failed
    if idle.remaining:
        context.queue.add(record.key, idle.remaining)


def tell_draining(context: Context, key: Key) -> None:
    """Say which servers' pods the nodes of a pool that is gone wait for, in an event about each of its NodeClaims.

    There is no pool any more whose status could say it, and Karpenter tells how many pods there are, not which.
    """
    claims = [
        r for k in context.index.children(key) if (r := context.cache.get(k)) and k.resource is resources.NODE_CLAIM
    ]
    told = context.draining.pop(key, set()) & {claim.uid for claim in claims}
    for claim in claims:
        node = claim.view.node
        if claim.uid in told or not claim.view.terminating or not node:
            continue
        pods = [p for p in context.cache.all(resources.POD) if p.view.node == node and not p.view.finished]
        waits_for = sorted(f"{p.key.namespace}/{p.key.name}" for p in pods if names.LABEL_POOL not in p.labels)
        if not waits_for:
            continue
        told.add(claim.uid)
        more = f" and {len(waits_for) - _SHOWN} more" if len(waits_for) > _SHOWN else ""
        message = (
            f"GPUNodePool {key.name} is gone, and node {node} drains: it waits for "
            f"{', '.join(waits_for[:_SHOWN])}{more}, whose disruption budgets are respected until its "
            "terminationGracePeriod is over"
        )
        said = conditions.Transition("Drained", ConditionStatus.FALSE, Reason.DELETING, message)
        context.recorder.transition(status.reference(claim), said)
    if told:
        context.draining[key] = told


def _lost(context: Context, pool: GPUNodePool, made: Sequence[Manifest]) -> bool:
    """Whether what makes the pool's nodes was there, by what the status says, and is not there now."""
    told = any(condition.type == conditions.PROVISIONED for condition in pool.status.conditions)
    keys = (Key(resources.of(manifest), "", manifest["metadata"]["name"]) for manifest in made)
    return told and any(context.view(key) is None for key in keys)


async def _gone(context: Context, record: Record) -> bool:
    """Whether the pool itself is gone, or goes, and its watch is late to say so.

    With it went what makes its nodes. To make that anew would launch machines, until the garbage collector takes it.
    """
    found = (await context.client.list_all(Selection(record.key.resource, name=record.key.name))).items
    return not any(
        body["metadata"]["uid"] == record.uid and not body["metadata"].get("deletionTimestamp") for body in found
    )


def _missing(context: Context, pool: GPUNodePool, kind: resources.ResourceType) -> Problem:
    """Why nothing can be known of a kind that the pool asks for."""
    if why := context.optional[kind]:
        return Problem(Reason.FORBIDDEN, f"{kind.plural}.{kind.group} cannot be watched: {why}")
    way_out = PROVIDERS[pool.spec.provider.type].way_out
    return Problem(
        Reason.PROVIDER_MISSING, f"the API server does not know {kind.plural}.{kind.group}/{kind.version}: {way_out}"
    )


def _policy(context: Context) -> state.ClusterPolicyState | None:
    """The GPU Operator's policy, where that installs device plugins; of several all but one say that they are ignored.

    One whose device plugins are off leaves them to us, whatever else it installs: else nobody would.
    """
    found = sorted(context.cache.all(resources.CLUSTER_POLICY), key=lambda record: record.key.name)
    policy = next((record.view for record in found if record.view.state != "ignored"), None)
    return policy if policy is not None and policy.plugins else None
