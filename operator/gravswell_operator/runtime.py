"""The operator as one asynchronous program: credentials, lease, first look, watches, workers, and a clean end."""

import asyncio
import ctypes
import gc
import logging
import os
import random
import signal
import socket
import time
import uuid
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gravswell import __version__
from gravswell.errors import GravswellError, NotFoundError
from gravswell.kube import credentials
from gravswell.kube.backoff import Backoff
from gravswell.kube.client import Client
from gravswell.kube.errors import ApiForbiddenError, ApiNotFoundError, ApiUnavailableError
from gravswell.kube.resources import Selection
from gravswell_operator import health, names
from gravswell_operator.cluster.cache import Cache, Key, check_time
from gravswell_operator.cluster.events import Recorder
from gravswell_operator.cluster.lease import LEASE_NAME, Elector
from gravswell_operator.cluster.metrics import Metrics, State
from gravswell_operator.cluster.queue import WorkQueue, work
from gravswell_operator.cluster.resources import FOLLOWED, OPTIONAL, OWN, WATCHED, ResourceType
from gravswell_operator.desired.objects import Options
from gravswell_operator.errors import LeaseLostError
from gravswell_operator.handlers import children, optional, watch
from gravswell_operator.handlers.faults import taking_in
from gravswell_operator.reconcile.context import Context
from gravswell_operator.reconcile.engine import Engine
from gravswell_operator.reconcile.index import Index

DEFAULT_IMAGE = f"ghcr.io/gravswell/gravswell:{__version__}"
WORKERS = 16
"""Reconciles at once: they wait for the API server more than they compute."""
LISTED_SECONDS = 2.0
"""How long after kopf has listed something we look: at the start, or after a fault, it lists all kinds at once."""
RESYNC_SECONDS = 600.0
"""Between complete looks for whatever else a watch may lose, such as the deletion of all objects that it saw."""
LOOK_RETRY_SECONDS = 2.0
STOP_SECONDS = 10.0
"""How long the reconciles under way may take to finish."""
TIDY_SECONDS = 15.0
"""Between the times that memory is given back to the system; that takes some milliseconds."""
COLLECT_AFTER = 20_000
"""Containers that are made and kept before Python looks for cycles among them. An object of the API is parsed to some
hundred at once, which made its default of 700 two thirds of what a look at many objects costs."""

_AWAKE_OR_NOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""The monotonic clock that goes on while the machine sleeps, where there is one: others take a Lease meanwhile."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What the operator is started with."""

    kubeconfig: Path | None = None
    context: str | None = None
    options: Options = field(default_factory=lambda: Options(image=DEFAULT_IMAGE))
    listen: str = "127.0.0.1:0"
    lease_namespace: str | None = None
    """None: no lease. Only where nobody else can run."""
    verify_cluster: bool = True
    """See :attr:`Context.verify_cluster`."""
    identity: str = field(default_factory=lambda: f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}")


