"""The watches of children: what they say reaches the cache, and neither a refusal nor a fault of ours ends them."""

import asyncio
import time
from datetime import UTC, datetime

import pytest

from gravswell.errors import UnavailableError
from gravswell.kube.errors import ApiForbiddenError
from gravswell.kube.watch import Change, Listed
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Cache, Key
from gravswell_operator.cluster.queue import WorkQueue
from gravswell_operator.desired.objects import Options
from gravswell_operator.handlers import children, optional
from gravswell_operator.reconcile.context import Context
from gravswell_operator.reconcile.index import Index

WAIT_SECONDS = 60


class Client:
    """Says ``sayings`` one after the other, raising errors, and remembers from which versions it was asked."""

    def __init__(self, *sayings):
        self.sayings = list(sayings)
        self.asked = []

    async def follow(self, selection, version=""):
        self.asked.append(version)
        while self.sayings:
            said = self.sayings.pop(0)
            if isinstance(said, Exception):
                raise said
            yield said
        await asyncio.Event().wait()


def node(name, version, **more):
    return {"kind": "Node", "metadata": {"name": name, "uid": name, "resourceVersion": str(version)}, **more}


@pytest.fixture
async def followed(monkeypatch):
    """Starts a follower of nodes with what the API server says; returns the context and the task."""
    monkeypatch.setattr(children, "RETRY_SECONDS", 0.01)
    tasks = []

    def start(*sayings, follow=lambda context: children.follow(context, resources.NODE, "5")):
        context = Context(
            client=Client(*sayings),
            cache=Cache(),
            index=Index(),
            queue=WorkQueue[Key](time.monotonic),
            recorder=None,
            options=Options(image="ours"),
            now=lambda: datetime.now(UTC),
        )
        tasks.append(asyncio.create_task(follow(context)))
        return context, tasks[0]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def heard(context, task):
    """Everything that the client had to say."""
    async with asyncio.timeout(WAIT_SECONDS):
        while context.client.sayings and not task.done():  # noqa: ASYNC110  what a task does, it does not signal
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)


def known(context):
    return {record.key.name for record in context.cache.all(resources.NODE)}


async def test_what_changes_and_what_is_listed_is_known(followed):
    context, task = followed(
        Change("ADDED", node("a", 6)),
        Change("ADDED", node("b", 7)),
        Change("DELETED", node("a", 8)),
        Listed([node("c", 9)], "10"),
    )
    await heard(context, task)
    assert known(context) == {"c"}
    assert context.client.asked == ["5"], "it goes on where the first look ended"


async def test_what_is_refused_is_asked_for_again_from_the_beginning(followed):
    context, task = followed(ApiForbiddenError("watch nodes"), Listed([node("a", 9)], "10"))
    await heard(context, task)
    assert known(context) == {"a"}
    assert context.client.asked == ["5", ""]


async def test_a_fault_of_ours_keeps_no_other_object_from_being_seen(followed, caplog):
    context, task = followed(
        Change("ADDED", node("a", 6, status={"conditions": "none"})), Change("ADDED", node("b", 7))
    )
    await heard(context, task)
    assert "a fault of the operator" in caplog.text
    assert known(context) == {"b"}


async def test_a_list_of_a_restored_store_ends_it(followed):
    """What the list lacks would else be kept, and what it has be taken for old, until it changes again."""
    context, task = followed(Change("ADDED", node("a", 9)), Listed([], "8"))
    await heard(context, task)
    with pytest.raises(UnavailableError, match="lists nodes as of version 8, and showed version 9 before"):
        await task


async def test_an_answer_that_overtakes_a_list_is_no_restored_store(followed):
    context, task = followed(ApiForbiddenError("watch nodes"), Listed([node("a", 6)], "8"))
    context.observe(resources.NODE, node("b", 9))
    await heard(context, task)
    assert not task.done()
    assert known(context) == {"a", "b"}


@pytest.mark.parametrize(
    "sayings",
    [
        lambda odd, plain: (Listed([odd, plain], "7"),),
        lambda odd, plain: (Listed([], "5"), Change("ADDED", odd), Change("ADDED", plain)),
    ],
    ids=["listed", "watched"],
)
async def test_an_object_of_others_that_cannot_be_read_does_not_end_the_operator(followed, caplog, sayings):
    """Their definitions are not ours, and may be of another release."""
    kind = resources.NODE_CLAIM
    odd = {"kind": kind.kind, **node("odd", 6, status={"conditions": [{"status": "True"}]})}
    context, task = followed(*sayings(odd, node("b", 7)), follow=lambda context: optional.follow(context, kind))
    await heard(context, task)
    assert not task.done()
    assert "what was seen of nodeclaims was not taken in" in caplog.text
    assert [record.key.name for record in context.cache.all(kind)] == ["b"]
