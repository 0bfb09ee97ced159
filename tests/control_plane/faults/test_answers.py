"""What the API server may answer: refusals, delays, lost answers and watches that end, alone and all at once."""

import random
import time
from collections import Counter

import pytest

from gravswell_operator.cluster import resources

from .busy import assert_same
from .conftest import PAUSE
from .proxy import Asked, Fault, failure, gone

SEED = 20261122
RATE = 0.2
"""How many of the requests have a fault."""
IN_A_ROW = 2
"""Faults of one request, at most: a lease that cannot be renewed for ten seconds ends the operator, as it shall."""
REST_SECONDS = 6
SHORT_SECONDS = 10
"""By then the last of the watches that end soon has ended, and the last look that one of them called for is over."""

_ANY = (
    Fault(status=429, reason="TooManyRequests", retry_after=1),
    Fault(status=429, reason="TooManyRequests"),
    Fault(status=500, reason="InternalError"),
    Fault(status=503, reason="ServiceUnavailable", retry_after=1),
    Fault(seconds=1.5),
    Fault(cut="before"),
)
_WRITES = (*_ANY, Fault(cut="after"), Fault(status=504, reason="Timeout"))
_CHANGES = (*_WRITES, Fault(status=409, reason="Conflict"))
_BROKEN = Fault(event={"type": "ERROR", "object": failure(500, "InternalError", "etcdserver: no leader")})
_WATCHES = (
    *_ANY,
    gone(as_event=True),
    gone(as_event=False),
    _BROKEN,
    Fault(ends=1),
    Fault(torn=True),
    Fault(cut="after"),
)


