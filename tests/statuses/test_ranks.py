"""A group of ranks: in service together or not at all, and who keeps it from that."""

import pytest

from gravswell.serving.contracts import Desired, DesiredModel, ModelReport, ModelState, RankPart, Report
from gravswell_operator import conditions
from gravswell_operator.api import Condition, ConditionStatus
from gravswell_operator.conditions import Reason
from gravswell_operator.state import PodState, Problem, RankState
from gravswell_operator.statuses.ranks import Group, fields, finding, group_of, wholes

from .conftest import DIGESTS


def partition(version: int = 1, name: str = "big") -> DesiredModel:
    parts = tuple(
        RankPart(name=f"{name}-rank-{rank}", version=version, digest=DIGESTS[version], rank=rank) for rank in range(2)
    )
    return DesiredModel(name=name, version=version, digest=DIGESTS[version], parts=parts)


def told(*models: DesiredModel) -> Desired:
    return Desired(repository="r", models=models or (partition(),))


def pod(rank: int, *, up: bool = True, **other) -> PodState:
    state = RankState(rank, f"uid-{rank}", "revision", containers_ready=up, open=False)
    return PodState(
        f"server-{rank}",
        **{"ready": False, "terminating": False, "finished": False, "problem": None, **other},
        rank=state,
    )


def part(rank: int, loaded: int | None = 1, wanted: int = 1, *, name: str = "big", **other) -> ModelReport:
    state = ModelState.SERVING if loaded == wanted else ModelState.LOADING
    return ModelReport(
        **{
            "name": f"{name}-rank-{rank}",
            "state": state,
            "desired_version": wanted,
            "desired_digest": DIGESTS[wanted],
            "loaded_version": loaded,
            "loaded_digest": DIGESTS[loaded] if loaded is not None else None,
            "verified": state is ModelState.SERVING,
            **other,
        }
    )


def reports(*models: tuple[ModelReport, ...], uid: str = "uid-{}") -> dict[str, Report]:
    return {f"server-{k}": Report(pod=f"server-{k}", uid=uid.format(k), models=said) for k, said in enumerate(models)}


SERVING = reports((part(0),), (part(1),))
PODS = [pod(0), pod(1)]


@pytest.fixture
def server(resource):
    return resource("InferenceServer", {"spec": {"replicas": None, "ranks": 2}})


def was(server, status: ConditionStatus, reason: str):
    before = Condition(
        type=conditions.RANKS_READY,
        status=status,
        reason=reason,
        message="",
        last_transition_time="2026-01-01T00:00:00Z",
    )
    return server.model_copy(update={"status": server.status.model_copy(update={"conditions": (before,)})})


def test_all_of_them_serve(server):
    group = group_of(server, told(), PODS, SERVING)
    assert group.in_service
    found = finding(server, group)
    assert (found.status, found.reason, found.message) == (
        True,
        Reason.ALL_RANKS_READY,
        "2 ranks serve version 1 of big",
    )
    assert fields(server, group) == {
        "readyRanks": 2,
        "ranks": [
            {
                "rank": rank,
                "pod": f"server-{rank}",
                "address": f"server-{rank}.server-headless.ns.svc:8000",
                "ready": True,
                "message": "",
            }
            for rank in range(2)
        ],
    }


FAILED = {"state": ModelState.FAILED, "reason": "LoadFailed", "message": "no such device"}


@pytest.mark.parametrize(
    ("pods", "said", "reason", "words"),
    [
        ([pod(0)], SERVING, Reason.RANK_NOT_READY, "rank 1: there is no pod server-1; kubectl describe statefulset"),
        ([pod(0), pod(1, terminating=True)], SERVING, Reason.RANK_NOT_READY, "rank 1: pod server-1 is going"),
        ([pod(0), pod(1, up=False)], SERVING, Reason.RANK_NOT_READY, "rank 1: the containers of pod server-1 are not"),
        (
            [pod(0), pod(1, problem=Problem(Reason.POD_UNSCHEDULABLE, "pod server-1 cannot be scheduled: no GPU"))],
            SERVING,
            Reason.RANK_NOT_READY,
            "rank 1: pod server-1 cannot be scheduled: no GPU",
        ),
        (PODS, reports((part(0),)), Reason.RANK_NOT_READY, "rank 1: the agent of pod server-1 has not reported yet"),
        (PODS, reports((part(0),), (part(1),), uid="older-{}"), Reason.RANK_NOT_READY, "server-0 has not reported"),
        (PODS, reports((part(0),), ()), Reason.RANK_NOT_READY, "rank 1: big-rank-1 version 1: Waiting"),
        (
            PODS,
            reports((part(0),), (part(1, None, **FAILED),)),
            Reason.RANK_NOT_READY,
            "rank 1: big-rank-1 version 1: Failed: LoadFailed: no such device",
        ),
    ],
)
def test_one_that_is_missing_keeps_all_out_of_service_and_is_named(server, pods, said, reason, words):
    server = was(server, ConditionStatus.TRUE, Reason.ALL_RANKS_READY)
    group = group_of(server, told(), pods, said)
    assert not group.in_service
    found = finding(server, group)
    assert (found.status, found.reason) == (False, reason)
    assert words in found.message
    assert "so none takes traffic" in found.message


