"""The kinds of others that may be absent: watched while their definitions are there, looked for while they are not."""

import asyncio
import logging

from gravswell.errors import GravswellError
from gravswell.kube.errors import ApiNotFoundError
from gravswell.kube.resources import Selection
from gravswell.kube.watch import Listed
from gravswell_operator.cluster.resources import ResourceType
from gravswell_operator.handlers.children import take, take_all
from gravswell_operator.reconcile.context import Context

LOOK_SECONDS = 15.0
"""Between looks for a definition that is absent: one small request."""

log = logging.getLogger(__name__)


async def follow(context: Context, resource: ResourceType) -> None:
    """Feed the context with the objects of one kind for ever, whether its definition is there or not.

    kopf looks for definitions once, when it starts; these may come later, or go.
    """
    selection = Selection(resource, labels=resource.selector)
    while True:
        try:
            async for seen in context.client.follow(selection):
                if isinstance(seen, Listed):
                    take_all(context, resource, seen)
                    context.found(resource, None)
                else:
                    take(context, resource, seen)
        except ApiNotFoundError:
            _gone(context, resource, "")
        except GravswellError as error:
            log.warning("%s cannot be watched: %s", resource.plural, error)
            _gone(context, resource, str(error))
        await asyncio.sleep(LOOK_SECONDS)


def _gone(context: Context, resource: ResourceType, why: str) -> None:
    for record in context.cache.all(resource):
        context.forget(record)
    context.found(resource, why)
