"""The API client against the real API server, also where the connection to it breaks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from gravswell.kube import credentials
from gravswell.kube.client import Client
from gravswell.kube.errors import (
    ApiConflictError,
    ApiForbiddenError,
    ApiNotFoundError,
    ApiRejectedError,
    NamespaceNotFoundError,
    NamespaceTerminatingError,
)
from gravswell.kube.resources import CONFIG_MAP, POD, Resource, Selection
from gravswell.kube.watch import Listed

from .conftest import until_default_account
from .relay import Relay

WAIT_SECONDS = 90


@pytest.fixture
async def api(cluster) -> AsyncIterator[Client]:
    async with Client(await credentials.from_kubeconfig(cluster.kubeconfig), name="tester") as made:
        yield made


@pytest.fixture
async def relay(cluster) -> AsyncIterator[Relay]:
    url = urlsplit(cluster.server_url)
    async with Relay(str(url.hostname), int(url.port or 443)) as made:
        yield made


@pytest.fixture
async def through(cluster, relay) -> AsyncIterator[Client]:
    """A client whose requests go through ``relay``."""
    account = await credentials.from_kubeconfig(cluster.kubeconfig)
    account.endpoint = replace(account.endpoint, url="https://{}:{}".format(*relay.address))
    async with Client(account, name="tester") as made:
        yield made


class Follower:
    """What a follower knows, by name."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, str]] | None = None
        """None: nothing was listed yet."""
        self.heard: list[str] = []
        self._changed = asyncio.Event()

    async def run(self, client: Client, selection: Selection) -> None:
        async with aclosing(client.follow(selection)) as things:
            async for thing in things:
                if isinstance(thing, Listed):
                    self.heard.append("all")
                    self.known = {one["metadata"]["name"]: one.get("data", {}) for one in thing.items}
                else:
                    name = thing.object["metadata"]["name"]
                    self.heard.append(f"{thing.type} {name}")
                    assert self.known is not None, "a change before the list"
                    self.known.pop(name, None)
                    if thing.type != "DELETED":
                        self.known[name] = thing.object.get("data", {})
                self._changed.set()

    async def until(self, known: dict[str, dict[str, str]]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while self.known != known:
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def following(client: Client, selection: Selection) -> AsyncIterator[Follower]:
    follower = Follower()
    task = asyncio.create_task(follower.run(client, selection))
    yield follower
    assert not task.done(), task
    task.cancel()
    await asyncio.wait([task])


def config_map(namespace: str, name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"test": "follow"}},
        "data": data,
    }


async def test_verbs_and_their_conflicts(api, namespace):
    made = await api.create(CONFIG_MAP, config_map(namespace, "a", x="1"))
    with pytest.raises(ApiConflictError, match=f"ConfigMap {namespace}/a: .*already exists"):
        await api.create(CONFIG_MAP, config_map(namespace, "a"))
    merged = await api.merge(CONFIG_MAP, namespace, "a", {"data": {"x": None, "y": "2"}})
    assert merged["data"] == {"y": "2"}
    with pytest.raises(ApiConflictError, match="has been modified"):
        await api.replace(CONFIG_MAP, made)
    await api.delete(CONFIG_MAP, namespace, "a", "another-uid")
    assert (await api.apply(CONFIG_MAP, config_map(namespace, "a", z="3")))["data"] == {"y": "2", "z": "3"}
    managers = (await api.get(CONFIG_MAP, namespace, "a"))["metadata"]["managedFields"]
    owners = {(one["manager"], one["operation"]) for one in managers}
    assert owners == {("tester", "Update"), ("tester", "Apply")}
    await api.delete(CONFIG_MAP, namespace, "a", made["metadata"]["uid"])
    with pytest.raises(ApiNotFoundError):
        await api.get(CONFIG_MAP, namespace, "a")
    await api.delete(CONFIG_MAP, namespace, "a")
    with pytest.raises(ApiRejectedError, match="Invalid value"):
        await api.create(CONFIG_MAP, config_map(namespace, "No_Name"))
    with pytest.raises(ApiNotFoundError):
        await api.list_all(Selection(Resource("Nothing", "nothings", "gravswell.test")))


