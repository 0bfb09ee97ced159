"""The gates of a group of ranks, and when its agents are told of another version."""

import asyncio
import copy
import json
from datetime import timedelta

import pytest

from gravswell.kube import errors
from gravswell.serving.contracts import (
    DESIRED_KEY,
    LISTING_KEY,
    ListedEntry,
    ListedVersion,
    Listing,
    ModelReport,
    ModelState,
    RankPart,
    Report,
)
from gravswell_operator import names
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Key
from gravswell_operator.reconcile.gates import write
from gravswell_operator.state import PodState, RankState

ENTRY = "my-model"


def digest(number):
    return f"{number:064x}"


def publish(world, *numbers, url="pvc://claim/folder", ranks=2):
    """Partitions for two ranks, as the lister of the repository tells of them; ``ranks``: whose parts are there."""
    entries = [ListedEntry(name=ENTRY, versions=tuple(version(n, parts=parts(n)) for n in numbers))]
    entries += [
        ListedEntry(name=f"{ENTRY}-rank-{rank}", versions=tuple(map(version, numbers))) for rank in range(ranks)
    ]
    listing = Listing(repository=url, observed_at=world.now, accessible=True, entries=tuple(entries))
    found = world.get("ConfigMap", "models-listing")
    world.see(resources.CONFIG_MAP, {**found, "data": {**found["data"], LISTING_KEY: listing.to_json()}})


def version(number, **other):
    return ListedVersion(number=number, digest=digest(number), **other)


def parts(number):
    return tuple(
        RankPart(name=f"{ENTRY}-rank-{rank}", version=number, digest=digest(number), rank=rank) for rank in range(2)
    )


def see_pod(world, rank, *, ready, revision="r1"):
    """The kubelet's word: the containers are ready, and the pod is where its gate is open."""
    name = f"server-{rank}"
    found = world.get("Pod", name) or {"status": {"conditions": []}}
    kept = [c for c in found["status"]["conditions"] if c["type"] == names.GATE]
    own = {"gravswell.dev/server": "server", names.LABEL_RANK: str(rank), names.LABEL_REVISION: revision}
    pod = {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns", "uid": f"uid-{rank}", "labels": own},
        "spec": {"readinessGates": [{"conditionType": names.GATE}]},
        "status": {
            "phase": "Running",
            "conditions": [
                *kept,
                {"type": "ContainersReady", "status": "True"},
                {"type": "Ready", "status": "True" if ready else "False"},
            ],
        },
    }
    world.see(resources.POD, pod)


def report(world, *loaded, refused=None):
    """What the agents say: the version that each rank serves; one that serves none has ``refused`` that version."""
    data = {}
    for rank, number in enumerate(loaded):
        wanted = number or refused
        said = ModelReport(
            name=f"{ENTRY}-rank-{rank}",
            state=ModelState.SERVING if number else ModelState.FAILED,
            desired_version=wanted,
            desired_digest=digest(wanted),
            loaded_version=number,
            loaded_digest=digest(number) if number else None,
            reason="" if number else "GoldenMismatch",
            message="" if number else "out of tune",
        )
        data[f"server-{rank}"] = Report(pod=f"server-{rank}", uid=f"uid-{rank}", models=(said,)).to_json()
    world.see(resources.CONFIG_MAP, {**world.get("ConfigMap", "server-report"), "data": data})


def gates(world):
    found = []
    for rank in range(2):
        conditions = world.get("Pod", f"server-{rank}")["status"]["conditions"]
        found.append(next((c["status"] for c in conditions if c["type"] == names.GATE), "absent"))
    return found


async def begin(world):
    """Two ranks start, with version 1 to serve."""
    world.own(resources.MODEL_REPOSITORY)
    world.own(resources.INFERENCE_SERVER, {"spec": {"nodePoolRef": None, "gpus": 0, "replicas": None, "ranks": 2}})
    world.own(resources.MODEL)
    await world.settle()
    publish(world, 1)
    for rank in range(2):
        see_pod(world, rank, ready=False)


