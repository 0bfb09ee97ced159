"""The client against an HTTP server: lists in pages, and what an answer's status means."""

from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from gravswell_operator import errors
from gravswell_operator.cluster.client import LIST_ATTEMPTS, Client
from gravswell_operator.cluster.resources import POD

Handler = Callable[[web.Request], web.Response]


@pytest.fixture
async def client() -> AsyncIterator[Callable[[Handler], Client]]:
    """``client(handler)``: a client of a server on loopback that answers with ``handler``."""
    answer: list[Handler] = []

    async def handle(request: web.Request) -> web.Response:
        return answer[-1](request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    async with Client(Configuration(host=f"http://{host}:{port}")) as made:

        def use(handler: Handler) -> Client:
            answer.append(handler)
            return made

        yield use
    await runner.cleanup()


def page(names: str, token: str = "") -> web.Response:
    items = [{"metadata": {"name": name}} for name in names]
    return web.json_response({"metadata": {"resourceVersion": "7", "continue": token}, "items": items})


def status(code: int) -> web.Response:
    return web.json_response({"message": "the API server's own words"}, status=code)


async def test_a_list_is_all_of_its_pages(client):
    pages = {"": page("ab", "next"), "next": page("c")}
    items, version = await client(lambda request: pages[request.query.get("continue", "")]).list_all(POD)
    assert [(item["kind"], item["metadata"]["name"]) for item in items] == [("Pod", n) for n in "abc"]
    assert version == "7"


async def test_a_list_whose_pages_expire_begins_anew(client):
    answers = [page("ab", "old"), status(410), page("xy", "new"), page("z")]
    asked = []

    def handler(request):
        asked.append(request.query.get("continue", ""))
        return answers[len(asked) - 1]

    items, _ = await client(handler).list_all(POD)
    assert "".join(item["metadata"]["name"] for item in items) == "xyz"
    assert asked == ["", "old", "", "new"]


async def test_a_list_that_always_expires_is_to_be_tried_later(client):
    using = client(lambda request: status(410) if "continue" in request.query else page("a", "old"))
    with pytest.raises(errors.ApiUnavailableError, match=r"Pod \(all\): the API server's own words"):
        await using.list_all(POD)
    assert using.requests == 2 * LIST_ATTEMPTS


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, errors.ApiRejectedError),
        (401, errors.ApiForbiddenError),
        (403, errors.ApiForbiddenError),
        (404, errors.ApiNotFoundError),
        (409, errors.ApiConflictError),
        (410, errors.ApiExpiredError),
        (412, errors.ApiConflictError),
        (422, errors.ApiRejectedError),
        (429, errors.ApiUnavailableError),
        (500, errors.ApiUnavailableError),
        (503, errors.ApiUnavailableError),
    ],
)
async def test_a_status_is_an_error_that_names_the_object(client, code, error):
    with pytest.raises(error, match="Pod ns/name: the API server's own words") as caught:
        await client(lambda _: status(code)).get(POD, "ns", "name")
    assert type(caught.value) is error


async def test_when_to_come_back_is_the_servers_to_say(client):
    busy = web.json_response({}, status=429, headers={"Retry-After": "5"})
    with pytest.raises(errors.ApiUnavailableError) as caught:
        await client(lambda _: busy).get(POD, "ns", "name")
    assert caught.value.retry_after == 5