class Spoiler:
    """Faults by chance, the same ones for the same requests in the same order."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._row = Counter[Asked]()
        self.spoiled = Counter[str]()

    def __call__(self, asked: Asked) -> Fault | None:
        if self._random.random() >= RATE or self._row[asked] >= IN_A_ROW:
            del self._row[asked]
            # They end soon all the same: of those that are open nothing is asked.
            return Fault(ends=self._random.randint(2, 6)) if asked.verb == "watch" else None
        self._row[asked] += 1
        kinds: tuple[Fault, ...] = _CHANGES if asked.verb in ("patch", "update") else _WRITES
        if asked.verb == "watch":
            kinds = _WATCHES
        elif not asked.writes:
            kinds = (*_ANY, gone(as_event=False))
        fault = self._random.choice(kinds)
        self.spoiled[f"{asked.verb} {fault.status or fault.cut or fault.ends or fault.torn or 'slow'}"] += 1
        return fault


def reopen(proxy, spoil):
    """Cut all watches; the new ones meet ``spoil``."""
    proxy.spoil = spoil
    proxy.hold()
    time.sleep(0.5)
    proxy.release()


def test_the_end_is_the_same_whatever_is_answered(busy, undisturbed, proxy, operator, quiet):
    before, steady = len(proxy.seen), operator.steady()
    reopen(proxy, spoiler := Spoiler(SEED))
    busy.work(PAUSE)
    time.sleep(REST_SECONDS)
    proxy.mend()
    assert_same(busy.settled(steady), undisturbed.state)
    assert spoiler.spoiled.total() > 50, spoiler.spoiled
    assert sum(count for what, count in spoiler.spoiled.items() if what.startswith("watch")) > 5, spoiler.spoiled
    asked = [seen.asked for seen in proxy.seen[before:]]
    writes = sum(a.writes for a in asked)
    # What is tried again comes on top, and watches that are opened anew; a loop without a pause would be thousands.
    assert writes < 3 * undisturbed.writes + 100, Counter(map(str, asked)).most_common(20)
    assert len(asked) < 4 * undisturbed.requests + 1500, Counter(map(str, asked)).most_common(20)
    quiet()
    time.sleep(SHORT_SECONDS)
    begin = time.monotonic()
    time.sleep(REST_SECONDS)
    at_rest = [seen.asked for seen in list(proxy.seen) if seen.at >= begin and seen.asked.verb != "watch"]
    assert {str(a) for a in at_rest if a.writes} <= {"update kube-system/leases/gravswell-operator"}
    assert len(at_rest) <= 2 * REST_SECONDS, Counter(map(str, at_rest))


def test_a_time_to_come_back_is_kept(world, proxy):
    seconds = 4
    world.make_repository()
    times = []

    def busy_once(asked):
        if asked.verb == "patch" and asked.plural == "deployments" and asked.name == "server":
            times.append(time.monotonic())
            return Fault(status=429, reason="TooManyRequests", retry_after=seconds) if len(times) == 1 else None
        return None

    proxy.spoil = busy_once
    world.make_server()
    world.until(lambda: world.get("deployment", "server"))
    assert times[1] - times[0] >= seconds


@pytest.mark.parametrize("fault", [Fault(status=500, reason="InternalError"), Fault(cut="before")], ids=["500", "cut"])
def test_whatever_is_refused_for_a_while_is_tried_less_and_less_often(world, proxy, fault):
    world.make_repository()
    world.until(lambda: world.get("deployment", "models-lister"))
    proxy.spoil = lambda asked: fault if asked.writes and asked.plural != "leases" else None
    begin = time.monotonic()
    world.make_server()
    time.sleep(12)
    tried = proxy.counts(since=begin)
    proxy.mend()
    # After 0.5, 1, 2 and 4 seconds, and twice at most for one event: the object's and that of something it needs.
    first = {what: count for what, count in tried.items() if what.endswith(("server-desired", "isrv/server/status"))}
    assert first, tried
    assert max(first.values()) <= 8, tried
    world.condition("inferenceserver", "server", "Available", status="True")


WATCHED = {r.plural for r in resources.WATCHED}


def test_watches_that_end_go_on_where_they_were_without_a_list(world, proxy, quiet):
    world.make_repository()
    world.make_server()
    world.rolled_out()
    quiet()
    seconds = 4  # the API server sends a bookmark two seconds before the end
    reopen(proxy, lambda asked: Fault(ends=seconds) if asked.verb == "watch" else None)
    time.sleep(2 * seconds)
    begin = time.monotonic()
    for number in range(4):
        world.make_server(memory=f"{number + 2}Gi")
        world.create("v1", "Service", f"stranger-{number}", spec={"ports": [{"port": 80}]})
        time.sleep(seconds / 2)
    world.rolled_out()
    world.until(lambda: "5Gi" in str(world.get("deployment", "server")["spec"]))
    seen = [s for s in list(proxy.seen) if s.at >= begin]
    assert not [str(s.asked) for s in seen if s.asked.verb == "list" and s.asked.plural in WATCHED]
    versions = {
        plural: [s.version for s in seen if s.asked.verb == "watch" and s.asked.plural == plural] for plural in WATCHED
    }
    assert all(len(found) >= 2 for found in versions.values()), versions
    # No Service of ours has changed: it is the bookmarks that move their watch on, past the strangers.
    services = [int(version) for version in versions["services"]]
    assert services == sorted(services)
    assert len(set(services)) > 1, services


@pytest.mark.parametrize(
    "fault",
    [
        gone(as_event=True),
        gone(as_event=False),
        _BROKEN,
        Fault(torn=True),
        Fault(status=503, reason="ServiceUnavailable"),
    ],
    ids=["gone-event", "gone-status", "error-event", "torn", "503"],
)
def test_what_happened_while_a_watch_was_broken_is_seen(world, proxy, operator, quiet, fault):
    world.make_repository()
    world.make_server()
    world.make_server("other")
    for name in ("server", "other"):
        world.condition("inferenceserver", name, "Available", status="True")
    quiet()
    service = world.get("service", "server")["metadata"]["uid"]
    known = operator.metric("gravswell_objects_known", kind="InferenceServer")
    spoiled = set()

    def once(asked):
        if asked.verb != "watch" or asked.plural in spoiled:
            return None
        spoiled.add(asked.plural)
        return fault

    proxy.spoil = once
    proxy.hold()
    try:
        world.delete("service", "server")
        world.delete("inferenceserver", "other")
        world.make_server(replicas=2)
        world.until(lambda: world.get("inferenceserver", "other") is None)
        time.sleep(1)
    finally:
        proxy.release()
    world.until(
        lambda: (world.get("service", "server") or {"metadata": {"uid": service}})["metadata"]["uid"] != service
    )
    world.until(
        lambda: operator.is_ready() and operator.metric("gravswell_objects_known", kind="InferenceServer") < known
    )
    world.rolled_out()
    assert len(world.pods()) == 2
    world.until(lambda: spoiled >= WATCHED)


def test_a_conflict_is_looked_at_again(world, proxy):
    """Each object's first write is refused as somebody else's change."""
    met = set()

    def first(asked):
        if asked.verb != "patch" or asked in met:
            return None
        met.add(asked)
        return Fault(status=409, reason="Conflict")

    proxy.spoil = first
    world.make_pool()
    world.make_repository()
    world.make_server(nodePoolRef={"name": world.pool}, gpus=1)
    world.rolled_out()
    world.condition("gpunodepool", world.pool, status="True")
    assert len(met) > 10