async def begin_without_the_second(world):
    """Rank 1 does not come."""
    await begin(world)
    workload = world.get("StatefulSet", "server")
    seen = {"observedGeneration": workload["metadata"].get("generation", 0), "replicas": 2, "updatedReplicas": 2}
    world.see(resources.STATEFUL_SET, {**workload, "status": seen})
    report(world, 1)
    await world.settle()


def told(world):
    found = (world.condition("InferenceServer", "server", type_) for type_ in ("RanksReady", "Progressing"))
    return [(condition["status"], condition["reason"]) for condition in found]


STARTING = [("False", "Starting"), ("True", "RollingOut")]
OVERDUE = [("False", "ProgressDeadlineExceeded")] * 2


async def test_ranks_that_do_not_come_are_told_when_their_time_is_over(world):
    """Nothing happens then that would wake anybody."""
    await begin_without_the_second(world)
    assert told(world) == STARTING
    world.pass_by(minutes=15)
    await world.settle()
    assert told(world) == STARTING
    world.pass_by(hours=1)
    await world.settle()
    assert told(world) == OVERDUE
    assert "InferenceServer ProgressDeadlineExceeded" in world.events.told
    assert (
        "rank 1: the agent of pod server-1 has not reported" in world.condition("InferenceServer", "server")["message"]
    )
    report(world, 1, 1)
    for rank in range(2):
        see_pod(world, rank, ready=True)
    workload = world.get("StatefulSet", "server")
    world.see(resources.STATEFUL_SET, {**workload, "status": {**workload["status"], "readyReplicas": 2}})
    await world.settle()
    assert told(world) == [("True", "AllRanksReady"), ("False", "RolledOut")]
    assert gates(world) == ["True", "True"]
    assert world.context.starting == {}


@pytest.mark.parametrize("jump", [timedelta(hours=36), -timedelta(hours=36)], ids=["on", "back"])
async def test_a_clock_that_is_set_makes_no_rank_late_and_gives_none_more_time(world, jump):
    await begin_without_the_second(world)
    world.now += jump
    world.pass_by(minutes=15)
    world.context.queue.add(Key(resources.INFERENCE_SERVER, "ns", "server"))  # whatever it is looked at for
    await world.settle()
    assert told(world) == STARTING
    world.pass_by(hours=1)
    await world.settle()
    assert told(world) == OVERDUE
    world.remove(resources.INFERENCE_SERVER, "server")
    await world.settle()
    assert world.context.starting == {}


@pytest.fixture
async def group(world):
    """Two ranks that serve version 1, and take traffic."""
    await begin(world)
    await world.settle()
    assert gates(world) == ["absent", "absent"], "nobody has reported yet"
    report(world, 1, 1)
    await world.settle()
    assert gates(world) == ["True", "True"]
    for rank in range(2):
        see_pod(world, rank, ready=True)
    await world.settle()
    return world


async def test_no_rank_is_told_of_another_version_while_one_takes_traffic(group):
    publish(group, 1, 2)
    await group.settle()
    assert (gates(group), group.desired()) == (["False", "False"], {ENTRY: 1})
    ready = group.condition("InferenceServer", "server", "RanksReady")
    assert ready["reason"] == "RollingOut"
    assert ready["message"] == (
        f"2 of 2 ranks ready, and none takes traffic while all go over to another version of {ENTRY}"
    )
    see_pod(group, 0, ready=False)
    await group.settle()
    assert group.desired() == {ENTRY: 1}, "rank 1 still takes traffic"
    see_pod(group, 1, ready=False)
    await group.settle()
    assert group.desired() == {ENTRY: 2}
    report(group, 2, 1)
    await group.settle()
    assert gates(group) == ["False", "False"], "rank 1 is not there yet"
    report(group, 2, 2)
    await group.settle()
    assert gates(group) == ["True", "True"]


async def test_a_version_that_one_rank_refuses_is_taken_back(group):
    publish(group, 1, 2)
    await group.settle()
    for rank in range(2):
        see_pod(group, rank, ready=False)
    await group.settle()
    report(group, 2, 1)
    await group.settle()
    assert (gates(group), group.desired()) == (["False", "False"], {ENTRY: 2})
    group.change(resources.MODEL, "model", version=1)
    await group.settle()
    assert group.desired() == {ENTRY: 1}
    report(group, 1, 1)
    await group.settle()
    assert gates(group) == ["True", "True"]


