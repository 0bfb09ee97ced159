"""Our own kinds as kopf event handlers that feed the cache.

Their children have watches of their own (:mod:`gravswell_operator.handlers.children`).

As kopf ends, it cancels every task of its event loop, whoever began it. So it has a loop of its own, in a thread, and
begins anew where it ended by itself; faults that pass are no reason (:mod:`gravswell_operator.handlers.shield`).
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import kopf

from gravswell.errors import GravswellError
from gravswell.kube import credentials
from gravswell.kube.backoff import Backoff
from gravswell.kube.client import PAGE
from gravswell_operator import names
from gravswell_operator.cluster.resources import OWN, ResourceType
from gravswell_operator.handlers.faults import taking_in
from gravswell_operator.handlers.shield import Shield

Observer = Callable[[ResourceType, Mapping[str, Any], str | None], None]
"""Takes what a watch says: the kind, the object, and ADDED, MODIFIED or DELETED; None where the object was listed."""

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.1
"""How long kopf keeps a task for an object that is quiet, and with it the whole object: in a list, that is all of them
at once."""
LONGEST_PAUSE_SECONDS = 10.0
"""kopf itself waits longer and longer for an API server that is away; what ends it is more often over at once."""
STEADY_SECONDS = 60.0
"""Watches that lived this long worked: the next ones that end are the first of another fault."""
STOP_SECONDS = 10.0
"""How long kopf may take to stop."""


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
    made.watching.chunk_size = PAGE
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
            session = await credentials.open_session(
                account, program=names.FIELD_MANAGER, traces=[trace], around=[Shield()]
            )
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
        observe(resource, event["object"], event["type"])


async def follow(
    account: credentials.Account, observe: Observer, trace: aiohttp.TraceConfig, started: asyncio.Event
) -> None:
    """Watch for ever; set ``started`` when that has begun. ``observe`` is called in the caller's event loop."""
    backoff = Backoff(longest=LONGEST_PAUSE_SECONDS)
    while True:
        watches = _Watches(account, observe, trace, started)
        try:
            await watches.run()
        except Exception as error:  # noqa: BLE001  of aiohttp, of kopf and of what it reads with; the next try is anew
            pause = backoff.failed()
            log.warning("the watches of our kinds ended; again in %.1f s: %s", pause, _words(error))
        else:
            pause = backoff.failed()
            log.warning("the watches of our kinds ended; again in %.1f s", pause)
        if watches.seconds > STEADY_SECONDS:
            backoff.succeeded()
        await asyncio.sleep(pause)


def _unheard(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """Of kopf's tasks that fail together one is raised; asyncio would tell the others with their whole stack."""
    log.debug("%s", context.get("message"), exc_info=context.get("exception"))


def _words(error: Exception) -> str:
    """kopf's errors carry the whole answer besides the message."""
    return f"{type(error).__name__}: {error.args[0] if error.args else error}"


class Crossing:
    """What the watches say on its way to another thread's event loop: of each object the latest, in order.

    Where that loop is busy, what waits for it does not become more than there are objects, whatever happens to them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, observe: Observer) -> None:
        self._loop, self._observe = loop, observe
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, bool], tuple[ResourceType, Mapping[str, Any], str | None]] = {}
        """By uid, and whether the object was listed: that is news by itself. The oldest first."""

    def put(self, resource: ResourceType, body: Mapping[str, Any], what: str | None) -> None:
        """Have ``observe`` called with it, or with what comes of the same object before that. From any thread."""
        key = body["metadata"]["uid"], what is None
        with self._lock:
            begins = not self._waiting
            self._waiting.pop(key, None)  # what is put in anew comes last
            self._waiting[key] = resource, body, what
        if begins:
            self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        """A page at a time: others of this loop come in between."""
        for _ in range(PAGE):
            with self._lock:
                resource, body, what = self._waiting.pop(next(iter(self._waiting)))
                left = bool(self._waiting)
            with taking_in(resource):
                self._observe(resource, body, what)
            if not left:
                return
        self._loop.call_soon(self._take)


class _Watches:
    """One life of kopf, in a thread with an event loop of its own."""

    def __init__(
        self, account: credentials.Account, observe: Observer, trace: aiohttp.TraceConfig, started: asyncio.Event
    ) -> None:
        self._account, self._trace, self._started = account, trace, started
        self._ours = asyncio.get_running_loop()
        self._crossing = Crossing(self._ours, observe)
        self._ended: asyncio.Future[None] = self._ours.create_future()
        self._stop = asyncio.Event()
        self._runner = asyncio.Runner(loop_factory=type(self._ours))
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """For how long it has been alive."""
        return time.monotonic() - self._began

    async def run(self) -> None:
        """Until kopf has ended, whose error is raised. When this is cancelled, kopf is stopped first."""
        theirs = self._runner.get_loop()
        # A daemon: where kopf does not stop in time, the process ends without it.
        threading.Thread(target=self._live, name="kopf", daemon=True).start()
        try:
            await asyncio.wait([self._ended])
        finally:
            if not self._ended.done():
                with contextlib.suppress(RuntimeError):  # it has just ended, and its loop is closed
                    theirs.call_soon_threadsafe(self._stop.set)
                await asyncio.wait([self._ended], timeout=STOP_SECONDS)
        self._ended.result()

    def _live(self) -> None:
        failure: BaseException | None = None
        try:
            with self._runner as runner:
                runner.run(self._watch())
        except BaseException as error:  # noqa: BLE001  raised again where it is waited for
            failure = error
        with contextlib.suppress(RuntimeError):  # nobody waited until now, and that loop is closed
            self._ours.call_soon_threadsafe(self._tell, failure)

    def _tell(self, failure: BaseException | None) -> None:
        if failure is None:
            self._ended.set_result(None)
        elif isinstance(failure, Exception):
            self._ended.set_exception(failure)
        else:  # that kopf was cancelled must not look as if whoever waits for it were
            self._ended.set_exception(RuntimeError(f"kopf ended with {type(failure).__name__}"))

    async def _watch(self) -> None:
        begun = asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(_unheard)

        async def tell() -> None:
            await begun.wait()
            self._ours.call_soon_threadsafe(self._started.set)

        telling = asyncio.create_task(tell())
        try:
            await kopf.operator(
                registry=registry(self._account, self._crossing.put, self._trace),
                settings=settings(),
                clusterwide=True,
                standalone=True,
                ready_flag=begun,
                stop_flag=self._stop,
            )
        finally:
            telling.cancel()
