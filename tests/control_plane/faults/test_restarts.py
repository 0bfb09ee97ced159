"""The API server and its store go and come back, in the middle of a busy time; and the store forgets its history."""

import itertools
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..operating import OperatorProcess
from . import servers
from .busy import assert_same

SEED = 20261122
PAUSE = 0.5
"""Seconds between what users do: longer than where nothing fails, so that all of it meets the faults."""
EACH = [("kube-apiserver",), ("etcd",), ("kube-apiserver", "etcd")]
ORDERS = list(itertools.permutations(EACH)) if os.environ.get("GRAVSWELL_TEST_RESTARTS") == "all" else [EACH]
"""Each way in one busy time, since it takes far longer than a restart; with ``GRAVSWELL_TEST_RESTARTS=all``, in every
order."""


@pytest.mark.parametrize("order", ORDERS, ids=["-then-".join(map("+".join, order)) for order in ORDERS])
def test_the_end_is_the_same_however_often_they_are_restarted(cluster, busy, undisturbed, operator, order):
    before = len(operator.ends)
    random_ = random.Random(SEED)
    with ThreadPoolExecutor(1) as users:
        working = users.submit(busy.work, PAUSE)
        for names in order:
            time.sleep(random_.uniform(1, 3))  # the last one comes long before the users have done
            servers.restart(cluster, *names, down=random_.uniform(0.5, 2))
        working.result()
    # One that could not renew its lease for ten seconds has ended (7), or was refused as it began (8); it began anew.
    assert_same(busy.settled(lambda: None), undisturbed.state)
    assert set(operator.ends[before:]) <= {7, 8}, operator.log.read_text()[-2000:]


@pytest.fixture
def unhurried(operator, proxy, kubeconfig, tmp_path):
    """An operator that needs no lease, whose time might pass before an API server has started, in place of the other.

    It has seen all that happened until the connection is held, and asks for what came after.
    """
    operator.end()
    process = OperatorProcess(proxy.kubeconfig(kubeconfig, tmp_path / "way"), tmp_path / "log", "--no-lease")
    process.start()
    yield process
    proxy.release()
    assert process.stop() == 0, process.log.read_text()[-2000:]
    operator.begin()


def test_a_store_that_forgot_is_looked_at_anew(cluster, world, proxy, unhurried):
    """Every watch asks for what came after a version that the API server has no history of any more: 410 Gone."""
    world.make_repository()
    world.make_server()
    world.make_server("other")
    for name in ("server", "other"):
        world.condition("inferenceserver", name, "Available", status="True")
    world.until(lambda: unhurried.metric("gravswell_queue_length") == 0)
    service = world.get("service", "server")["metadata"]["uid"]
    known = unhurried.metric("gravswell_objects_known", kind="InferenceServer")
    begin = time.monotonic()
    proxy.hold()
    try:
        world.delete("service", "server")
        world.delete("inferenceserver", "other")
        world.until(lambda: world.get("inferenceserver", "other") is None)
        servers.compact(cluster)
        servers.restart(cluster, "kube-apiserver", down=0)
    finally:
        proxy.release()

    def is_back():
        found = world.get("service", "server")
        return found is not None and found["metadata"]["uid"] != service

    world.until(is_back)
    world.until(lambda: unhurried.metric("gravswell_objects_known", kind="InferenceServer") < known)
    forgotten = {s.asked.plural for s in list(proxy.seen) if s.at >= begin and 410 in [s.status, *s.errors]}
    assert forgotten >= {"services", "deployments", "pods"}, forgotten
