"""Watches that end, break, expire and are refused; and what a follower makes of that."""

import asyncio
from contextlib import aclosing

import pytest
from aiohttp import web

from gravswell.kube import backoff as waits
from gravswell.kube import client as module
from gravswell.kube import errors
from gravswell.kube import watch as reading
from gravswell.kube.backoff import Backoff
from gravswell.kube.resources import POD, Selection
from gravswell.kube.watch import Listed

from .conftest import event, item, page, status

PODS = Selection(POD)
EXPIRED = event("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version: 1 (9)"})


async def follow(api, count: int) -> list[str]:
    """The first ``count`` things that a follower sees."""
    seen: list[str] = []
    async with asyncio.timeout(60), aclosing(api.follow(PODS)) as things:
        async for thing in things:
            if isinstance(thing, Listed):
                seen.append("all: " + " ".join(one["metadata"]["name"] for one in thing.items))
            else:
                seen.append(f"{thing.type} {thing.object['metadata']['name']}")
            if len(seen) == count:
                break
    return seen


async def drain(api, version: str = "1") -> list[reading.Change]:
    return [change async for change in api.watch(PODS, version)]


async def test_a_watch_says_what_changes_until_it_ends(server, api):
    server.answers = [[event("ADDED", item("a", 8)), event("BOOKMARK", {"metadata": {"resourceVersion": "12"}})]]
    changes = await drain(api, "7")
    assert [(change.type, change.version) for change in changes] == [("ADDED", "8"), ("BOOKMARK", "12")]
    query = server.queries("watch", "resourceVersion", "allowWatchBookmarks", "timeoutSeconds")
    assert query == [("true", "7", "true", str(module.WATCH_SECONDS))]


async def test_an_event_is_one_line_however_it_arrives(server, api):
    large = event("ADDED", item("large", data="x" * 5_000_000))
    server.answers = [[large, b'{"type": "MODI', b'FIED", "object": {"metadata": ', b'{"resourceVersion": "3"}}}\n']]
    changes = await drain(api)
    assert [(change.type, len(change.object.get("data", ""))) for change in changes] == [
        ("ADDED", 5_000_000),
        ("MODIFIED", 0),
    ]


async def test_an_event_without_end_is_not_kept_for_ever(server, api, monkeypatch):
    monkeypatch.setattr(reading, "LINE_BYTES", 100_000)
    server.answers = [[b"x" * 300_000]]
    with pytest.raises(errors.ApiUnavailableError, match=r"watch of Pod \(all\): an event of more than 100000 bytes"):
        await drain(api)


@pytest.mark.parametrize(
    ("lines", "error", "words"),
    [
        ([EXPIRED], errors.ApiExpiredError, "too old resource version"),
        ([event("ERROR", {"message": "etcd is away"})], errors.ApiUnavailableError, "etcd is away"),
        ([event("ERROR", {"code": 403, "message": "no more"})], errors.ApiForbiddenError, "no more"),
        ([b"<html>\n"], errors.ApiUnavailableError, "no event: <html>"),
        ([b'["odd"]\n'], errors.ApiUnavailableError, "no event"),
        ([event("ADDED", item("a")), b'{"type": "ADD'], errors.ApiUnavailableError, "cut in the middle of an event"),
        ([event("ADDED", item("a")), None], errors.ApiUnavailableError, "the connection broke"),
        ([b'{"type": "ADD', None], errors.ApiUnavailableError, "the connection broke"),
    ],
)
async def test_how_a_watch_can_fail(server, api, lines, error, words):
    server.answers = [lines]
    with pytest.raises(error, match=rf"watch of Pod \(all\): .*{words}") as caught:
        await drain(api)
    assert type(caught.value) is error


