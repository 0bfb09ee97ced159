"""The operator's metrics: what is counted as it happens, and what is read off its state when somebody asks.

By Prometheus' conventions: base units, ``_total`` for what only grows, and labels whose values are few. An object is
named only while it is not ready, so that the series are as many as the troubles. ``docs/operations.md`` lists them; a
test compares that table with what is served.
"""

import time
from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import aiohttp
import prometheus_client as prometheus
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from yarl import URL

from gravswell import __version__
from gravswell.kube import resources as kube
from gravswell_operator import conditions
from gravswell_operator.api import ConditionStatus
from gravswell_operator.cluster.cache import Cache, Key, Record
from gravswell_operator.cluster.queue import WorkQueue
from gravswell_operator.cluster.resources import EVENT, OPTIONAL, OWN, WATCHED
from gravswell_operator.state import Unreadable

SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""Buckets: from an answer out of the cache to a request that times out."""

NO_ANSWER = "none"
"""``code`` of a request that was not answered."""

# When each counter began, as a series of its own beside each: twice the series for what nobody asks.
prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]

_KINDS = {(r.group, r.plural): r.kind for r in (*WATCHED, *OPTIONAL, EVENT, kube.LEASE, kube.NAMESPACE)}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Metrics:
    """What is counted as it happens. One for each operator; ``registry`` has all that is served."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        build = prometheus.Gauge("gravswell_build_info", "The operator's release; always 1.", ["version"], **self._here)
        build.labels(__version__).set(1)
        self.lease_held = prometheus.Gauge(
            "gravswell_lease_held", "1 while this operator holds the Lease, or runs without one.", **self._here
        )
        self._reconciles = prometheus.Histogram(
            "gravswell_reconcile_duration_seconds",
            "How long reconciles took, by the object's kind.",
            ["kind"],
            buckets=SECONDS,
            **self._here,
        )
        self._errors = prometheus.Counter(
            "gravswell_reconcile_errors_total",
            "Reconciles that failed, by the object's kind and by what failed; each is tried again.",
            ["kind", "reason"],
            **self._here,
        )
        self._waits = prometheus.Histogram(
            "gravswell_queue_wait_seconds",
            "How long objects that were due waited for a worker, by kind.",
            ["kind"],
            buckets=SECONDS,
            **self._here,
        )
        self._requests = prometheus.Counter(
            "gravswell_api_requests_total",
            "Requests to the API server, by verb, kind and HTTP status; code none: no answer. The verb watch counts "
            "how often a watch was begun.",
            ["verb", "kind", "code"],
            **self._here,
        )
        self._request_seconds = prometheus.Histogram(
            "gravswell_api_request_duration_seconds",
            "How long the API server took to begin its answer, by verb and kind; watches are not among them.",
            ["verb", "kind"],
            buckets=SECONDS,
            **self._here,
        )
        for kind in (resource.kind for resource in OWN):  # there from the start, so that a rate sees the first one
            self._reconciles.labels(kind)
            self._waits.labels(kind)

    @property
    def _here(self) -> Mapping[str, Any]:
        return {"registry": self.registry}

    def reconciled(self, kind: str, seconds: float) -> None:
        """A reconcile of an object of ``kind`` has ended, well or not."""
        self._reconciles.labels(kind).observe(seconds)

    def failed(self, kind: str, error: Exception) -> None:
        """It failed with ``error``."""
        self._errors.labels(kind, reason(error)).inc()

    def waited(self, key: Key, seconds: float) -> None:
        """An object that was due waited for ``seconds``."""
        self._waits.labels(key.resource.kind).observe(seconds)

    def trace(self) -> aiohttp.TraceConfig:
        """What a session must be opened with so that its requests are counted."""

        async def start(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
            context.started = time.perf_counter()

        async def end(
            _: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
        ) -> None:
            self._requested(params.method, params.url, str(params.response.status), context.started)

        async def fail(
            _: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestExceptionParams
        ) -> None:
            self._requested(params.method, params.url, NO_ANSWER, context.started)

        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(start)
        trace.on_request_end.append(end)
        trace.on_request_exception.append(fail)
        return trace

    def _requested(self, method: str, url: URL, code: str, started: float) -> None:
        verb, kind = request(method, url)
        self._requests.labels(verb, kind, code).inc()
        if verb != "watch":
            self._request_seconds.labels(verb, kind).observe(time.perf_counter() - started)


def reason(error: Exception) -> str:
    """What failed, in one word: the error's type; of those of the API server and of ours without their affixes."""
    return type(error).__name__.removeprefix("Api").removesuffix("Error")


def request(method: str, url: URL) -> tuple[str, str]:
    """Verb and kind of a request, as the API server's own rules name verbs; of the status, ``KIND/status``."""
    parts = url.path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1] if len(parts) > 1 else "", parts[3:])
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    plural, named, below = rest[0] if rest else "", len(rest) > 1, rest[2:]
    kind = "/".join([_KINDS.get((group, plural), plural), *below])
    if method != "GET":
        return _VERBS.get(method, method.lower()), kind
    if named:
        return "get", kind
    return ("watch" if url.query.get("watch") == "true" else "list"), kind