class Operator:
    """One run of the operator. Make it inside the event loop that runs it."""

    def __init__(
        self,
        config: Config,
        account: credentials.Account,
        client: Client,
        metrics: Metrics,
    ) -> None:
        self._config, self._account, self._client = config, account, client
        self._context = Context(
            client=client,
            cache=Cache(),
            index=Index(),
            queue=WorkQueue[Key](time.monotonic, metrics.waited, lambda key: key.resource),
            recorder=Recorder(client, config.identity, _now),
            options=config.options,
            now=_now,
            metrics=metrics,
            verify_cluster=config.verify_cluster,
        )
        metrics.registry.register(
            State(self._context.cache, self._context.queue, lambda: self._context.recorder.dropped)
        )
        self._engine = Engine(self._context)
        self._synced = False
        self._listed = asyncio.Event()
        self._versions: dict[ResourceType, str] = {}
        """What the last look has seen of each kind."""

    @property
    def ready(self) -> bool:
        """Whether it has seen the cluster, watches it and reconciles."""
        return self._synced

    async def run(self, stop: asyncio.Event) -> None:
        """Reconcile until ``stop`` is set.

        Raises :class:`LeaseLostError` when another operator may be active, and whatever ends the watches.
        """
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            if self._config.lease_namespace is None:
                self._context.metrics.lease_held.set(1)
                await self._reconcile_until([stopped])
            else:
                await self._lead(self._config.lease_namespace, stopped)
        finally:
            await _cancel([stopped])

    async def _lead(self, namespace: str, stopped: asyncio.Task[Any]) -> None:
        """Reconcile while the Lease is ours. It is renewed from the moment that we have it."""
        elector = Elector(
            self._client,
            namespace=namespace,
            name=LEASE_NAME,
            identity=self._config.identity,
            clock=lambda: time.clock_gettime(_AWAKE_OR_NOT),
            now=_now,
        )
        if not await _unless([stopped], elector.acquire()):
            return
        # A process that was stopped in the middle of its work goes on where it was, before it hears of the Lease.
        self._client.fence = elector.require
        self._context.metrics.lease_held.set(1)
        holding = asyncio.create_task(elector.hold(), name="lease")
        try:
            await self._reconcile_until([stopped, holding])
        except LeaseLostError:
            raise  # somebody else's by now
        except BaseException:
            await elector.release()
            raise
        else:
            await elector.release()
        finally:
            self._context.metrics.lease_held.set(0)

    async def _reconcile_until(self, ends: list[asyncio.Task[Any]]) -> None:
        """Look and reconcile until one of ``ends`` is done, whose error is raised; the others are cancelled."""
        try:
            if await _unless(ends, self._patient_look()):
                await self._reconcile(ends)
        finally:
            await _cancel(ends)
        _raise_first(ends)

    async def _reconcile(self, ends: list[asyncio.Task[Any]]) -> None:
        """Watch and work until one of ``ends`` is done, or one of our own tasks, which ought to go on for ever."""
        log.info("reconciling %d objects", self._context.cache.size())
        watching = asyncio.Event()
        tasks = [
            asyncio.create_task(
                watch.follow(self._account, self._observe, self._context.metrics.trace(), watching), name="watches"
            ),
            asyncio.create_task(self._context.recorder.write(), name="events"),
            asyncio.create_task(self._resync(), name="resync"),
            asyncio.create_task(_tidy(), name="tidy"),
            *(
                asyncio.create_task(optional.follow(self._context, resource), name=f"optional-{resource.plural}")
                for resource in OPTIONAL
            ),
            *(
                asyncio.create_task(
                    children.follow(self._context, resource, self._versions[resource]), name=f"watch-{resource.plural}"
                )
                for resource in FOLLOWED
            ),
            *(
                asyncio.create_task(work(self._context.queue, self._engine.handle), name=f"worker-{number}")
                for number in range(WORKERS)
            ),
        ]
        begun = asyncio.create_task(watching.wait(), name="watches have begun")
        try:
            await asyncio.wait([*ends, *tasks, begun], return_when=asyncio.FIRST_COMPLETED)
            self._synced = True
            await asyncio.wait([*ends, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._synced = False
            await _cancel([*ends, begun, *tasks])
        _raise_first([*ends, *tasks])

    def _observe(self, resource: ResourceType, body: Mapping[str, Any], what: str | None) -> None:
        if what is None:
            self._listed.set()
        self._context.observe(resource, body, deleted=what == "DELETED")

    async def look(self, kinds: Iterable[ResourceType] = WATCHED) -> dict[ResourceType, str]:
        """Compare what is known with everything that is there of ``kinds``; as of which version, of each.

        Raises :class:`NotFoundError` where the API server does not know our kinds, and :class:`UnavailableError` where
        it has gone back in time: then nothing that we know can be compared with what it says.
        """
        try:
            return {resource: await self._look_at(resource) for resource in kinds}
        except ApiNotFoundError as error:
            raise NotFoundError(
                f"the API server {self._account.endpoint.url} does not know all that is watched ({error}); "
                "install the definitions first: kubectl apply --server-side -f crds/"
            ) from None

    async def _look_at(self, resource: ResourceType) -> str:
        """Page by page: the whole of a large cluster is never in memory at once."""
        present: set[tuple[str, str]] = set()
        version = ""
        known = self._context.cache.latest(resource)  # before it is asked: what comes meanwhile may be newer
        async for page in self._client.pages(Selection(resource, labels=resource.selector)):
            version = page.version
            check_time(resource, version, known)
            for item in page.items:
                present.add((item["metadata"].get("namespace") or "", item["metadata"]["name"]))
                with taking_in(resource):
                    self._context.observe(resource, item, listed=True)
        self._context.wake(self._context.cache.forget_missing(resource, present, version))
        return version

    async def _patient_look(
        self, kinds: Iterable[ResourceType] = WATCHED, passing: type[GravswellError] = ApiUnavailableError
    ) -> None:
        """:meth:`look`, as soon as the API server lets us; ``passing`` is what may end by itself."""
        backoff = Backoff(first=LOOK_RETRY_SECONDS)
        while True:
            try:
                self._versions |= await self.look(kinds)
            except (ApiUnavailableError, passing) as error:
                log.warning("cannot look at the cluster yet: %s", error)
                await asyncio.sleep(backoff.failed(error))
            else:
                return

    async def _resync(self) -> None:
        """Look at all now and then, and at our kinds after each list of kopf's: that does not tell what was deleted."""
        while True:
            wait = RESYNC_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311  a spread, not a secret
            try:
                async with asyncio.timeout(wait):
                    await self._listed.wait()
            except TimeoutError:
                await self._patient_look(passing=ApiForbiddenError)
                continue
            while self._listed.is_set():  # until it is quiet: a long list must not become many looks
                self._listed.clear()
                await asyncio.sleep(LISTED_SECONDS)
            # An API server that starts refuses everybody until it has read the roles.
            await self._patient_look(OWN, ApiForbiddenError)


async def _tidy() -> None:
    """Give back what is free between what is kept: the C library does so at the end of its heap only.

    A third of the operator's memory after a look at thousands of objects, whose texts are kept until they are compared.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    while trim is not None:
        trim(0)
        await asyncio.sleep(TIDY_SECONDS)
    await asyncio.Event().wait()  # like all tasks beside it, it goes on for ever


async def _unless(ends: list[asyncio.Task[Any]], work: Coroutine[Any, Any, None]) -> bool:
    """Wait for ``work``, or for one of ``ends`` if that is first. Whether the work was done."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task, *ends], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return False
        task.result()
        return True
    finally:
        await _cancel([task])


def _raise_first(tasks: list[asyncio.Task[Any]]) -> None:
    """Raise the error of the first of the tasks that has one."""
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel the tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=STOP_SECONDS)


def _now() -> datetime:
    return datetime.now(UTC)


async def run_operator(config: Config, stop: asyncio.Event) -> None:
    """Run the operator until ``stop`` is set.

    Raises :class:`gravswell.errors.GravswellError` for whatever the user or the cluster must mend.
    """
    account = await credentials.load(config.kubeconfig, config.context)
    metrics = Metrics()
    async with Client(account, name=names.FIELD_MANAGER, traces=[metrics.trace()]) as client:
        operator = Operator(config, account, client, metrics)
        async with health.serve(config.listen, lambda: operator.ready, metrics.registry) as address:
            log.info(
                "gravswell operator %s on %s, process %d; health on http://%s",
                __version__,
                account.endpoint.url,
                os.getpid(),
                address,
            )
            await operator.run(stop)
    log.info("stopped")


async def run_until_signalled(config: Config) -> None:
    """:func:`run_operator` until SIGTERM or SIGINT."""
    gc.set_threshold(COLLECT_AFTER)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run_operator(config, stop)
