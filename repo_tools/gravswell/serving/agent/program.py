"""``gravswell agent run`` and ``list``: the parts put together, and a clean, bounded stop on SIGTERM."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from gravswell.errors import InvalidInputError
from gravswell.kube import credentials
from gravswell.kube.client import Client
from gravswell.serving.agent.configmaps import ConfigMap
from gravswell.serving.agent.desired import ConfigMapSource, DesiredSource, FileSource, LatestSource, OfRank
from gravswell.serving.agent.folder import ModelFolder
from gravswell.serving.agent.keeping import CacheKeeper
from gravswell.serving.agent.key import read_key
from gravswell.serving.agent.lister import Lister
from gravswell.serving.agent.nodecache import NodeCache
from gravswell.serving.agent.reconciler import Reconciler
from gravswell.serving.agent.reporting import ReportWriter
from gravswell.serving.agent.server import AgentServer, ListerServer
from gravswell.serving.agent.steps import Steps
from gravswell.serving.agent.traffic import TrafficCounter
from gravswell.serving.agent.triton import TritonControl
from gravswell.serving.agent.work import Pace
from gravswell.serving.contracts import Desired, report_configmap

log = logging.getLogger(__name__)

AGENT, LISTER = "gravswell-agent", "gravswell-lister"
"""The programs' names: of the fields that they write, and in the audit log."""

LISTER_PATIENCE = timedelta(seconds=10)
"""How long a lister asks a bucket that does not answer before it says so: it asks again with its next listing."""

STOP_SECONDS = 3.0
"""How long a program that is through waits for its threads: one that a store keeps waiting hears of nothing, and the
pod's grace would end first, with its GPUs."""

SIMULATED_GPUS_ENV = "GRAVSWELL_SIMULATED_GPUS"
"""Set to 1 by a development node, whose GPUs are only counted: models run on the CPU there."""


@dataclass(frozen=True)
class AgentOptions:
    """What ``gravswell agent run`` is told. Exactly one of the three sources of the desired state is given."""

    repository: str
    models: Path
    listen: str
    triton_http: str
    triton_grpc: str | None = None
    triton_metrics: str | None = None
    """Where Triton tells how much memory its GPUs have left; None: nobody is asked before a load."""
    key_file: Path | None = None
    desired_configmap: str | None = None
    desired_file: Path | None = None
    follow_latest: bool = False
    report_configmap: str | None = None
    namespace: str | None = None
    pod: str = "agent"
    uid: str = ""
    """The pod's, where another of its name may have reported before."""
    rank: int | None = None
    """Which rank of a group this is: of each partition it serves the parts of that rank. None: whole models."""
    interval: float = 10.0
    """Seconds between two looks at a file or repository."""
    storage_limit: int | None = None
    """Bytes that ``models`` may reach; None: as many as its file system holds."""
    cache: Path | None = None
    """The node cache's folder, on a volume that outlives the pod."""
    cache_limit: int | None = None
    """Bytes that it may reach; None: as many as its volume holds."""
    memory_limit: int | None = None
    """Bytes of memory that Triton may take; None: as many as its machine has."""
    cpu_only: bool = False
    simulated_gpus: bool = False
    pace: Pace = field(default_factory=Pace)

    def check(self) -> None:
        """Raise :class:`InvalidInputError` for options that contradict one another."""
        given = [bool(self.desired_configmap), self.desired_file is not None, self.follow_latest]
        if sum(given) != 1:
            raise InvalidInputError(
                "what shall be served is said by exactly one of --desired (a ConfigMap), --desired-file and "
                "--follow-latest"
            )
        if self.follow_latest and self.rank is not None:
            raise InvalidInputError(
                "--rank serves the parts that --desired or --desired-file give to a rank; with --follow-latest every "
                "entry is served whole"
            )
        if self.cache_limit is not None and self.cache is None:
            raise InvalidInputError("--cache-limit says how large --cache may become; give that folder, too")