async def test_a_watch_whose_connection_is_dead_is_given_up(server, api, monkeypatch):
    monkeypatch.setattr(module, "SILENCE_SECONDS", 1)
    hold = asyncio.Event()

    async def silent(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await hold.wait()
        return response

    server.handler = silent
    with pytest.raises(errors.ApiUnavailableError, match="the connection broke"):
        async for _ in api.watch(PODS, "1", seconds=0):
            pass
    hold.set()


async def test_following_goes_on_where_a_watch_ended(server, api, pauses):
    server.answers = [
        page(item("a"), version=7),
        [event("ADDED", item("b", 8)), event("BOOKMARK", {"metadata": {"resourceVersion": "20"}})],
        [event("DELETED", item("a", 21))],
    ]
    assert await follow(api, 3) == ["all: a", "ADDED b", "DELETED a"]
    assert server.queries("resourceVersion") == [(None,), ("7",), ("20",)]


@pytest.mark.parametrize("cut", [[b'{"type": "MODIFIED", "obj', None], [None]])
async def test_following_goes_on_where_a_watch_was_cut(server, api, pauses, cut):
    server.answers = [page(item("a"), version=7), [event("ADDED", item("b", 8)), *cut], [event("ADDED", item("c", 9))]]
    assert await follow(api, 3) == ["all: a", "ADDED b", "ADDED c"]
    assert server.queries("resourceVersion") == [(None,), ("7",), ("8",)]
    assert len(pauses) == 1


@pytest.mark.parametrize("expired", [lambda: status(410), lambda: [EXPIRED]])
async def test_history_that_is_gone_is_made_up_for_by_a_list(server, api, pauses, expired):
    """What is not in the new list was deleted meanwhile."""
    server.answers = [
        page(item("a"), item("b"), version=7),
        [event("MODIFIED", item("b", 8))],
        expired(),
        page(item("b"), version=40),
        [event("ADDED", item("c", 41))],
    ]
    assert await follow(api, 4) == ["all: a b", "MODIFIED b", "all: b", "ADDED c"]
    assert server.queries("watch", "resourceVersion") == [
        (None, None),
        ("true", "7"),
        ("true", "8"),
        (None, None),
        ("true", "40"),
    ]


async def test_an_outage_ends_with_a_list(server, api, pauses):
    """A server that was restored from a backup may be behind what we have seen, and our version mean nothing to it."""
    server.answers = [page(item("a"), version=700), status(503), status(500), page(item("z"), version=3)]
    assert await follow(api, 2) == ["all: a", "all: z"]
    assert [bool(watch) for (watch,) in server.queries("watch")] == [False, True, False, False]
    assert pauses[1] > pauses[0]


async def test_a_busy_server_is_given_the_time_that_it_asks_for(server, api, pauses):
    server.answers = [
        status(429, Retry_After="17"),
        page(item("a")),
        status(429, Retry_After="60"),
        page(item("a")),
    ]
    assert await follow(api, 2) == ["all: a", "all: a"]
    assert pauses == [17, 60]


async def test_watches_that_end_at_once_are_no_busy_loop(server, api, pauses):
    server.answers = [page(), [], [], [], [event("ADDED", item("a", 8))]]
    assert await follow(api, 2) == ["all: ", "ADDED a"]
    assert len(pauses) == 3
    assert pauses[2] > pauses[1] > pauses[0]


async def test_watches_that_end_at_once_are_no_busy_loop_whatever_they_say(server, api, pauses):
    server.answers = [page(), *([event("ADDED", item(name, 8))] for name in "abcdef")]
    assert await follow(api, 7) == ["all: ", *(f"ADDED {name}" for name in "abcdef")]
    assert len(pauses) == 5
    assert min(pauses) > 0.5
    assert max(pauses) <= 1


class Held:
    """Lists, and watches that are answered at once, say nothing, and end ``seconds`` later: cut, or as they should."""

    def __init__(self, seconds: float, *, cut: bool) -> None:
        self.seconds, self.cut = seconds, cut

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return page(item("a"))
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await asyncio.sleep(self.seconds)
        if self.cut:
            request.transport.close()
        return response


async def test_a_quiet_watch_that_is_cut_now_and_then_is_opened_anew_soon(server, api, pauses, monkeypatch):
    """Nothing happens to the objects of most kinds for hours, and something on the way may end idle connections."""
    monkeypatch.setattr(waits, "STEADY_WATCH_SECONDS", 0.1)
    server.handler = Held(0.4, cut=True)
    assert await follow(api, 6) == ["all: a"] * 6
    assert len(pauses) == 5
    assert max(pauses) <= 1


async def test_a_watch_that_is_taken_up_and_cut_at_once_is_opened_less_and_less_often(server, api, pauses):
    server.handler = Held(0, cut=True)
    assert await follow(api, 6) == ["all: a"] * 6
    assert pauses == sorted(pauses)
    assert pauses[-1] > 8


async def test_a_quiet_watch_that_ends_as_it_should_goes_on_at_once(server, api, pauses, monkeypatch):
    monkeypatch.setattr(waits, "SHORT_WATCH_SECONDS", 0.1)
    held, last = Held(0.4, cut=False), [event("ADDED", item("b", 8))]
    server.handler = lambda request: held(request) if len(server.asked) < 5 else server.stream(request, last)
    assert await follow(api, 2) == ["all: a", "ADDED b"]
    assert [bool(watch) for (watch,) in server.queries("watch")] == [False, True, True, True, True]
    assert pauses == []


@pytest.mark.parametrize(
    ("lived", "heard", "fault", "nominal"),
    [
        (0, False, True, 8),
        (waits.STEADY_WATCH_SECONDS - 0.1, False, True, 8),
        (waits.STEADY_WATCH_SECONDS, False, True, 1),
        (0.1, True, True, 1),
        (0.1, False, False, 8),
        (0.1, True, False, 1),
        (waits.SHORT_WATCH_SECONDS, False, False, 0),
    ],
)
def test_how_long_to_wait_after_a_watch(lived, heard, fault, nominal):
    backoff = Backoff(failures=3)
    wait = backoff.watch_ended(lived, heard=heard, error=errors.ApiUnavailableError("broke") if fault else None)
    assert 0.75 * nominal <= wait <= nominal


@pytest.mark.parametrize(
    ("code", "error"),
    [(401, errors.ApiForbiddenError), (403, errors.ApiForbiddenError), (404, errors.ApiNotFoundError)],
)
@pytest.mark.parametrize("listed", [False, True])
async def test_what_waiting_does_not_mend_reaches_the_caller(server, api, pauses, code, error, listed):
    server.answers = [page(), status(code)] if listed else [status(code)]
    with pytest.raises(error):
        await follow(api, 2)
    assert pauses == []


def test_back_off_grows_to_its_limit_and_begins_again():
    backoff = Backoff(first=1.0, longest=10.0)
    waits = [backoff.failed() for _ in range(40)]
    for wait, nominal in zip(waits, [1, 2, 4, 8, 10, 10], strict=False):
        assert 0.75 * nominal <= wait <= nominal
    assert max(waits) <= 10
    backoff.succeeded()
    assert backoff.failed() <= 1


def test_back_off_is_never_shorter_than_asked_for():
    assert Backoff(longest=10.0).failed(errors.ApiUnavailableError("busy", 25.0)) == 25.0
    assert Backoff().failed(errors.ApiUnavailableError("busy")) <= 1
    assert Backoff().failed(errors.ApiForbiddenError("no")) <= 1
