"""The readiness gates of a group of ranks: open on all of its pods, or on none."""

import asyncio
import logging
from collections.abc import Sequence

from gravswell.kube import errors
from gravswell_operator import names
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Record
from gravswell_operator.reconcile import status
from gravswell_operator.reconcile.context import Context
from gravswell_operator.state import PodState

log = logging.getLogger(__name__)

_CONDITION = {
    True: {"status": "True", "reason": "AllRanksReady", "message": "every rank of the group is ready"},
    False: {
        "status": "False",
        "reason": "RankNotReady",
        "message": "a rank of the group is not; the condition RanksReady of the InferenceServer says which, and why",
    },
}


async def write(context: Context, server: Record, pods: Sequence[PodState], *, is_open: bool) -> None:
    """Open or close the gates of the pods of ``server`` that are not so yet."""
    wrong = [pod for pod in pods if pod.rank is not None and pod.rank.open is not is_open and pod.active]
    if wrong:
        told = ", ".join(pod.name for pod in wrong)
        log.info("%s: %s the gates of %s", server.key, "opening" if is_open else "closing", told)
    writes = (_write(context, server.key.namespace, pod, is_open) for pod in wrong)
    done = await asyncio.gather(*writes, return_exceptions=True)  # none is under way when the next pass decides anew
    for error in filter(None, done):
        raise error


async def _write(context: Context, namespace: str, pod: PodState, is_open: bool) -> None:
    assert pod.rank is not None
    condition = {"type": names.GATE, "lastTransitionTime": status.stamp(context), **_CONDITION[is_open]}
    # With its uid: the next pod of the rank has the same name.
    change = {"metadata": {"uid": pod.rank.uid}, "status": {"conditions": [condition]}}
    try:
        body = await context.client.merge(
            resources.POD, namespace, pod.name, change, subresource="status", strategic=True
        )
    except errors.ApiNotFoundError:
        return  # gone, and its gate with it
    context.observe(resources.POD, body)