@asynccontextmanager
async def running_agent(options: AgentOptions) -> AsyncIterator[tuple[Reconciler, AgentServer, Awaitable[None]]]:
    """A running agent: its reconciler, its endpoint, and an awaitable that ends only when one of its parts fails."""
    options.check()
    key = read_key(options.key_file) if options.key_file is not None else None
    async with AsyncExitStack() as stack:
        triton = await stack.enter_async_context(
            TritonControl(
                options.triton_http, grpc_address=options.triton_grpc, metrics_address=options.triton_metrics, key=key
            )
        )
        steps = Steps(
            repository=options.repository,
            folder=ModelFolder(options.models, limit=options.storage_limit),
            triton=triton,
            cpu_only=options.cpu_only,
            memory_limit=options.memory_limit,
            key=key or "",
            cache=NodeCache(options.cache, limit=options.cache_limit) if options.cache is not None else None,
        )
        reconciler = Reconciler(steps, pace=options.pace)
        await reconciler.open()
        server = await stack.enter_async_context(
            AgentServer(reconciler, options.listen, pod=options.pod, simulated_gpus=options.simulated_gpus)
        )
        client = None
        if options.desired_configmap or options.report_configmap:
            client = await stack.enter_async_context(Client(credentials.in_cluster(), name=AGENT))
        source = _source(options, client, reconciler.ledger.desired)
        if options.rank is not None:
            source = OfRank(source, options.rank)
        counter = TrafficCounter(triton, reconciler.ledger)

        def accept(desired: Desired) -> None:
            reconciler.accept(desired.on(options.pod))
            counter.watch(desired.canaries)

        jobs = [reconciler.run(), counter.run(), source.follow(accept)]
        listeners: list[Callable[[], None]] = []
        if options.report_configmap and client is not None:
            writer = ReportWriter(
                partial(_report_configmap, options, client, options.report_configmap),
                reconciler.ledger,
                pod=options.pod,
                simulated_gpus=options.simulated_gpus,
                uid=options.uid,
            )
            listeners.append(writer.changed)
            jobs.append(writer.run())
        if steps.cache is not None:
            keeper = CacheKeeper(steps.cache, reconciler.ledger, steps.folder)
            listeners.append(keeper.changed)
            jobs.append(keeper.run())

        def tell_all() -> None:
            for tell in listeners:
                tell()

        reconciler.ledger.tell = tell_all
        tasks = [asyncio.create_task(job) for job in jobs]
        stack.push_async_callback(_cancelled, tasks)
        yield reconciler, server, _first_end(tasks)


def run_program(program: Coroutine[Any, Any, None]) -> None:
    """Run a program of this module to its end, and no longer: threads that do not end are left, with the process.

    What they were at is then as if the machine had died: it is not there for anybody, and cleared away by the next one.
    """
    failure: Exception | None = None

    def leave() -> None:
        log.warning("what was asked of the repository is given up, for it does not answer")
        if failure is not None:
            log.error("%s", failure)
        logging.shutdown()
        os._exit(0 if failure is None else 1)

    leaving = threading.Timer(STOP_SECONDS, leave)
    leaving.daemon = True
    try:
        with asyncio.Runner() as runner:  # its end waits for the threads
            try:
                runner.run(program)
            except Exception as error:
                failure = error
                raise
            finally:
                leaving.start()
    finally:
        leaving.cancel()


async def run_agent(options: AgentOptions) -> None:
    """Run until SIGTERM or SIGINT."""
    async with running_agent(options) as (_, server, failed):
        log.info("listening on %s", server.address)
        await until_stopped(failed)
    log.info("stopped")


async def run_lister(
    repository: str,
    listing: str,
    interval: float,
    *,
    known_as: str | None = None,
    namespace: str | None = None,
    listen: str | None = None,
) -> None:
    """Keep the ConfigMap ``listing`` true to ``repository`` until SIGTERM or SIGINT.

    The listing names the repository ``known_as``, where that is given.
    """
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(credentials.in_cluster(), name=LISTER))
        configmap = ConfigMap(client, namespace or credentials.pod_namespace(), listing)
        lister = Lister(repository, configmap, interval, known_as=known_as, patience=LISTER_PATIENCE)
        if listen is not None:
            await stack.enter_async_context(ListerServer(lister, listen))
        task = asyncio.create_task(lister.run())
        stack.push_async_callback(_cancelled, [task])
        await until_stopped(_first_end([task]))


async def until_stopped(failed: Awaitable[None]) -> None:
    """Return on SIGTERM or SIGINT; raise what ``failed`` raises."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    waits = [asyncio.ensure_future(failed), asyncio.ensure_future(stop.wait())]
    done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in pending:
        wait.cancel()
    for wait in done:
        wait.result()


def _source(options: AgentOptions, client: Client | None, last: Desired | None) -> DesiredSource:
    if options.desired_configmap and client is not None:
        return ConfigMapSource(_configmap(options, client, options.desired_configmap))
    if options.desired_file is not None:
        return FileSource(options.desired_file, options.interval)
    return LatestSource(options.repository, options.interval, last=last)


def _report_configmap(options: AgentOptions, client: Client, first: str, part: int) -> ConfigMap:
    return _configmap(options, client, report_configmap(first, part))


def _configmap(options: AgentOptions, client: Client, name: str) -> ConfigMap:
    return ConfigMap(client, options.namespace or credentials.pod_namespace(), name)


async def _first_end(tasks: list["asyncio.Task[None]"]) -> None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _cancelled(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
