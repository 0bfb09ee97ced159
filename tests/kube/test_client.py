"""The verbs against an HTTP server: what is sent, lists in pages, and what an answer's status means."""

import asyncio
import json
import socket

import pytest
from aiohttp import web

from gravswell.errors import AccessDeniedError, ConflictError, InvalidInputError, NotFoundError, UnavailableError
from gravswell.kube import client as module
from gravswell.kube import errors
from gravswell.kube.client import LIST_ATTEMPTS, REQUESTS, Client
from gravswell.kube.credentials import Account, Endpoint
from gravswell.kube.resources import LEASE, NODE, POD, SERVICE_ACCOUNT, Resource, Selection

from .conftest import item, page, status

WAIT_SECONDS = 60


def names(items):
    return "".join(thing["metadata"]["name"] for thing in items)


async def test_a_list_is_all_of_its_pages(server, api):
    pages = {None: page(item("a"), item("b"), more="next"), "next": page(item("c"), version=9)}
    server.handler = lambda request: pages[request.query.get("continue")]
    items, version = await api.list_all(Selection(POD))
    assert [(thing["kind"], thing["apiVersion"]) for thing in items] == [("Pod", "v1")] * 3
    assert (names(items), version) == ("abc", "7")


async def test_what_is_selected(server, api):
    server.handler = lambda _: page()
    await api.list_all(Selection(POD, "ns", name="a", labels="x=y", fields="spec.nodeName=n"))
    await api.list_all(Selection(NODE))
    assert [request.path for request in server.asked] == ["/api/v1/namespaces/ns/pods", "/api/v1/nodes"]
    selectors = server.queries("labelSelector", "fieldSelector")
    assert selectors == [("x=y", "metadata.name=a,spec.nodeName=n"), (None, None)]


async def test_a_list_whose_pages_expire_begins_anew(server, api):
    server.answers = [page(item("a"), more="old"), status(410), page(item("x"), more="new"), page(item("z"))]
    items, _ = await api.list_all(Selection(POD))
    assert names(items) == "xz"
    assert server.queries("continue") == [(None,), ("old",), (None,), ("new",)]


async def test_a_list_that_always_expires_is_to_be_tried_later(server, api):
    server.handler = lambda request: status(410) if "continue" in request.query else page(item("a"), more="old")
    with pytest.raises(errors.ApiUnavailableError, match=r"Pod \(all\): the API server's own words"):
        await api.list_all(Selection(POD))
    assert len(server.asked) == 2 * LIST_ATTEMPTS


@pytest.mark.parametrize(
    ("code", "error", "base"),
    [
        (302, errors.ApiUnavailableError, UnavailableError),
        (400, errors.ApiRejectedError, InvalidInputError),
        (401, errors.ApiForbiddenError, AccessDeniedError),
        (403, errors.ApiForbiddenError, AccessDeniedError),
        (404, errors.ApiNotFoundError, NotFoundError),
        (405, errors.ApiRejectedError, InvalidInputError),
        (409, errors.ApiConflictError, ConflictError),
        (410, errors.ApiExpiredError, UnavailableError),
        (412, errors.ApiConflictError, ConflictError),
        (422, errors.ApiRejectedError, InvalidInputError),
        (429, errors.ApiUnavailableError, UnavailableError),
        (500, errors.ApiUnavailableError, UnavailableError),
        (503, errors.ApiUnavailableError, UnavailableError),
        (504, errors.ApiUnavailableError, UnavailableError),
    ],
)
async def test_a_status_is_an_error_that_names_the_object(server, api, code, error, base):
    server.handler = lambda _: status(code)
    with pytest.raises(base, match="Pod ns/name: the API server's own words") as caught:
        await api.get(POD, "ns", "name")
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("code", "details", "error"),
    [
        (404, {"kind": "namespaces", "name": "ns"}, errors.NamespaceNotFoundError),
        (404, {"kind": "roles", "name": "ns"}, errors.ApiNotFoundError),
        (403, {"causes": [{"reason": "NamespaceTerminating"}]}, errors.NamespaceTerminatingError),
        (403, {"causes": [{"reason": "Other"}, {}]}, errors.ApiForbiddenError),
        (403, None, errors.ApiForbiddenError),
    ],
)
async def test_what_is_the_namespaces_fault(server, api, code, details, error):
    server.handler = lambda _: web.json_response({"message": "no", "details": details}, status=code)
    with pytest.raises(error) as caught:
        await api.create(SERVICE_ACCOUNT, {"metadata": {"namespace": "ns", "name": "name"}})
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ('User "u" cannot create resource "services" in API group "" in the namespace "ns"', errors.ApiForbiddenError),
        ("exceeded quota: none, requested: count/services=1, used: 0, limited: 0", errors.QuotaExceededError),
        ("failed quota: none: must specify memory", errors.QuotaExceededError),
        ("insufficient quota to consume: pods", errors.QuotaExceededError),
        ('admission webhook "w.example.com" denied the request: exceeded quota: ours', errors.AdmissionDeniedError),
        ("ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", errors.AdmissionDeniedError),
        ('violates PodSecurity "restricted:latest": privileged', errors.AdmissionDeniedError),
    ],
)
async def test_who_refuses_what_is_forbidden(server, api, words, error):
    server.handler = lambda _: web.json_response({"message": f'services "name" is forbidden: {words}'}, status=403)
    with pytest.raises(error, match="Service") as caught:
        await api.create(SERVICE_ACCOUNT, {"metadata": {"namespace": "ns", "name": "name"}})
    assert type(caught.value) is error
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (lambda: status(429, Retry_After="5"), 5),
        (lambda: status(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), None),
        (lambda: web.json_response({"details": {"retryAfterSeconds": 3}}, status=504), 3),
        (lambda: web.Response(text="<html>busy</html>", status=502), None),
        (lambda: web.json_response(["odd"], status=500), None),
    ],
)
async def test_when_to_come_back_is_the_servers_to_say(server, api, answer, seconds):
    server.handler = lambda _: answer()
    with pytest.raises(errors.ApiUnavailableError) as caught:
        await api.get(POD, "ns", "name")
    assert caught.value.retry_after == seconds


