"""From a key to its reconcile: what is gone or suspended is left alone, what fails is tried again later and later."""

import logging
import time
from collections.abc import Awaitable, Callable

from gravswell import logs
from gravswell.errors import GravswellError
from gravswell.kube import errors
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Key, Record
from gravswell_operator.cluster.resources import ResourceType
from gravswell_operator.reconcile import apply, clouds, model, pool, repository, server, status
from gravswell_operator.reconcile.context import Context
from gravswell_operator.state import Unreadable

_RECONCILERS: dict[ResourceType, Callable[[Context, Record], Awaitable[None]]] = {
    resources.GPU_NODE_POOL: pool.reconcile,
    resources.MODEL_REPOSITORY: repository.reconcile,
    resources.INFERENCE_SERVER: server.reconcile,
    resources.MODEL: model.reconcile,
}

OUTAGE_SECONDS = 30.0
"""The longest wait for an API server that does not answer, which is no object's own failure and over for all at once,
and after a conflict, which is over once we have looked again."""

LASTING_TRIES = 5
"""Failures in a row, each after a wait, after which a conflict is told, once: somebody keeps writing what we write."""

log = logging.getLogger(__name__)


class Engine:
    """Reconciles keys, and counts how that went."""

    def __init__(self, context: Context) -> None:
        self.context = context

    async def handle(self, key: Key) -> None:
        """Reconcile one object; its failure is noted and tried again, and never anybody else's."""
        with logs.about(kind=key.resource.kind, namespace=key.namespace, name=key.name):
            await self._handle(key)

    async def _handle(self, key: Key) -> None:
        started = time.perf_counter()
        queue = self.context.queue
        try:
            await self._reconcile(key)
        except errors.NamespaceTerminatingError as error:
            log.debug("%s: left alone: %s", key, error)  # it goes with its namespace
            queue.forget(key)
        except errors.ApiConflictError as error:
            self._failed(key, error, logging.DEBUG)  # it changed under our hands; mostly the next look is enough
        except GravswellError as error:
            self._failed(key, error, logging.WARNING)
        except Exception as error:
            self.context.metrics.failed(key.resource.kind, error)
            delay = queue.retry_delay(key)
            log.exception("%s: a fault of the operator; next try in %.1f s", key, delay)
            queue.add(key, delay)
            await self._tell_fault(key, error)
        else:
            queue.forget(key)
        finally:
            self.context.metrics.reconciled(key.resource.kind, time.perf_counter() - started)

    def _failed(self, key: Key, error: GravswellError, level: int) -> None:
        self.context.metrics.failed(key.resource.kind, error)
        before = self.context.queue.tries(key)
        delay = self.context.queue.retry_delay(key)
        if before < LASTING_TRIES <= self.context.queue.tries(key):
            level = logging.WARNING
        if isinstance(error, errors.ApiUnavailableError):
            delay = max(min(delay, OUTAGE_SECONDS), error.retry_after or 0.0)
        elif isinstance(error, errors.ApiConflictError) and not isinstance(error, apply.NameTakenError):
            delay = min(delay, OUTAGE_SECONDS)
        log.log(level, "%s: %s; next try in %.1f s", key, error, delay)
        self.context.queue.add(key, delay)

    async def _tell_fault(self, key: Key, error: Exception) -> None:
        record = self.context.cache.get(key)
        if record is None or isinstance(record.view, Unreadable):
            return
        try:
            await status.write_fault(self.context, record, error)
        except GravswellError as refused:
            log.warning("%s: its status does not say so: %s", key, refused)

    async def _reconcile(self, key: Key) -> None:
        record = self.context.cache.get(key)
        if record is None:  # gone: the garbage collector takes its children
            self.context.ahead.pop(key, None)
            self.context.starting.pop(key, None)
            self.context.settling.pop(key, None)
            if key.resource is resources.GPU_NODE_POOL:
                pool.tell_draining(self.context, key)
            return
        if isinstance(record.view, Unreadable):
            if record.view.deleting and key.resource is resources.GPU_NODE_POOL:
                await clouds.release_unreadable(self.context, record)
            else:
                await status.write_invalid(self.context, record)
            return
        if record.view.metadata.deletion_timestamp is not None:
            if key.resource is resources.GPU_NODE_POOL:
                await clouds.release(self.context, record)
            return
        if record.view.spec.suspend and key.resource is not resources.MODEL:
            await status.write_suspended(self.context, record)
            if key.resource is resources.INFERENCE_SERVER:
                await server.keep_in_traffic(self.context, record)
            return
        await _RECONCILERS[key.resource](self.context, record)