async def test_a_namespace_that_is_not_there_or_going(api, kubectl, namespace):
    absent = config_map("absent", "a")
    with pytest.raises(NamespaceNotFoundError, match="absent"):
        await api.apply(CONFIG_MAP, absent)
    held = config_map(namespace, "held")
    held["metadata"]["finalizers"] = ["gravswell.test/held"]
    await api.create(CONFIG_MAP, held)
    await asyncio.to_thread(kubectl, "delete", "namespace", namespace, "--wait=false")
    try:
        with pytest.raises(NamespaceTerminatingError, match="being terminated"):
            await api.apply(CONFIG_MAP, config_map(namespace, "late"))
    finally:
        await api.merge(CONFIG_MAP, namespace, "held", {"metadata": {"finalizers": None}})


async def test_a_list_in_pages_by_selectors(api, namespace, monkeypatch):
    monkeypatch.setattr("gravswell.kube.client.PAGE", 2)
    for name in "abcde":
        await api.create(CONFIG_MAP, config_map(namespace, name))
    listed = await api.list_all(Selection(CONFIG_MAP, namespace, labels="test=follow"))
    assert [one["metadata"]["name"] for one in listed.items] == list("abcde")
    assert {one["kind"] for one in listed.items} == {"ConfigMap"}
    named = await api.list_all(Selection(CONFIG_MAP, namespace, name="c"))
    assert [one["metadata"]["name"] for one in named.items] == ["c"]
    assert not (await api.list_all(Selection(POD, fields="spec.nodeName=nowhere"))).items


async def test_following(api, namespace):
    selected = Selection(CONFIG_MAP, namespace, labels="test=follow")
    async with following(api, selected) as follower:
        await follower.until({})
        await api.create(CONFIG_MAP, config_map(namespace, "a", x="1"))
        await follower.until({"a": {"x": "1"}})
        await api.merge(CONFIG_MAP, namespace, "a", {"data": {"x": "2"}})
        await follower.until({"a": {"x": "2"}})
        await api.delete(CONFIG_MAP, namespace, "a")
        await follower.until({})
        assert follower.heard == ["all", "ADDED a", "MODIFIED a", "DELETED a"]


async def test_a_deletion_while_the_connection_was_cut(api, through, relay, namespace):
    """The watch goes on where it was, and so brings it."""
    selected = Selection(CONFIG_MAP, namespace, labels="test=follow")
    async with following(through, selected) as follower:
        await api.create(CONFIG_MAP, config_map(namespace, "a"))
        await api.create(CONFIG_MAP, config_map(namespace, "b"))
        await follower.until({"a": {}, "b": {}})
        # Not before a watch has brought something: the list may have had both.
        await api.merge(CONFIG_MAP, namespace, "b", {"data": {"x": "1"}})
        await follower.until({"a": {}, "b": {"x": "1"}})
        relay.cut()
        await api.delete(CONFIG_MAP, namespace, "a")
        await follower.until({"b": {"x": "1"}})
        assert follower.heard[-1] == "DELETED a"
        assert follower.heard.count("all") == 1


async def test_a_deletion_during_an_outage(api, through, relay, namespace):
    """All comes again, without what was deleted."""
    selected = Selection(CONFIG_MAP, namespace, labels="test=follow")
    await api.create(CONFIG_MAP, config_map(namespace, "a"))
    await api.create(CONFIG_MAP, config_map(namespace, "b"))
    async with following(through, selected) as follower:
        await follower.until({"a": {}, "b": {}})
        relay.passing = False
        relay.cut()
        await api.delete(CONFIG_MAP, namespace, "a")
        async with asyncio.timeout(WAIT_SECONDS):
            await relay.refused.wait()
        relay.passing = True
        await follower.until({"b": {}})
        assert follower.heard == ["all", "all"]


async def test_who_may_not_follow_is_told(cluster, kubectl, namespace):
    await asyncio.to_thread(until_default_account, cluster, namespace)
    token = kubectl("create", "token", "default", "-n", namespace).strip()
    endpoint = (await credentials.from_kubeconfig(cluster.kubeconfig)).endpoint
    for bearer, words in ((f"Bearer {token}", "cannot list resource"), ("Bearer none", "Unauthorized")):
        async with Client(credentials.Account(endpoint, bearer), name="tester") as nobody:
            with pytest.raises(ApiForbiddenError, match=words):
                await asyncio.wait_for(Follower().run(nobody, Selection(CONFIG_MAP, namespace)), WAIT_SECONDS)
