"""kopf at the edge: what of its log is ours to hear, and what a handler of ours hands on."""

import asyncio
import logging
import threading
from contextlib import asynccontextmanager

import kopf
import pytest

from gravswell.kube.credentials import Account, Endpoint
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.metrics import Metrics
from gravswell_operator.cluster.resources import WATCHED
from gravswell_operator.handlers import logs, watch


@pytest.fixture
def quiet():
    """kopf's logger, whose level the operator sets, as it does of others."""
    loggers = [logging.getLogger(name) for name in logs._QUIET]
    levels = [logger.level for logger in loggers]
    yield logging.getLogger("kopf")
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize(("level", "heard"), [(logs.LogLevel.INFO, False), (logs.LogLevel.DEBUG, True)])
def test_each_attempt_of_each_watch_is_heard_only_by_who_asks(quiet, level, heard):
    logs.configure(level, logs.LogFormat.TEXT)
    assert quiet.getChild("_cogs.clients.watching").isEnabledFor(logging.ERROR) is heard


def handlers(observe):
    """The handlers of the watches, in the order of the kinds."""
    made = watch.registry(Account(Endpoint("http://test")), observe, Metrics().trace())
    return [h.fn for h in made._watching.get_all_handlers()]


@pytest.mark.parametrize("what", [None, "ADDED", "DELETED"])
async def test_what_kopf_says_is_handed_on(what):
    heard = []
    first = handlers(lambda *said: heard.append(said))[0]
    await first(event=kopf.RawEvent(type=what, object={"metadata": {}}))
    assert heard == [(WATCHED[0], {"metadata": {}}, what)]


def named(name, version=1):
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}}


class Watched:
    """Watches with a kopf that does what the test says, one life after the other; in the end it waits to be stopped."""

    def __init__(self, monkeypatch, *lives):
        self.lives, self.heard, self.threads = list(lives), [], []
        self.started = asyncio.Event()
        monkeypatch.setattr(watch.Backoff, "failed", lambda *_: 0.0)
        monkeypatch.setattr(kopf, "operator", self.live)

    async def live(self, *, registry, ready_flag, stop_flag, **_):
        self.threads.append(threading.current_thread())
        ready_flag.set()
        handler = registry._watching.get_all_handlers()[0].fn
        await handler(event=kopf.RawEvent(type="ADDED", object=named(f"life-{len(self.threads)}")))
        if self.lives:
            raise self.lives.pop(0)
        await stop_flag.wait()

    def observe(self, _resource, body, _what):
        assert threading.current_thread() is threading.main_thread()
        self.heard.append(body["metadata"]["name"])

    @asynccontextmanager
    async def following(self):
        account = Account(Endpoint("http://test"))
        task = asyncio.create_task(watch.follow(account, self.observe, Metrics().trace(), self.started))
        yield task
        task.cancel()
        await asyncio.wait([task], timeout=WAIT_SECONDS)
        assert task.cancelled()


WAIT_SECONDS = 60


async def test_watches_that_end_begin_anew_and_nobody_else_notices(monkeypatch, caplog):
    gone = {"kind": "Status", "code": 410, "message": "too old resource version"}
    watched = Watched(monkeypatch, RuntimeError(gone["message"], gone), ValueError("Unterminated string"))
    bystander = asyncio.create_task(asyncio.sleep(WAIT_SECONDS))
    async with watched.following(), asyncio.timeout(WAIT_SECONDS):
        await watched.started.wait()
        while len(watched.heard) < 3:  # noqa: ASYNC110  what is heard is not signalled
            await asyncio.sleep(0.01)
    assert watched.heard == ["life-1", "life-2", "life-3"]
    for thread in watched.threads:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
    assert not bystander.done()
    bystander.cancel()
    assert "too old resource version" in caplog.text
    assert "Unterminated string" in caplog.text


