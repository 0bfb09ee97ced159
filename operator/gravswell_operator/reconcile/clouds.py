"""Pools whose nodes a cloud makes: one pass of their provider, and the finalizer that holds a pool until they are gone.

The finalizer is ours by server-side apply: others' stay as they are. It is set before the first call to the cloud, and
only where something there shall go with the pool.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from gravswell import durations
from gravswell.kube.errors import ApiForbiddenError, ApiNotFoundError
from gravswell.kube.resources import CONFIG_MAP, NAMESPACE
from gravswell_operator import conditions
from gravswell_operator.api import ConditionStatus, GPUNodePool
from gravswell_operator.api.gpunodepool import CloudStatus
from gravswell_operator.cluster.cache import Record
from gravswell_operator.conditions import Finding, Reason
from gravswell_operator.desired.pools import Bounds, drain_timeout
from gravswell_operator.providers.base import (
    CALL_SECONDS,
    LOOK_SECONDS,
    SOONEST_SECONDS,
    Ask,
    CloudState,
    ProviderError,
    fingerprints,
)
from gravswell_operator.providers.custom import Absent, cloud_of
from gravswell_operator.providers.passes import answer
from gravswell_operator.reconcile import apply, status
from gravswell_operator.reconcile.context import Context
from gravswell_operator.state import Problem, Unreadable

FINALIZER = "gravswell.dev/cloud"
LOOK_AGAIN_SECONDS = 30.0
"""While something is being released, and the provider does not say when to look."""
GIVE_UP_AFTER = 3600.0
"""Seconds beyond the time to drain: then a pool is let go, whatever is left in the cloud."""
BUSY_SECONDS = 1.0
"""Until a pool for which no pass could be begun is looked at again."""
HOME = "kube-system"
"""The namespace whose uid identifies the cluster."""
ROOT_CERTIFICATES = "kube-root-ca.crt"
"""The ConfigMap of every namespace with the certificate authorities of the API server."""
_WAY_OUT = "install the chart with gke.enabled=true, which grants it"

log = logging.getLogger(__name__)


class BusyError(Exception):
    """As many passes as may be are under way; the pool is to be looked at again in :data:`BUSY_SECONDS`."""


async def step(context: Context, record: Record, bounds: Bounds) -> CloudState | None:
    """One pass of the provider of a pool that stays; None where its nodes are of no cloud.

    Raises what the API server refuses: without the finalizer, or without the cluster's identity, nothing is made; what
    the provider raises, as :class:`ProviderError`; and :class:`BusyError`.
    """
    pool: GPUNodePool = record.view
    cloud = cloud_of(context.clouds, pool)
    if cloud is None:
        return None
    try:
        ask = await _ask(context, pool, bounds)
        wanted = pool.spec.deletion_policy == "Delete"
        if not (wanted and isinstance(cloud, Absent)):  # of a pool that is not held yet, no provider has made anything
            await _hold(context, record, wanted)
    except ApiForbiddenError as error:
        raise ApiForbiddenError(f"{error}; {_WAY_OUT}") from error
    state = await _passed(context, cloud.reconcile, ask)
    context.queue.add(record.key, LOOK_SECONDS if state.look_again is None else _soon(state.look_again))
    return state


def _soon(seconds: float) -> float:
    return max(seconds, SOONEST_SECONDS)


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
    cloud = cloud_of(context.clouds, pool)
    if cloud is not None and pool.spec.deletion_policy == "Delete":
        failure: ProviderError | None = None
        try:
            state = await _passed(context, cloud.release, await _ask(context, pool, Bounds(0, 0)))
        except BusyError:
            context.queue.add(record.key, BUSY_SECONDS)
            return
        except ProviderError as error:
            failure = error
            state = CloudState(pool.status.cloud or CloudStatus(), apply.problem(error))
        if not state.gone:
            late = given_up(pool, _asked_for(context, record))
            await _tell(context, record, state, late=late)
            if not late:
                if failure is not None:
                    raise failure
                context.queue.add(record.key, _soon(state.look_again or LOOK_AGAIN_SECONDS))
                return
    await _hold(context, record, False)
    context.releasing.pop(record.uid, None)


async def release_unreadable(context: Context, record: Record) -> None:
    """:func:`release` of a pool that this operator cannot read: where it is in the cloud is read without the rest.

    Where that cannot be read either, the pool is kept as long as any other, for an operator that can; then it goes.
    """
    view: Unreadable = record.view
    if FINALIZER not in view.finalizers:
        return
    pool = _where_it_is(record)
    if pool is not None:
        await release(context, replace(record, view=pool))
        return
    if _asked_for(context, record) <= GIVE_UP_AFTER:
        await status.write_invalid(context, record)
        context.queue.add(record.key, LOOK_AGAIN_SECONDS)
        return
    message = (
        f"what was made for the pool is left in the cloud and costs money (of GKE, gravswell pools audit finds it): "
        f"this operator cannot read where it is: {view.why}"
    )
    log.error("%s: %s", record.key, message)
    left = conditions.Transition(conditions.READY, ConditionStatus.FALSE, Reason.LEFT_BEHIND, message)
    context.recorder.transition(status.reference(record), left)
    await _hold(context, record, False)
    context.releasing.pop(record.uid, None)


def _where_it_is(record: Record) -> GPUNodePool | None:
    """What a release needs of a pool that cannot be read as a whole; None where that cannot be read either."""
    view: Unreadable = record.view
    metadata = {"name": view.name, "uid": record.uid, "generation": view.generation, "finalizers": view.finalizers}
    filled = {"accelerator": {"type": "unknown", "count": 1}, "size": 0, "vcpus": 1}
    needed = {key: view.spec[key] for key in ("provider", "deletionPolicy") if key in view.spec}
    kind = {"apiVersion": record.key.resource.api_version, "kind": view.kind}
    for said in (view.status, {}):
        try:
            return GPUNodePool.model_validate(
                {**kind, "metadata": metadata, "spec": {**filled, **needed}, "status": said}
            )
        except ValidationError:
            continue
    return None


async def _ask(context: Context, pool: GPUNodePool, bounds: Bounds) -> Ask:
    if HOME not in context.facts:
        context.facts[HOME] = (await context.client.get(NAMESPACE, None, HOME))["metadata"]["uid"]
    return Ask(pool, bounds, context.facts[HOME], await _authorities(context))


async def _authorities(context: Context) -> frozenset[str]:
    """Whom the API server's certificate is from, as every pod of the cluster is told: read anew, for it may change.

    Empty where who installed the operator says that the names of clusters are to be believed.
    """
    if not context.verify_cluster:
        return frozenset()
    try:
        body = await context.client.get(CONFIG_MAP, HOME, ROOT_CERTIFICATES)
    except (ApiNotFoundError, ApiForbiddenError):
        return frozenset()
    return fingerprints((body.get("data") or {}).get("ca.crt", ""))


async def _passed(context: Context, step: Callable[[Ask], Awaitable[CloudState]], ask: Ask) -> CloudState:
    """One pass of a provider, of which not more than :data:`CALLS` are made at once.

    Raises :class:`BusyError` and :class:`ProviderError`.
    """
    if context.cloud_calls.locked():
        raise BusyError  # waiting for it would hold the worker all the same
    context.client.fence()  # another operator may do the same by now
    try:
        async with context.cloud_calls:
            return await answer(step, ask, 2 * CALL_SECONDS)
    except TimeoutError:
        remembered = ask.pool.status.cloud or CloudStatus()
        words = f"a pass over the pool in the cloud did not end within {2 * CALL_SECONDS:.0f} s; it is made again"
        return CloudState(remembered, Problem(Reason.PROVIDER_UNREACHABLE, words), look_again=LOOK_AGAIN_SECONDS)


async def _hold(context: Context, record: Record, wanted: bool) -> None:
    """Set or remove our finalizer, if that changes anything."""
    view = record.view
    held = view.finalizers if isinstance(view, Unreadable) else view.metadata.finalizers
    if (FINALIZER in held) == wanted:
        return
    metadata: dict[str, Any] = {"name": record.key.name, "uid": record.uid}  # with the uid none is made anew
    resource = record.key.resource
    if wanted:
        metadata["finalizers"] = [FINALIZER]
    body = await context.client.apply(
        resource, {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
    )
    if wanted:
        context.observe(resource, body)


def _asked_for(context: Context, record: Record) -> float:
    """For how many seconds the cloud has been asked to let go of the pool."""
    now = context.clock()
    return now - context.releasing.setdefault(record.uid, now)


def given_up(pool: GPUNodePool, asked: float) -> bool:
    """Whether a cloud that is asked for so many seconds has had the pool's time to drain, and an hour, to let go."""
    return asked > durations.seconds(drain_timeout(pool)) + GIVE_UP_AFTER


async def _tell(context: Context, record: Record, state: CloudState, *, late: bool) -> None:
    """Say what the deletion waits for, or what is left."""
    pool: GPUNodePool = record.view
    problem = state.problem or Problem(Reason.DELETING, "the cloud has not let go of the pool's nodes yet")
    reason = Reason.DELETING if problem.reason is Reason.PROVIDER_STARTING else problem.reason
    message = problem.message
    if late:
        left = state.remembered.resource or "what was made for the pool"
        reason = Reason.LEFT_BEHIND
        found = (
            "gravswell pools audit finds it" if pool.spec.provider.key == "GKE" else f"it bears the uid {record.uid}"
        )
        message = f"{left} is left in the cloud and costs money ({found}): {message}"
        log.error("%s: %s", record.key, message)
    fields = {**pool.status.to_dict(), "cloud": state.remembered.to_dict()}
    del fields["conditions"], fields["observedGeneration"]
    await status.write(context, record, [Finding(conditions.READY, False, reason, message)], fields)
