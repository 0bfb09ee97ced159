"""The operator as a program, before its watches: the lease is held from the first, and the first look is patient."""

import asyncio
import copy

import pytest

from gravswell.errors import UnavailableError
from gravswell.kube.credentials import Account, Endpoint
from gravswell.kube.errors import ApiForbiddenError, ApiNotFoundError, ApiUnavailableError
from gravswell.kube.watch import Listed
from gravswell_operator import runtime
from gravswell_operator.cluster import lease, resources
from gravswell_operator.cluster.metrics import Metrics
from gravswell_operator.errors import LeaseLostError
from gravswell_operator.runtime import Config, Operator

WAIT_SECONDS = 60


class Api:
    """An API server with one Lease, and lists that are answered when ``listed`` is set."""

    def __init__(self) -> None:
        self.lease = None
        self.fence = lambda: None
        self.renewals = 0
        self.down = False
        self.listed = asyncio.Event()
        self.lists = 0
        self.version = "1"
        self.refusals = []
        self.items = {}

    async def get(self, resource, namespace, name):
        if self.lease is None:
            raise ApiNotFoundError("not there")
        return copy.deepcopy(self.lease)

    async def create(self, resource, manifest):
        return await self.replace(resource, manifest)

    async def replace(self, resource, manifest):
        if self.down:
            raise ApiUnavailableError("no answer")
        self.renewals += 1
        self.lease = copy.deepcopy(manifest)
        self.lease["metadata"]["resourceVersion"] = str(self.renewals)
        return copy.deepcopy(self.lease)

    async def pages(self, selection):
        self.lists += 1
        if self.refusals:
            raise self.refusals.pop(0)
        await self.listed.wait()
        yield Listed(self.items.get(selection.resource, []), self.version)