async def test_an_answer_that_is_not_the_api_servers(server, api):
    server.handler = lambda _: web.Response(text="<html>log in first</html>", content_type="text/html")
    with pytest.raises(errors.ApiUnavailableError, match=r"Pod ns/name: .* as no API server: <html>log in first"):
        await api.get(POD, "ns", "name")


async def test_a_redirect_gets_no_credentials(server, api):
    server.handler = lambda _: web.Response(status=302, headers={"Location": "/elsewhere"})
    with pytest.raises(errors.ApiUnavailableError):
        await api.get(POD, "ns", "name")
    assert [request.path for request in server.asked] == ["/api/v1/namespaces/ns/pods/name"]


async def test_nobody_answers():
    with socket.socket() as place:  # its port is taken, and nobody listens there
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
        async with Client(Account(Endpoint(f"http://127.0.0.1:{port}")), name="tester") as api:
            with pytest.raises(errors.ApiUnavailableError, match=f"Pod ns/name: no answer .*{port}"):
                await api.get(POD, "ns", "name")


async def test_what_each_verb_sends(server, api):
    sent = []

    async def handler(request):
        text = await request.text()
        sent.append(
            (request.method, request.path_qs, request.headers.get("Content-Type"), json.loads(text) if text else None)
        )
        return web.json_response({})

    server.handler = handler
    manifest = {"metadata": {"namespace": "ns", "name": "a"}}
    change = {"spec": {"x": 1}}
    await api.apply(POD, manifest)
    await api.apply(POD, manifest, manager="other")
    await api.apply_status(POD, manifest)
    await api.merge(POD, "ns", "a", change)
    await api.merge(NODE, None, "n", change, subresource="status", strategic=True)
    await api.create(LEASE, manifest)
    await api.create_under(SERVICE_ACCOUNT, "ns", "a", "token", change)
    await api.replace(POD, manifest)
    pod, lease = "/api/v1/namespaces/ns/pods", "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
    assert sent == [
        ("PATCH", f"{pod}/a?fieldManager=tester&force=true", module.APPLY, manifest),
        ("PATCH", f"{pod}/a?fieldManager=other&force=true", module.APPLY, manifest),
        ("PATCH", f"{pod}/a/status?fieldManager=tester&force=true", module.APPLY, manifest),
        ("PATCH", f"{pod}/a?fieldManager=tester", module.MERGE, change),
        ("PATCH", "/api/v1/nodes/n/status?fieldManager=tester", module.STRATEGIC, change),
        ("POST", lease, "application/json", manifest),
        ("POST", "/api/v1/namespaces/ns/serviceaccounts/a/token", "application/json", change),
        ("PUT", f"{pod}/a", "application/json", manifest),
    ]
    assert server.asked[0].headers["User-Agent"].startswith("tester/")


