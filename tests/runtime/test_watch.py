"""kopf at the edge: what of its log is ours to hear, and what a handler of ours hands on."""

import logging

import kopf
import pytest

from gravswell.kube.credentials import Account, Endpoint
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.metrics import Metrics
from gravswell_operator.cluster.resources import WATCHED
from gravswell_operator.handlers import logs, watch


@pytest.fixture
def quiet():
    """kopf's logger, whose level the operator sets."""
    kopfs = logging.getLogger("kopf")
    level = kopfs.level
    yield kopfs
    kopfs.setLevel(level)


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


async def test_a_fault_of_ours_in_a_handler_is_heard(caplog):
    def broken(*_):
        raise RuntimeError("bug")

    await handlers(broken)[0](event=kopf.RawEvent(type="ADDED", object={"metadata": {}}))
    assert "a fault of the operator" in caplog.text
    assert resources.GPU_NODE_POOL.plural in caplog.text