@pytest.fixture
async def api(monkeypatch):
    monkeypatch.setattr(lease, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(runtime, "LOOK_RETRY_SECONDS", 0.01)
    return Api()


@pytest.fixture
async def running(api):
    """The task of an operator, and what makes it stop; it never comes to its watches."""
    stop = asyncio.Event()
    operator = Operator(Config(lease_namespace="ns"), Account(Endpoint("http://test")), api, Metrics())
    task = asyncio.create_task(operator.run(stop))
    yield task, stop
    task.cancel()
    await asyncio.wait([task])


async def until(fact):
    async with asyncio.timeout(WAIT_SECONDS):
        while not fact():  # noqa: ASYNC110  what the operator does, it does not signal
            await asyncio.sleep(0.01)


async def test_the_lease_is_renewed_while_the_first_look_takes_its_time(api, running):
    await until(lambda: api.renewals > 5)
    assert not api.listed.is_set()
    assert not running[0].done()


async def test_a_lease_that_is_lost_during_the_first_look_ends_it(api, running, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    await until(lambda: api.lists)
    api.down = True
    with pytest.raises(LeaseLostError, match="could not be renewed"):
        await asyncio.wait_for(running[0], WAIT_SECONDS)
    assert not api.listed.is_set()


async def test_what_it_writes_is_asked_of_the_lease_first(api, running, monkeypatch):
    """A process that was stopped goes on in the middle of its work, before it hears that the lease is gone."""
    await until(lambda: api.lists)
    api.fence()
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.0)
    with pytest.raises(LeaseLostError, match="could not be renewed"):
        api.fence()


async def test_a_stop_during_the_first_look_gives_the_lease_back(api, running):
    task, stop = running
    await until(lambda: api.renewals > 2)
    stop.set()
    await asyncio.wait_for(task, WAIT_SECONDS)
    assert api.lease["spec"]["holderIdentity"] == ""


async def test_the_first_look_waits_for_an_api_server_that_is_busy(api, running):
    api.refusals += [ApiUnavailableError("HTTP 503")] * 3
    await until(lambda: api.lists > 3)
    assert not running[0].done()


@pytest.mark.parametrize("error", [ApiForbiddenError("list pods"), ApiNotFoundError("no such kind")])
async def test_what_waiting_does_not_mend_ends_the_first_look(api, running, error):
    api.refusals.append(error)
    with pytest.raises((ApiForbiddenError, runtime.NotFoundError)):
        await asyncio.wait_for(running[0], WAIT_SECONDS)
    assert api.lease["spec"]["holderIdentity"] == ""


async def test_an_object_that_cannot_be_taken_in_is_told_and_ends_no_look(api, caplog):
    """Else no operator could start as long as it is there."""
    api.listed.set()
    api.items[resources.NODE] = [
        {"metadata": {"name": name, "uid": name, "resourceVersion": "1"}, "status": {"allocatable": {"cpu": cpus}}}
        for name, cpus in (("good", "4"), ("bad", "four"))
    ]
    operator = Operator(Config(), Account(Endpoint("http://test")), api, Metrics())
    await operator.look()
    assert [record.key.name for record in operator._context.cache.all(resources.NODE)] == ["good"]
    assert "what was seen of nodes was not taken in" in caplog.text


@pytest.fixture
async def looking(api, manifest, monkeypatch):
    """An operator that has seen a pool, and looks again when a list says so and at no other time."""
    monkeypatch.setattr(runtime, "LISTED_SECONDS", 0.01)
    monkeypatch.setattr(runtime, "RESYNC_SECONDS", 3600)
    api.listed.set()
    operator = Operator(Config(), Account(Endpoint("http://test")), api, Metrics())
    pool = manifest("GPUNodePool", {"metadata": {"uid": "u", "resourceVersion": "7"}})
    operator._observe(resources.GPU_NODE_POOL, pool, "ADDED")
    task = asyncio.create_task(operator._resync())
    yield operator, pool, task
    task.cancel()
    await asyncio.wait([task])


async def test_a_list_of_a_watch_calls_for_a_look_and_an_event_does_not(api, looking):
    """A watch that lists anew does not tell what was deleted before."""
    operator, pool, task = looking
    api.version = "9"
    changed = {**pool, "metadata": {**pool["metadata"], "resourceVersion": "8"}}
    operator._observe(resources.GPU_NODE_POOL, changed, "MODIFIED")
    await asyncio.sleep(0.1)
    assert api.lists == 0
    api.refusals.append(ApiUnavailableError("HTTP 429"))
    operator._observe(resources.GPU_NODE_POOL, pool, None)
    operator._observe(resources.GPU_NODE_POOL, pool, None)
    await until(lambda: api.lists == len(resources.OWN) + 1)
    await until(lambda: operator._context.cache.size() == 0)
    assert not task.done()


async def test_an_api_server_that_refuses_while_it_starts_ends_no_operator_at_work(api, looking):
    """Before it has read the roles it refuses everybody, and a watch lists anew at that very moment."""
    operator, pool, task = looking
    api.version = "9"
    api.refusals.append(ApiForbiddenError("list gpunodepools"))
    operator._observe(resources.GPU_NODE_POOL, pool, None)
    await until(lambda: api.lists == len(resources.OWN) + 1)
    assert not task.done()


async def test_a_store_that_was_restored_ends_the_operator(api, looking):
    """Its versions go back, and what we know would count as newer for ever."""
    operator, pool, task = looking
    api.version = "6"
    operator._observe(resources.GPU_NODE_POOL, pool, None)
    with pytest.raises(UnavailableError, match="lists gpunodepools as of version 6, and showed version 7 before"):
        await asyncio.wait_for(task, WAIT_SECONDS)


async def test_what_a_watch_brings_while_a_list_is_on_its_way_is_no_restored_store(api, looking):
    operator, pool, task = looking
    api.version = "8"
    api.listed.clear()
    operator._observe(resources.GPU_NODE_POOL, pool, None)
    await until(lambda: api.lists)
    newer = {**pool, "metadata": {**pool["metadata"], "resourceVersion": "9"}}
    operator._observe(resources.GPU_NODE_POOL, newer, "MODIFIED")
    api.listed.set()
    await until(lambda: api.lists == len(resources.OWN))
    await asyncio.sleep(0.05)
    assert not task.done()
    assert operator._context.cache.size() == 1
