"""One active operator: on a monotonic clock, with a fake API server that knows resource versions."""

import asyncio
import copy

import pytest

from gravswell.kube.errors import ApiConflictError, ApiForbiddenError, ApiNotFoundError, ApiUnavailableError
from gravswell_operator.cluster import lease as module
from gravswell_operator.cluster.lease import LEASE_SECONDS, RENEW_SECONDS, Elector
from gravswell_operator.errors import LeaseLostError


class Server:
    """One Lease, with optimistic concurrency."""

    def __init__(self) -> None:
        self.lease = None
        self.version = 0
        self.down = False

    def _store(self, manifest):
        self.version += 1
        self.lease = copy.deepcopy(manifest)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.lease)

    def _check(self):
        if self.down:
            raise ApiUnavailableError("no answer")

    async def get(self, resource, namespace, name):
        self._check()
        if self.lease is None:
            raise ApiNotFoundError("not there")
        return copy.deepcopy(self.lease)

    async def create(self, resource, manifest):
        self._check()
        if self.lease is not None:
            raise ApiConflictError("exists")
        return self._store(manifest)

    async def replace(self, resource, manifest):
        self._check()
        if manifest["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiConflictError("changed")
        return self._store(manifest)

    @property
    def holder(self):
        return self.lease["spec"]["holderIdentity"] if self.lease is not None else None


class Time:
    """Sleeping moves the clock; what else shall happen meanwhile stands in ``events``, by time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        for event in [e for e in self.events if e[0] <= self.now]:
            self.events.remove(event)
            result = event[1]()
            if asyncio.iscoroutine(result):
                await result
        if self.now > 600:
            raise AssertionError("waited for ever")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def time(monkeypatch) -> Time:
    made = Time()
    monkeypatch.setattr(module.asyncio, "sleep", made.sleep)
    return made


@pytest.fixture
def elector(server, time):
    def make(identity):
        return Elector(server, namespace="ns", name="lease", identity=identity, clock=time.clock)

    return make


async def test_the_first_one_gets_it(server, elector, time):
    await elector("a").acquire()
    assert server.holder == "a"
    assert time.now == 0


async def test_the_second_one_waits_until_the_first_is_silent(server, elector, time):
    await elector("a").acquire()
    await elector("b").acquire()
    assert server.holder == "b"
    assert time.now >= LEASE_SECONDS
    assert server.lease["spec"]["leaseTransitions"] == 1


async def test_whoever_renews_is_alive_whatever_his_clock_says(server, elector, time):
    first = elector("a")
    await first.acquire()
    for second in range(4, 60, 4):
        time.events.append((second, first._renew))
    await elector("b").acquire()
    assert time.now >= 56 + LEASE_SECONDS


async def test_what_is_given_back_is_taken_at_once(server, elector, time):
    first = elector("a")
    await first.acquire()
    await first.release()
    await elector("b").acquire()
    assert (server.holder, time.now) == ("b", 0)


async def test_an_api_server_that_does_not_answer_keeps_nobody_from_ending(server, elector, monkeypatch):
    first = elector("a")
    await first.acquire()

    async def never(*_):
        await asyncio.Event().wait()

    server.replace = never
    monkeypatch.setattr(module, "RELEASE_SECONDS", 0.01)
    async with asyncio.timeout(30):
        await first.release()


async def test_two_that_start_together_are_one(server, elector):
    both_looked = asyncio.Barrier(2)

    async def get(*arguments):
        try:
            return await Server.get(server, *arguments)
        finally:
            await both_looked.wait()

    server.get = get
    one, two = elector("a"), elector("b")
    assert sorted(await asyncio.gather(one._try_acquire(), two._try_acquire()), key=str) == [None, "another operator"]
    del server.get
    assert (await one._try_acquire() is None) != (await two._try_acquire() is None)


async def test_the_time_counts_from_the_request_and_not_from_its_answer(server, elector, time):
    """The API server may have stored it at once, and others count from what they see then."""

    async def create(resource, manifest):
        made = await Server.create(server, resource, manifest)
        await asyncio.sleep(6)
        server.down = True
        return made

    server.create = create
    one = elector("a")
    await one.acquire()
    with pytest.raises(LeaseLostError, match="could not be renewed"):
        await one.hold()
    assert time.now < LEASE_SECONDS


async def test_who_cannot_renew_stops_before_another_may_start(server, elector, time):
    one = elector("a")
    await one.acquire()
    server.down = True
    with pytest.raises(LeaseLostError, match="could not be renewed"):
        await one.hold()
    assert RENEW_SECONDS <= time.now < LEASE_SECONDS


async def test_a_short_outage_is_survived(server, elector, time):
    one = elector("a")
    await one.acquire()
    server.down = True
    time.events += [(6, lambda: setattr(server, "down", False)), (60, lambda: setattr(server, "down", True))]
    with pytest.raises(LeaseLostError):
        await one.hold()
    assert time.now >= 60 + RENEW_SECONDS - 2 * module.RETRY_SECONDS


async def test_an_api_server_that_starts_and_refuses_everybody_is_borne(server, elector, time):
    """Until it has read the roles; refused for as long as unanswered is too long all the same."""
    one = elector("a")
    await one.acquire()

    async def refuse(resource, manifest):
        raise ApiForbiddenError("the roles are not read yet")

    server.replace = refuse
    time.events += [(6, lambda: delattr(server, "replace")), (60, lambda: setattr(server, "replace", refuse))]
    with pytest.raises(LeaseLostError, match="could not be renewed"):
        await one.hold()
    assert time.now >= 60 + RENEW_SECONDS - 2 * module.RETRY_SECONDS


async def test_who_slept_through_his_time_may_do_nothing_before_he_has_renewed(server, elector, time):
    one = elector("a")
    await one.acquire()
    one.require()
    time.now += RENEW_SECONDS
    with pytest.raises(LeaseLostError, match="could not be renewed"):
        one.require()


async def test_who_was_robbed_stops(server, elector, time):
    one = elector("a")
    await one.acquire()

    def rob():
        server.lease["spec"]["holderIdentity"] = "thief"
        server._store(server.lease)

    time.events.append((5, rob))
    with pytest.raises(LeaseLostError, match="thief took the lease"):
        await one.hold()


async def test_a_lease_that_somebody_deleted_is_made_again(server, elector, time):
    one = elector("a")
    await one.acquire()

    def delete():
        server.lease = None

    time.events += [(5, delete), (30, lambda: setattr(server, "down", True))]

    async def replace(resource, manifest):
        if server.lease is None:
            raise ApiNotFoundError("not there")
        return await Server.replace(server, resource, manifest)

    server.replace = replace
    with pytest.raises(LeaseLostError, match="could not be renewed"):
        await one.hold()
    assert server.holder == "a"
    assert time.now >= 30


@pytest.mark.parametrize("error", [ApiUnavailableError("down"), ApiForbiddenError("the role was taken away")])
async def test_a_lease_that_cannot_be_given_back_hides_no_other_error(server, elector, error):
    one = elector("a")
    await one.acquire()

    async def refuse(resource, manifest):
        raise error

    server.replace = refuse
    await one.release()
    assert server.holder == "a"