async def test_watches_that_are_cancelled_by_kopf_begin_anew_too(monkeypatch):
    watched = Watched(monkeypatch, asyncio.CancelledError())
    async with watched.following() as task, asyncio.timeout(WAIT_SECONDS):
        while len(watched.heard) < 2:
            assert not task.done(), "it ended as if it had been asked to"
            await asyncio.sleep(0.01)


async def test_they_can_be_stopped_at_the_moment_they_end_by_themselves(monkeypatch):
    """Their loop is closed, and that they have ended was not heard yet."""
    closed = threading.Event()

    def live(self):
        self._runner.close()
        closed.set()

    monkeypatch.setattr(watch._Watches, "_live", live)
    monkeypatch.setattr(watch, "STOP_SECONDS", 0.1)
    async with Watched(monkeypatch).following(), asyncio.timeout(WAIT_SECONDS):
        while not closed.is_set():  # noqa: ASYNC110  set by another thread
            await asyncio.sleep(0.01)


async def crossed(*said):
    """What reaches this loop of what another thread has said while it was busy."""
    heard = []
    loop = asyncio.get_running_loop()
    crossing = watch.Crossing(loop, lambda _, body, what: heard.append((body["metadata"]["name"], what, body)))

    def say():
        for body, what in said:
            crossing.put(resources.MODEL, body, what)
        loop.call_soon_threadsafe(quiet.set)

    quiet = asyncio.Event()
    thread = threading.Thread(target=say)
    thread.start()
    thread.join(WAIT_SECONDS)  # this loop stands meanwhile
    assert len(crossing._waiting) <= 4
    await quiet.wait()
    return [(name, what, body["metadata"]["resourceVersion"]) for name, what, body in heard]


async def test_what_waits_for_a_busy_loop_is_the_latest_of_each_object_in_their_order():
    edits = [(named(name, number), "MODIFIED") for number in range(1000) for name in "ab"]
    assert await crossed(*edits, (named("a", 1000), "DELETED")) == [("b", "MODIFIED", "999"), ("a", "DELETED", "1000")]


async def test_that_an_object_was_listed_is_heard_whatever_happened_to_it_since():
    said = [(named("a", 1), None), (named("a", 2), "MODIFIED"), (named("a", 3), None), (named("a", 4), "MODIFIED")]
    assert await crossed(*said) == [("a", None, "3"), ("a", "MODIFIED", "4")]


async def test_an_object_and_another_one_of_its_name_are_two():
    after = named("a", 3)
    after["metadata"]["uid"] = "another"
    said = [(named("a", 1), "ADDED"), (named("a", 2), "DELETED"), (after, "ADDED")]
    assert await crossed(*said) == [("a", "DELETED", "2"), ("a", "ADDED", "3")]


async def test_many_objects_all_cross_while_others_of_the_loop_come_in_between():
    heard, loop = [], asyncio.get_running_loop()
    crossing = watch.Crossing(loop, lambda _, body, what: heard.append(body["metadata"]["name"]))
    names = [str(number) for number in range(5 * watch.PAGE + 1)]
    for name in names:
        crossing.put(resources.MODEL, named(name), None)
    turns = 0
    async with asyncio.timeout(WAIT_SECONDS):
        while len(heard) < len(names):
            await asyncio.sleep(0)
            turns += 1
    assert heard == names
    assert turns > 4
    crossing.put(resources.MODEL, named("late"), "ADDED")
    await asyncio.sleep(0.01)
    assert heard[-1] == "late"


async def test_a_fault_of_ours_in_what_takes_it_in_is_heard(monkeypatch, caplog):
    watched = Watched(monkeypatch)

    def broken(*_):
        watched.heard.append("it")
        raise RuntimeError("bug")

    watched.observe = broken
    async with watched.following() as task, asyncio.timeout(WAIT_SECONDS):
        while not watched.heard:  # noqa: ASYNC110  as above
            await asyncio.sleep(0.01)
        assert not task.done()
    assert "a fault of the operator" in caplog.text
    assert resources.GPU_NODE_POOL.plural in caplog.text
