"""The operator's metrics: what a request, a reconcile and an object become in what Prometheus reads."""

from datetime import UTC, datetime

import pytest
from aiohttp import web
from yarl import URL

from gravswell.kube.client import Client
from gravswell.kube.credentials import Account, Endpoint
from gravswell.kube.errors import ApiConflictError, ApiUnavailableError
from gravswell.kube.resources import Selection
from gravswell_operator.cluster import metrics, resources
from gravswell_operator.cluster.cache import Cache, Key
from gravswell_operator.cluster.metrics import Metrics, State
from gravswell_operator.cluster.queue import WorkQueue
from gravswell_operator.reconcile.apply import NameTakenError

from ..exposition import total

SERVERS = "/apis/gravswell.dev/v1alpha1/inferenceservers"


@pytest.mark.parametrize(
    ("method", "url", "expected"),
    [
        ("GET", "/api/v1/nodes?limit=500", ("list", "Node")),
        ("GET", "/api/v1/nodes?watch=true", ("watch", "Node")),
        ("GET", "/api/v1/namespaces/ns/pods/p", ("get", "Pod")),
        ("GET", f"{SERVERS}?watch=true&resourceVersion=1", ("watch", "InferenceServer")),
        ("PATCH", "/apis/gravswell.dev/v1alpha1/namespaces/a/models/m/status", ("patch", "Model/status")),
        ("POST", "/apis/events.k8s.io/v1/namespaces/ns/events", ("create", "Event")),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/l", ("update", "Lease")),
        ("DELETE", "/api/v1/namespaces/ns/configmaps/namespaces", ("delete", "ConfigMap")),
        ("GET", "/api/v1/namespaces/ns", ("get", "Namespace")),
        ("GET", "/apis/apps/v1/namespaces/ns/replicasets/r", ("get", "replicasets")),
        ("GET", "/version", ("list", "")),
    ],
)
def test_a_request_is_named_as_rules_name_it(method, url, expected):
    assert metrics.request(method, URL("https://server" + url)) == expected


async def test_every_request_is_counted_by_what_became_of_it():
    app = web.Application()
    codes = iter((200, 409))

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"items": []}, status=next(codes))

    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    counted = Metrics()
    account = Account(Endpoint("http://{}:{}".format(*runner.addresses[0])))
    async with Client(account, name="test", traces=[counted.trace()]) as client:
        await client.list_all(Selection(resources.MODEL))
        with pytest.raises(ApiConflictError):
            await client.replace(resources.MODEL, {"metadata": {"namespace": "ns", "name": "m"}})
        await runner.cleanup()
        with pytest.raises(ApiUnavailableError):
            await client.get(resources.MODEL, "ns", "m")
    families = list(counted.registry.collect())
    name = "gravswell_api_requests_total"
    assert total(families, name) == 3
    assert total(families, name, verb="list", kind="Model", code="200") == 1
    assert total(families, name, verb="update", kind="Model", code="409") == 1
    assert total(families, name, verb="get", kind="Model", code=metrics.NO_ANSWER) == 1
    assert total(families, "gravswell_api_request_duration_seconds_count", kind="Model") == 3


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (ApiConflictError("x"), "Conflict"),
        (NameTakenError("x"), "NameTaken"),
        (ApiUnavailableError("x"), "Unavailable"),
        (KeyError("x"), "Key"),
    ],
)
def test_a_failure_is_one_word(error, word):
    assert metrics.reason(error) == word


def pool(name, version, *, status=None, since="2026-01-01T00:00:00Z", suspend=False):
    provider = {"type": "Static", "static": {"matchLabels": {"a": "b"}}}
    spec = {"provider": provider, "accelerator": {"type": "x", "count": 1}, "size": 1, "suspend": suspend}
    body = {"metadata": {"name": name, "resourceVersion": str(version), "creationTimestamp": since}, "spec": spec}
    if status is not None:
        ready = {"type": "Ready", "status": status, "reason": "Why", "message": "", "lastTransitionTime": since}
        body["status"] = {"conditions": [ready]}
    return body


def test_an_object_is_named_while_it_is_not_ready_and_not_suspended():
    cache, queue = Cache(), WorkQueue[Key](lambda: 0.0)
    later = "2026-01-02T00:00:00Z"
    for number, body in enumerate(
        [
            pool("fine", 1, status="True"),
            pool("poor", 2, status="False", since=later),
            pool("resting", 3, status="False", suspend=True),
            pool("new", 4),
            {**pool("odd", 5), "spec": {"provider": {"type": "Strange"}}},
        ]
    ):
        cache.observe(resources.GPU_NODE_POOL, body)
        queue.add(Key(resources.GPU_NODE_POOL, "", f"waits-{number}"))
    families = list(State(cache, queue, lambda: 7).collect())
    kind = {"kind": "GPUNodePool"}
    counts = [total(families, "gravswell_objects", **kind, ready=s) for s in ("True", "False", "Unknown")]
    assert counts == [1, 3, 1]
    (named,) = (f for f in families if f.name.startswith("gravswell_object_unready"))
    assert {s.labels["name"]: s.labels["reason"] for s in named.samples} == {
        "poor": "Why",
        "new": "",
        "odd": "InvalidSpec",
    }
    assert total(families, named.name, name="poor") == datetime.fromisoformat(later).astimezone(UTC).timestamp()
    assert total(families, "gravswell_queue_length", **kind) == 5
    assert total(families, "gravswell_objects_known", **kind) == 5
    assert total(families, "gravswell_events_dropped_total") == 7


async def test_how_long_something_was_due_is_told():
    now, told = [100.0], []
    queue = WorkQueue[str](lambda: now[0], lambda key, seconds: told.append((key, seconds)))
    queue.add("a", 1.0)
    now[0] = 104.0
    await queue.get()
    assert told == [("a", 3.0)]
