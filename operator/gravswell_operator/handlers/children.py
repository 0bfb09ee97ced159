"""What belongs to our objects (children, pods) or carries them (nodes), watched and fed to the cache.

Not by kopf: it makes a task with a queue for each object that changes, and keeps a memory of each, while we need its
events only, in order. A server that starts has thirty of them; they were a quarter of the operator's CPU time and
most of the memory of an object at rest. Our own kinds, which change seldom, stay with kopf.
"""

import asyncio
import logging

from gravswell.kube.errors import ApiForbiddenError, ApiNotFoundError, ApiRejectedError
from gravswell.kube.resources import Selection
from gravswell.kube.watch import DELETED, Change, Listed
from gravswell_operator.cluster.cache import check_time
from gravswell_operator.cluster.resources import ResourceType
from gravswell_operator.handlers.faults import taking_in
from gravswell_operator.reconcile.context import Context

RETRY_SECONDS = 15.0
"""Before a watch that is refused is tried again: a chart that is upgraded writes its roles one after the other."""

log = logging.getLogger(__name__)


async def follow(context: Context, resource: ResourceType, version: str) -> None:
    """Feed the context with what changes of one kind after ``version``, for ever.

    Raises :class:`gravswell.errors.UnavailableError` as :func:`check_time`: by what this watch has shown, since an
    answer to a write of ours may well be newer than a list that was asked for before.
    """
    known = int(version or 0)
    while True:
        try:
            async for seen in context.client.follow(Selection(resource, labels=resource.selector), version):
                if isinstance(seen, Listed):
                    check_time(resource, seen.version, known)
                    take_all(context, resource, seen)
                else:
                    take(context, resource, seen)
                known = int(seen.version or 0)
        except (ApiForbiddenError, ApiNotFoundError, ApiRejectedError) as error:
            log.warning("%s cannot be watched: %s", resource.plural, error)
        version = ""  # what happened meanwhile is in a list only
        await asyncio.sleep(RETRY_SECONDS)


def take(context: Context, resource: ResourceType, seen: Change) -> None:
    """Feed the context with what a watch says; what cannot be read is logged, and the watch goes on."""
    with taking_in(resource):
        context.observe(resource, seen.object, deleted=seen.type == DELETED)


def take_all(context: Context, resource: ResourceType, listed: Listed) -> None:
    """Feed the context with a complete list, one object at a time as :func:`take`; what it lacks is gone."""
    present = set()
    for item in listed.items:
        present.add((item["metadata"].get("namespace") or "", item["metadata"]["name"]))
        with taking_in(resource):
            context.observe(resource, item, listed=True)
    context.wake(context.cache.forget_missing(resource, present, listed.version))
