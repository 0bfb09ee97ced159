"""Another ServiceAccount: whatever still runs as the one of before keeps it, with its rights, until it is gone."""

import pytest

from gravswell.kube import errors
from gravswell_operator.cluster import resources

SERVER = {"app.kubernetes.io/name": "triton", "gravswell.dev/server": "server"}
LISTER = {"app.kubernetes.io/name": "lister", "gravswell.dev/repository": "models"}


def run(world, name, account, labels, phase="Running"):
    """A pod of ours, as its kubelet says it is."""
    labels = {"app.kubernetes.io/managed-by": "gravswell", **labels}
    metadata = {"name": name, "namespace": "ns", "labels": labels}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"serviceAccountName": account}}
    world.see(resources.POD, {**body, "status": {"phase": phase}})


def roll_out(world, updated, total=1):
    """The server's Deployment has so many pods of its latest template."""
    body = world.get("Deployment", "server")
    generation = body["metadata"].get("generation", 0)
    status = {"observedGeneration": generation, "replicas": total, "updatedReplicas": updated, "readyReplicas": 1}
    world.see(resources.DEPLOYMENT, {**body, "status": status})


def bound(world, name):
    return [subject["name"] for subject in world.get("RoleBinding", name)["subjects"]]


@pytest.fixture
async def changed(served):
    """A server and a lister with a pod each, whose account is another one since."""
    await served.settle()
    run(served, "old", "server-agent", SERVER)
    run(served, "old-lister", "models-lister", LISTER)
    roll_out(served, 1)
    served.change(resources.MODEL_REPOSITORY, "models", serviceAccountName="theirs")
    await served.settle()
    for name in ("server", "models-lister"):
        assert served.get("Deployment", name)["spec"]["template"]["spec"]["serviceAccountName"] == "theirs"
    return served


@pytest.mark.parametrize(
    ("name", "labels", "own"),
    [("old", SERVER, "server-agent"), ("old-lister", LISTER, "models-lister")],
    ids=["server", "lister"],
)
@pytest.mark.parametrize("end", ["gone", "Failed", "Succeeded"])
async def test_an_account_of_ours_goes_with_the_last_pod_that_runs_as_it(changed, name, labels, own, end):
    assert bound(changed, own) == ["theirs", own]
    assert changed.get("ServiceAccount", own) is not None
    run(changed, "new", "theirs", labels)
    await changed.settle()
    assert bound(changed, own) == ["theirs", own]
    if end == "gone":
        changed.remove(resources.POD, name)
    else:
        run(changed, name, own, labels, phase=end)
    await changed.settle()
    assert bound(changed, own) == ["theirs"]
    assert changed.get("ServiceAccount", own) is None


async def test_an_account_of_the_users_keeps_its_rights_as_long_and_stays_theirs(changed):
    roll_out(changed, 1)
    changed.remove(resources.POD, "old")
    run(changed, "new", "theirs", SERVER)
    await changed.settle()
    changed.change(resources.MODEL_REPOSITORY, "models", serviceAccountName=None)
    await changed.settle()
    assert bound(changed, "server-agent") == ["server-agent", "theirs"]
    changed.remove(resources.POD, "new")
    await changed.settle()
    assert bound(changed, "server-agent") == ["server-agent"]
    assert "delete ServiceAccount theirs" not in changed.api.writes


async def test_a_replica_that_is_evicted_in_a_roll_out_that_waits_finds_its_account(changed):
    roll_out(changed, 0)
    changed.remove(resources.POD, "old")
    await changed.settle()
    assert bound(changed, "server-agent") == ["theirs", "server-agent"]
    assert changed.get("ServiceAccount", "server-agent") is not None
    roll_out(changed, 1)
    await changed.settle()
    assert changed.get("ServiceAccount", "server-agent") is None


async def test_what_a_workload_may_still_use_stays_until_it_is_changed(served):
    """The Deployment cannot be changed yet."""
    await served.settle()
    roll_out(served, 1)
    refused = errors.ApiUnavailableError("busy")
    served.api.refuse = lambda words: refused if words.startswith("apply Deployment") else None
    served.change(resources.MODEL_REPOSITORY, "models", serviceAccountName="theirs")
    await served.tick()
    assert served.get("ServiceAccount", "server-agent") is not None
    served.api.refuse = lambda _: None
    await served.settle()
    assert served.get("ServiceAccount", "server-agent") is None
