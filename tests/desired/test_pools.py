"""How many nodes a pool shall have, and since when nobody uses it."""

from datetime import UTC, datetime, timedelta

import pytest

from gravswell_operator.api import Condition, ConditionStatus
from gravswell_operator.conditions import READY, SUSPENDED
from gravswell_operator.desired.pools import Bounds, Idleness, bounds, idleness, in_use

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SUSPENDED_AT = "2026-11-20T12:00:00Z"
KARPENTER = {
    "type": "Karpenter",
    "static": None,
    "karpenter": {"nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpus"}},
}


@pytest.fixture
def pool(resource):
    def make(since=None, **spec):
        sized = {} if "autoscaling" in spec else {"size": 3}
        made = resource("GPUNodePool", {"spec": {"provider": KARPENTER, **sized, **spec}})
        return made.model_copy(update={"status": made.status.model_copy(update={"idle_since": since})})

    return make


@pytest.mark.parametrize(
    ("spec", "due", "expected"),
    [
        ({}, False, Bounds(3, 3)),
        ({"size": 0}, False, Bounds(0, 0)),
        ({}, True, Bounds(0, 0)),
        ({"autoscaling": {"max": 4}}, False, Bounds(0, 4)),
        ({"autoscaling": {"max": 4}}, True, Bounds(0, 4)),
    ],
)
def test_bounds(pool, spec, due, expected):
    assert bounds(pool(**spec), Idleness(NOW) if due else Idleness()) == expected


def test_a_static_pool_without_a_size_has_one_node(resource):
    assert bounds(resource("GPUNodePool"), Idleness()) == Bounds(1, 1)


@pytest.mark.parametrize(
    ("since", "remaining"),
    [
        (None, 1800),  # since now
        ("2026-11-22T12:00:00Z", 1800),
        ("2026-11-22T11:45:00Z", 900),
        ("2026-11-22T11:30:00Z", 0),
        ("2026-11-20T11:30:00Z", 0),
        ("2026-11-22T19:00:00Z", 1800),  # the clock was put back: it must not wait for seven hours more
    ],
)
def test_the_wait_of_an_unused_pool(pool, since, remaining):
    idle = idleness(pool(since, idleAfter="30m"), used=False, now=NOW)
    assert idle.remaining == remaining
    assert idle.due == (remaining == 0)
    assert idle.stamp == (since if since is not None and since < "2026-11-22T12" else "2026-11-22T12:00:00Z")


def test_the_wait_begins_anew_after_a_suspend(pool):
    """A server may have come and gone meanwhile, and nobody has looked."""
    waited = pool("2026-11-20T11:30:00Z", idleAfter="30m")
    said = Condition(
        type=SUSPENDED, status=ConditionStatus.TRUE, reason="Suspended", message="", last_transition_time=SUSPENDED_AT
    )
    status = waited.status.model_copy(update={"conditions": (said,)})
    assert idleness(waited.model_copy(update={"status": status}), used=False, now=NOW) == Idleness(NOW, 1800)


def test_who_is_used_or_never_idle_waits_for_nothing(pool):
    assert idleness(pool("2026-11-20T11:30:00Z", idleAfter="30m"), used=True, now=NOW) == Idleness()
    assert idleness(pool("2026-11-20T11:30:00Z"), used=False, now=NOW + timedelta(days=9)) == Idleness()


@pytest.mark.parametrize(
    ("spec", "allowed", "used"),
    [
        ({"replicas": 1}, [], True),
        ({"replicas": 1}, ["ns"], True),
        ({"replicas": 1}, ["others"], False),
        ({"replicas": 0}, [], False),
        ({"replicas": None, "autoscaling": {"minReplicas": 1, "maxReplicas": 2}}, [], True),
    ],
)
def test_a_pool_is_used_by_servers_that_may_and_ask_for_a_replica(pool, resource, spec, allowed, used):
    assert in_use(pool(allowedNamespaces=allowed), [resource("InferenceServer", {"spec": spec})]) is used


@pytest.mark.parametrize(("reason", "used"), [("ScaledToZero", False), ("Serving", True), (None, True)])
def test_a_server_that_sleeps_does_not_use_its_pool(pool, resource, reason, used):
    schedule = {"start": "0 8 * * *", "end": "0 18 * * *"}
    wakes = [{"name": "office", "type": "Schedule", "schedule": schedule}]
    scaling = {"minReplicas": 0, "maxReplicas": 2, "keda": {"wakes": wakes}}
    server = resource("InferenceServer", {"spec": {"replicas": None, "autoscaling": scaling}})
    if reason is not None:
        ready = Condition(
            type=READY, status=ConditionStatus.TRUE, reason=reason, message="", last_transition_time=SUSPENDED_AT
        )
        server = server.model_copy(update={"status": server.status.model_copy(update={"conditions": (ready,)})})
    assert in_use(pool(), [server]) is used


def test_a_pool_without_servers_is_unused(pool):
    assert not in_use(pool(), [])
