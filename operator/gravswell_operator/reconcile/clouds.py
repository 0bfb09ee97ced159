"""Pools whose nodes a cloud makes: one pass of their provider, and the finalizer that holds a pool until they are gone.

The finalizer is ours by server-side apply: others' stay as they are. It is set before the first call to the cloud, and
only where something there shall go with the pool.
"""

import logging
from datetime import datetime, timedelta

from gravswell import durations
from gravswell.kube.errors import ApiForbiddenError
from gravswell.kube.resources import NAMESPACE
from gravswell_operator import conditions
from gravswell_operator.api import GPUNodePool
from gravswell_operator.api.gpunodepool import CloudStatus
from gravswell_operator.cluster.cache import Record
from gravswell_operator.conditions import Finding, Reason
from gravswell_operator.desired.pools import Bounds, drain_timeout
from gravswell_operator.providers.base import Ask, CloudState
from gravswell_operator.reconcile import status
from gravswell_operator.reconcile.context import Context
from gravswell_operator.state import Problem

FINALIZER = "gravswell.dev/cloud"
LOOK_AGAIN_SECONDS = 30.0
"""While something is being released, and the provider does not say when to look."""
GIVE_UP_AFTER = timedelta(hours=1)
"""Beyond the time to drain: then a pool is let go, whatever is left in the cloud."""
HOME = "kube-system"
"""The namespace whose uid identifies the cluster."""
_WAY_OUT = "install the chart with gke.enabled=true, which grants it"

log = logging.getLogger(__name__)


async def step(context: Context, record: Record, bounds: Bounds) -> CloudState | None:
    """One pass of the provider of a pool that stays; None where its nodes are of no cloud.

    Raises what the API server refuses: without the finalizer, or without the cluster's identity, nothing is made.
    """
    pool: GPUNodePool = record.view
    cloud = context.clouds.get(pool.spec.provider.type)
    if cloud is None:
        return None
    try:
        ask = await _ask(context, pool, bounds)
        await _hold(context, record, pool.spec.deletion_policy == "Delete")
    except ApiForbiddenError as error:
        raise ApiForbiddenError(f"{error}; {_WAY_OUT}") from error
    state = await cloud.reconcile(ask)
    if state.look_again is not None:
        context.queue.add(record.key, state.look_again)
    return state


async def release(context: Context, record: Record) -> None:
    """One pass over a pool that is being deleted: what was made for it goes, and then the pool.

    What keeps the cloud from it is in the condition. It is bounded: where the cloud has not let go an hour after the
    time to drain, the pool goes without it, and the audit finds what is left. That counts from when this process has
    begun: one that comes back after a weekend must not give up with its first look.
    """
    pool: GPUNodePool = record.view
    if FINALIZER not in pool.metadata.finalizers:
        return
    try:
        await _release(context, record)
    except ApiForbiddenError as error:
        remembered = pool.status.cloud or CloudStatus()
        problem = Problem(Reason.FORBIDDEN, f"{error}; {_WAY_OUT}")
        await _tell(context, record, CloudState(remembered=remembered, problem=problem), late=False)
        raise


async def _release(context: Context, record: Record) -> None:
    pool: GPUNodePool = record.view
    cloud = context.clouds.get(pool.spec.provider.type)
    if cloud is not None and pool.spec.deletion_policy == "Delete":
        state = await cloud.release(await _ask(context, pool, Bounds(0, 0)))
        if not state.gone:
            late = given_up(pool, context.releasing.setdefault(record.uid, context.now()), context.now())
            await _tell(context, record, state, late=late)
            if not late:
                context.queue.add(record.key, state.look_again or LOOK_AGAIN_SECONDS)
                return
    await _hold(context, record, False)
    context.releasing.pop(record.uid, None)


async def _ask(context: Context, pool: GPUNodePool, bounds: Bounds) -> Ask:
    if HOME not in context.facts:
        context.facts[HOME] = (await context.client.get(NAMESPACE, None, HOME))["metadata"]["uid"]
    return Ask(pool, bounds, context.facts[HOME])


async def _hold(context: Context, record: Record, wanted: bool) -> None:
    """Set or remove our finalizer, if that changes anything."""
    if (FINALIZER in record.view.metadata.finalizers) == wanted:
        return
    metadata = {"name": record.key.name, "uid": record.uid}  # with the uid none is made anew
    resource = record.key.resource
    held = {**metadata, "finalizers": [FINALIZER]} if wanted else metadata
    body = await context.client.apply(
        resource, {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": held}
    )
    if wanted:
        context.observe(resource, body)


def given_up(pool: GPUNodePool, began: datetime, now: datetime) -> bool:
    """Whether the cloud has had the pool's time to drain, and an hour, to let go of it since it was first asked to."""
    return now - began > timedelta(seconds=durations.seconds(drain_timeout(pool))) + GIVE_UP_AFTER


async def _tell(context: Context, record: Record, state: CloudState, *, late: bool) -> None:
    """Say what the deletion waits for, or what is left."""
    pool: GPUNodePool = record.view
    problem = state.problem or Problem(Reason.DELETING, "the cloud has not let go of the pool's nodes yet")
    reason = Reason.DELETING if problem.reason is Reason.PROVIDER_STARTING else problem.reason
    message = problem.message
    if late:
        left = state.remembered.resource or "what was made for the pool"
        reason = Reason.LEFT_BEHIND
        message = f"{left} is left in the cloud and costs money (gravswell pools audit finds it): {message}"
        log.error("%s: %s", record.key, message)
    fields = {**pool.status.to_dict(), "cloud": state.remembered.to_dict()}
    del fields["conditions"], fields["observedGeneration"]
    await status.write(context, record, [Finding(conditions.READY, False, reason, message)], fields)
