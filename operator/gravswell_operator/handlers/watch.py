"""Every watched kind as a kopf event handler that feeds the cache."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import kopf

from gravswell.errors import GravswellError
from gravswell.kube import credentials
from gravswell_operator import names
from gravswell_operator.cluster.resources import WATCHED, ResourceType

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
    for resource in WATCHED:
        if resource.selector:
            made.watching.label_selectors[resource.group, resource.version, resource.plural] = resource.selector
    return made


def registry(account: credentials.Account, observe: Observer) -> kopf.OperatorRegistry:
    """The handlers: one login, and one for the events of each kind."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made, id="login", errors=kopf.ErrorsMode.TEMPORARY)
    async def login(**_: Any) -> kopf.AiohttpSession:
        try:
            session = await credentials.open_session(account, program=names.FIELD_MANAGER)
        except GravswellError as error:
            log.warning("the watches have no credentials: %s", error)
            raise
        return kopf.AiohttpSession(server=account.endpoint.url, aiohttp_session=session)

    for resource in WATCHED:
        _watch(made, resource, observe)
    return made


def _watch(registry: kopf.OperatorRegistry, resource: ResourceType, observe: Observer) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=f"watch-{resource.plural}")
    async def watched(event: kopf.RawEvent, **_: Any) -> None:
        try:
            observe(resource, event["object"], event["type"])
        except Exception:
            # kopf goes on all the same, so it must not pass unheard; the next complete look takes the object in.
            log.exception("a fault of the operator: a watch event of %s was not taken in", resource.plural)


async def run(account: credentials.Account, observe: Observer, started: asyncio.Event, stop: asyncio.Event) -> None:
    """Watch until ``stop`` is set; set ``started`` when that has begun. Raises what kopf cannot recover from."""
    await kopf.operator(
        registry=registry(account, observe),
        settings=settings(),
        clusterwide=True,
        standalone=True,
        ready_flag=started,
        stop_flag=stop,
    )