async def test_ranks_go_back_by_themselves_where_one_refuses_a_version(group):
    publish(group, 1, 2)
    await group.settle()
    for rank in range(2):
        see_pod(group, rank, ready=False)
    await group.settle()
    report(group, 2, None, refused=2)
    await group.settle()
    assert (gates(group), group.desired()) == (["False", "False"], {ENTRY: 1})
    ready = group.condition("Model", "model", "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "RolledBack")
    assert "my-model-rank-1: out of tune; version 1 stays meanwhile" in ready["message"]
    report(group, 1, 1)
    await group.settle()
    assert gates(group) == ["True", "True"]
    for rank in range(2):
        see_pod(group, rank, ready=True)
    group.restart()
    await group.settle()
    assert (gates(group), group.desired()) == (["True", "True"], {ENTRY: 1}), "it is not tried again by itself"
    publish(group, 1, 2, 3)
    await group.settle()
    assert gates(group) == ["False", "False"], "another version is"


async def test_a_rank_that_goes_closes_all_gates(group):
    body = group.get("Pod", "server-1")
    group.see(resources.POD, body, deleted=True)
    await group.settle()
    conditions = group.get("Pod", "server-0")["status"]["conditions"]
    assert next(c["status"] for c in conditions if c["type"] == names.GATE) == "False"
    ready = group.condition("InferenceServer", "server", "RanksReady")
    assert (ready["status"], ready["reason"]) == ("False", "RankNotReady")
    assert "rank 1: there is no pod server-1" in ready["message"]


async def test_what_is_as_it_should_be_is_not_written_again(group):
    group.api.writes.clear()
    group.restart()
    await group.settle()
    assert group.api.writes == []


async def test_a_pod_of_an_earlier_template_stops_all_ranks_first(group):
    def state(**status):
        body = copy.deepcopy(group.get("StatefulSet", "server"))
        generation = body["metadata"].get("generation", 1)
        group.see(
            resources.STATEFUL_SET,
            {**body, "status": {"observedGeneration": generation, "updateRevision": "r2", **status}},
        )

    def replicas():
        return group.get("StatefulSet", "server")["spec"]["replicas"]

    assert replicas() == 2
    state(replicas=2)
    await group.settle()
    assert replicas() == 0
    assert gates(group) == ["False", "False"]
    ready = group.condition("InferenceServer", "server", "RanksReady")
    assert (ready["status"], ready["reason"]) == ("False", "RollingOut")
    assert ready["message"] == (
        "2 of 2 ranks ready, and none takes traffic while all stop, to start again from the latest specification"
    )
    for rank in range(2):
        assert replicas() == 0
        group.see(resources.POD, group.get("Pod", f"server-{rank}"), deleted=True)
        await group.settle()
    assert replicas() == 2
    assert group.condition("InferenceServer", "server", "RanksReady")["reason"] == "Starting"


async def goes_and_comes_back(group):
    """Rank 1 is lost, and its pod comes back; the gates of both follow, and ``group`` is in service again."""
    group.see(resources.POD, group.get("Pod", "server-1"), deleted=True)
    await group.settle()
    conditions = group.get("Pod", "server-0")["status"]["conditions"]
    assert next(c["status"] for c in conditions if c["type"] == names.GATE) == "False"
    see_pod(group, 0, ready=False)
    see_pod(group, 1, ready=False)
    await group.settle()
    assert gates(group) == ["True", "True"]


async def test_ranks_come_back_while_their_server_is_suspended(group):
    group.change(resources.INFERENCE_SERVER, "server", suspend=True)
    await group.settle()
    await goes_and_comes_back(group)


async def test_ranks_come_back_while_nothing_may_be_changed(group):
    group.remove(resources.MODEL_REPOSITORY, "models")
    await group.settle()
    assert group.condition("InferenceServer", "server")["reason"] == "RepositoryNotFound"
    await goes_and_comes_back(group)
    ready = group.condition("InferenceServer", "server", "RanksReady")
    assert (ready["status"], ready["message"]) == ("True", f"2 ranks serve version 1 of {ENTRY}")


async def test_ranks_come_back_while_a_child_is_refused(group):
    group.api.refuse = lambda words: (
        errors.ApiForbiddenError("no") if words == "apply PodDisruptionBudget server" else None
    )
    group.remove(resources.DISRUPTION_BUDGET, "server")
    await group.settle()
    assert group.condition("InferenceServer", "server")["reason"] == "Forbidden"
    await goes_and_comes_back(group)


async def test_ranks_of_which_nothing_is_known_are_left_alone(group):
    group.change(resources.INFERENCE_SERVER, "server", suspend=True)
    group.remove(resources.CONFIG_MAP, "server-desired")
    await group.settle()
    assert gates(group) == ["True", "True"]


async def test_a_pod_beyond_the_ranks_holds_nothing_up(group):
    """As kubectl scale makes one while the operator is away."""
    see_pod(group, 2, ready=False)
    found = group.get("ConfigMap", "server-report")
    said = Report(pod="server-2", uid="uid-2", models=())
    group.see(resources.CONFIG_MAP, {**found, "data": {**found["data"], "server-2": said.to_json()}})
    await group.settle()
    assert group.condition("InferenceServer", "server", "RanksReady")["status"] == "True"
    assert not group.failures()


async def test_an_open_gate_is_closed_before_the_ranks_are_told(group):
    """Their pods are ready as soon as the kubelets look."""
    for rank in range(2):
        see_pod(group, rank, ready=False)
    await group.settle()
    publish(group, 1, 2)
    assert (gates(group), group.desired()) == (["True", "True"], {ENTRY: 1})
    await group.tick()
    assert (gates(group), group.desired()) == (["False", "False"], {ENTRY: 1})
    await group.settle()
    assert group.desired() == {ENTRY: 2}


async def test_ready_is_what_all_ranks_are(group):
    """The pods' own Ready, and what counts them, come later than the operator's decision."""
    body = copy.deepcopy(group.get("StatefulSet", "server"))
    status = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2}
    group.see(resources.STATEFUL_SET, {**body, "status": status})
    await group.settle()
    assert group.condition("InferenceServer", "server")["status"] == "True"
    assert group.condition("Model", "model")["status"] == "True"
    group.see(resources.POD, group.get("Pod", "server-1"), deleted=True)
    await group.settle()
    assert group.condition("InferenceServer", "server")["reason"] == "RankNotReady"
    assert group.condition("Model", "model")["status"] == "False"