async def test_deleting_exactly_one_object(server, api):
    bodies = []

    async def handler(request):
        bodies.append(await request.json())
        return answers.pop(0)

    server.handler = handler
    answers = [web.json_response({}), status(404), status(409)]
    await api.delete(POD, "ns", "a", "uid-1", grace_seconds=0)
    await api.delete(POD, "ns", "a")
    await api.delete(POD, "ns", "a", "uid-1")  # another pod has the name by now
    common = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    ours = common | {"preconditions": {"uid": "uid-1"}}
    assert bodies == [ours | {"gracePeriodSeconds": 0}, common, ours]
    answers = [status(409)]
    with pytest.raises(errors.ApiConflictError):
        await api.delete(POD, "ns", "a")


async def test_watches_leave_room_for_requests(server, api):
    """However many there are: each holds a connection for as long as it lasts."""
    hold = asyncio.Event()

    async def handler(request):
        if "watch" not in request.query:
            return web.json_response(item("a"))
        response = web.StreamResponse()
        await response.prepare(request)
        await hold.wait()
        return response

    server.handler = handler

    async def drain():
        async for _ in api.watch(Selection(POD), "1"):
            raise AssertionError("nothing was sent")

    watches = [asyncio.create_task(drain()) for _ in range(2 * REQUESTS)]
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while len(server.asked) < len(watches):  # noqa: ASYNC110  what the server has got, it does not signal
                await asyncio.sleep(0.01)
            assert (await api.get(POD, "ns", "a"))["metadata"]["name"] == "a"
    finally:
        hold.set()
        await asyncio.gather(*watches)


async def test_a_lease_is_renewed_however_slow_other_requests_are(server, api):
    """A webhook that hangs holds every other request; the operator must not lose its Lease for that."""
    hold = asyncio.Event()

    async def handler(request):
        if "leases" not in request.path:
            await hold.wait()
        return web.json_response(item("a"))

    server.handler = handler
    slow = [asyncio.create_task(api.get(POD, "ns", "a")) for _ in range(2 * REQUESTS)]
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while len(server.asked) < REQUESTS:  # noqa: ASYNC110  what the server has got, it does not signal
                await asyncio.sleep(0.01)
            await api.replace(LEASE, item("a"))
            assert len(server.asked) == REQUESTS + 1
    finally:
        hold.set()
        await asyncio.gather(*slow)


def test_paths():
    custom = Resource("Model", "models", "gravswell.dev", "v1alpha1")
    assert custom.api_version == "gravswell.dev/v1alpha1"
    assert custom.path("ns", "a/b", "status") == "/apis/gravswell.dev/v1alpha1/namespaces/ns/models/a%2Fb/status"
    assert NODE.path("ignored", "n") == "/api/v1/nodes/n"
    assert POD.path() == "/api/v1/pods"


async def test_a_fence_keeps_every_change_from_being_sent_but_for_a_lease(server, api):
    server.handler = lambda request: web.json_response({"metadata": {}})

    def closed():
        raise UnavailableError("the lease is somebody else's")

    api.fence = closed
    manifest = {"metadata": {"name": "one", "namespace": "ns"}}
    changes = (
        lambda: api.apply(POD, manifest),
        lambda: api.apply_status(POD, manifest),
        lambda: api.merge(POD, "ns", "one", {}),
        lambda: api.create(POD, manifest),
        lambda: api.create_under(POD, "ns", "one", "token", manifest),
        lambda: api.replace(POD, manifest),
        lambda: api.delete(POD, "ns", "one"),
    )
    for change in changes:
        with pytest.raises(UnavailableError, match="somebody else's"):
            await change()
    assert not server.asked
    await api.get(POD, "ns", "one")
    await api.replace(LEASE, manifest)
    assert [request.method for request in server.asked] == ["GET", "PUT"]


async def test_a_pause_that_is_asked_for_is_kept_by_all_requests_but_a_leases(server, api):
    seconds = 1
    busy = web.json_response({}, status=429, headers={"Retry-After": str(seconds)})
    server.answers = [busy, web.json_response(item("a")), web.json_response(item("b"))]
    with pytest.raises(UnavailableError):
        await api.get(POD, "ns", "a")
    begin = asyncio.get_running_loop().time()
    await api.replace(LEASE, item("a"))
    assert len(server.asked) == 2
    await api.get(POD, "ns", "b")
    assert asyncio.get_running_loop().time() - begin >= 0.9 * seconds