class State(Collector):
    """What is read off the cache and the queue when somebody asks: no reconcile pays for it."""

    def __init__(self, cache: Cache, queue: WorkQueue[Key], events_dropped: Callable[[], int]) -> None:
        self._cache, self._queue, self._events_dropped = cache, queue, events_dropped

    def collect(self) -> Iterator[Metric]:
        """All families, as they are now."""
        yield from self._work()
        yield from self._objects()

    def _work(self) -> Iterator[Metric]:
        length = GaugeMetricFamily(
            "gravswell_queue_length",
            "Objects that wait for a reconcile, a retry included, or that are being reconciled, by kind.",
            labels=["kind"],
        )
        waiting = Count(key.resource.kind for key in self._queue.keys)
        for resource in OWN:
            length.add_metric([resource.kind], waiting[resource.kind])
        yield length
        failing = GaugeMetricFamily(
            "gravswell_objects_failing", "Objects whose last reconcile failed and that wait to be tried again."
        )
        failing.add_metric([], self._queue.failing)
        yield failing
        known = GaugeMetricFamily(
            "gravswell_objects_known",
            "Objects of the cluster that the operator holds in memory, by kind.",
            labels=["kind"],
        )
        for watched in WATCHED:
            known.add_metric([watched.kind], self._cache.size(watched))
        yield known
        dropped = CounterMetricFamily(
            "gravswell_events_dropped_total", "Kubernetes Events that were not written because too many waited."
        )
        dropped.add_metric([], self._events_dropped())
        yield dropped

    def _objects(self) -> Iterable[Metric]:
        objects = GaugeMetricFamily(
            "gravswell_objects", "Objects by kind and by the status of their condition Ready.", labels=["kind", "ready"]
        )
        unready = GaugeMetricFamily(
            "gravswell_object_unready_since_timestamp_seconds",
            "Of each object that is not ready, and not suspended: since when, in seconds of Unix time, and why.",
            labels=["kind", "namespace", "name", "reason"],
        )
        for resource in OWN:
            found: Count[str] = Count()
            for record in self._cache.all(resource):
                status, since, why = readiness(record)
                found[status] += 1
                if status != ConditionStatus.TRUE and not _suspended(record):
                    labels = [resource.kind, record.key.namespace, record.key.name, why]
                    unready.add_metric(labels, datetime.fromisoformat(since).timestamp())
            for status in ConditionStatus:
                objects.add_metric([resource.kind, status.value], found[status])
        return objects, unready


def readiness(record: Record) -> tuple[ConditionStatus, str, str]:
    """Status, time of the last transition and reason of an object's condition Ready.

    Of one that the operator has not looked at: unknown, since it was made.
    """
    view = record.view
    if isinstance(view, Unreadable):
        return ConditionStatus.FALSE, view.created, conditions.Reason.INVALID_SPEC
    ready = conditions.ready(view.status)
    if ready is None:
        return ConditionStatus.UNKNOWN, view.metadata.creation_timestamp, ""
    return ready.status, ready.last_transition_time, ready.reason


def _suspended(record: Record) -> bool:
    return not isinstance(record.view, Unreadable) and bool(record.view.spec.suspend)