async def test_no_gate_is_on_its_way_when_the_next_pass_decides(world, monkeypatch):
    """A pod that was replaced refuses its own: the other's would be open after it was found that it must not be."""
    done = []

    async def merge(resource, namespace, name, change, **how):
        if name == "server-0":
            raise errors.ApiConflictError("another uid")
        await asyncio.sleep(0.01)
        done.append(name)
        return world.get("Pod", name)

    monkeypatch.setattr(world.api, "merge", merge)
    rank = RankState(0, "uid", "r1", containers_ready=True, open=False)
    pods = [
        PodState(f"server-{k}", ready=False, terminating=False, finished=False, problem=None, rank=rank)
        for k in range(2)
    ]
    for k in range(2):
        see_pod(world, k, ready=False)
    world.own(resources.INFERENCE_SERVER)
    record = world.context.cache.get(Key(resources.INFERENCE_SERVER, "ns", "server"))
    with pytest.raises(errors.ApiConflictError):
        await write(world.context, record, pods, is_open=True)
    assert done == ["server-1"]


async def test_ranks_stay_where_their_parts_are(group):
    url = "pvc://claim/other"
    group.change(resources.MODEL_REPOSITORY, "models", url=url)
    publish(group, 1, url=url, ranks=1)
    await group.settle()
    told = json.loads(group.get("ConfigMap", "server-desired")["data"][DESIRED_KEY])
    assert told["repository"] == "pvc://claim/folder"
    message = group.condition("InferenceServer", "server")["message"]
    assert f"does not have version 1 of {ENTRY}-rank-1" in message
    assert "The server stays on pvc://claim/folder" in message
    publish(group, 1, url=url)
    await group.settle()
    assert json.loads(group.get("ConfigMap", "server-desired")["data"][DESIRED_KEY])["repository"] == url