def test_a_group_that_starts_is_no_loss(server):
    group = group_of(server, told(), [pod(0, up=False), pod(1, up=False)], {})
    assert finding(server, group).reason is Reason.STARTING
    broken = [pod(0), pod(1, problem=Problem(Reason.CRASH_LOOP, "it ends"))]
    assert finding(server, group_of(server, told(), broken, {})).reason is Reason.RANK_NOT_READY


def test_parts_of_two_versions_never_serve_together(server):
    mixed = reports((part(0, 2, 2),), (part(1, 1, 2),))
    group = group_of(server, told(partition(2)), PODS, mixed)
    assert not group.in_service
    found = finding(server, group)
    assert found.reason is Reason.ROLLING_OUT
    assert "rank 1: big-rank-1 version 2: Loading (version 1 is loaded)" in found.message
    refused = reports((part(0, 2, 2),), (part(1, 1, 2, **FAILED),))
    found = finding(server, group_of(server, told(partition(2)), PODS, refused))
    assert (found.status, found.reason) == (False, Reason.RANK_NOT_READY)
    assert "version 1 is loaded" in found.message


def test_a_part_that_is_loaded_anew_serves_on(server):
    """Its instances or devices changed: Triton answers until the new ones are there."""
    anew = part(1, state=ModelState.LOADING, verified=True)
    assert group_of(server, told(), PODS, reports((part(0),), (anew,))).in_service
    unproven = part(1, state=ModelState.LOADING, verified=False)
    group = group_of(server, told(), PODS, reports((part(0),), (unproven,)))
    assert (group.in_service, group.rolling) == (False, ())


def test_a_group_that_is_about_to_go_over_is_out_of_service(server):
    group = group_of(server, told(), PODS, SERVING, ["big"])
    assert not group.in_service
    assert finding(server, group).reason is Reason.ROLLING_OUT


def test_a_further_partition_takes_nothing_away(server):
    both = reports((part(0), part(0, name="new")), (part(1), part(1, None, name="new")))
    group = group_of(server, told(partition(), partition(name="new")), PODS, both)
    assert group.in_service
    assert [model.name for model in group.whole] == ["big"]


def test_nothing_to_serve_is_no_service(server):
    assert not Group((), ()).in_service
    assert not group_of(server, Desired(repository="r"), PODS, reports((), ())).in_service


def test_a_rank_says_of_the_partition_what_its_last_part_says():
    said = wholes(told(), PODS, SERVING)
    assert [report.models[0].model_dump(exclude_defaults=True) for report in said.values()] == [
        {
            "name": "big",
            "state": ModelState.SERVING,
            "desired_version": 1,
            "desired_digest": DIGESTS[1],
            "loaded_version": 1,
            "loaded_digest": DIGESTS[1],
            "verified": True,
        }
    ] * 2
    failed = wholes(told(), PODS, reports((part(0),), (part(1, None, **FAILED),)))["server-1"].models[0]
    assert (failed.state, failed.reason, failed.message) == (
        ModelState.FAILED,
        "LoadFailed",
        "big-rank-1: no such device",
    )
    behind = wholes(told(partition(2)), PODS, SERVING)["server-0"].models[0]
    assert (behind.state, behind.desired_version, behind.loaded_version) == (ModelState.WAITING, 2, None)
    assert wholes(told(), PODS, reports((part(0),), (part(1),), uid="older-{}")) == {}
