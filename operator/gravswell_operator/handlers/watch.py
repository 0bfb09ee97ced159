"""Our own kinds as kopf event handlers that feed the cache.

Their children have watches of their own (:mod:`gravswell_operator.handlers.children`).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import kopf

from gravswell.errors import GravswellError
from gravswell.kube import credentials
from gravswell_operator import names
from gravswell_operator.cluster.resources import OWN, ResourceType
from gravswell_operator.handlers.faults import taking_in

Observer = Callable[[ResourceType, Mapping[str, Any], str | None], None]
"""Takes what a watch says: the kind, the object, and ADDED, MODIFIED or DELETED; None where the object was listed."""

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
"""How long kopf keeps a task for an object that is quiet."""


class _NoMemory(kopf.DiffBaseStorage):
    """kopf compares each object with its last handled state, copying it for that; we need neither."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


def settings() -> kopf.OperatorSettings:
    """kopf, reduced to watching."""
    made = kopf.OperatorSettings()
    made.posting.enabled = False
    made.persistence.diffbase_storage = _NoMemory()
    made.queueing.idle_timeout = IDLE_SECONDS
    made.watching.chunk_size = 500
    # The definitions are there before the operator starts, and watching all of them would need a right of its own.
    made.scanning.disabled = True
    made.process.ultimate_exiting_timeout = None
    return made


def registry(account: credentials.Account, observe: Observer, trace: aiohttp.TraceConfig) -> kopf.OperatorRegistry:
    """The handlers: one login, whose requests ``trace`` sees, and one for the events of each kind."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made, id="login", errors=kopf.ErrorsMode.TEMPORARY)
    async def login(**_: Any) -> kopf.AiohttpSession:
        try:
            session = await credentials.open_session(account, program=names.FIELD_MANAGER, traces=[trace])
        except GravswellError as error:
            log.warning("the watches have no credentials: %s", error)
            raise
        return kopf.AiohttpSession(server=account.endpoint.url, aiohttp_session=session)

    for resource in OWN:
        _watch(made, resource, observe)
    return made


def _watch(registry: kopf.OperatorRegistry, resource: ResourceType, observe: Observer) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=f"watch-{resource.plural}")
    async def watched(event: kopf.RawEvent, **_: Any) -> None:
        with taking_in(resource):
            observe(resource, event["object"], event["type"])


async def run(
    account: credentials.Account,
    observe: Observer,
    trace: aiohttp.TraceConfig,
    started: asyncio.Event,
    stop: asyncio.Event,
) -> None:
    """Watch until ``stop`` is set; set ``started`` when that has begun. Raises what kopf cannot recover from."""
    await kopf.operator(
        registry=registry(account, observe, trace),
        settings=settings(),
        clusterwide=True,
        standalone=True,
        ready_flag=started,
        stop_flag=stop,
    )
