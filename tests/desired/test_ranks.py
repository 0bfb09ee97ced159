"""What ranks serve of a version, and when they may be told of another one."""

from datetime import UTC, datetime

import pytest

from gravswell.serving.contracts import Desired, DesiredModel, ListedEntry, ListedVersion, Listing, RankPart
from gravswell_operator.api import InferenceServer
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.outcome import Outcome
from gravswell_operator.desired.ranks import is_stopping, may_be_told, parted
from gravswell_operator.state import PodState, RankState, WorkloadState

PARTS = (("big-rank-0", 0), ("big-rank-1-stage-1", 1), ("big-rank-1-stage-2", 1))


def digest(number: int) -> str:
    return f"{number:064x}"


def parts(version: int = 1, names=PARTS) -> tuple[RankPart, ...]:
    return tuple(RankPart(name=name, version=version, digest=digest(version), rank=rank) for name, rank in names)


def entry(name: str, *made: RankPart, number: int = 1, **other) -> ListedEntry:
    return ListedEntry(name=name, versions=(ListedVersion(number=number, digest=digest(number), parts=made),), **other)


def listing(*entries: ListedEntry) -> Listing:
    return Listing(repository="r", observed_at=datetime(2026, 1, 1, tzinfo=UTC), accessible=True, entries=entries)


ALL = [entry("big", *parts()), *(entry(name) for name, _ in PARTS)]


@pytest.fixture
def server(manifest) -> InferenceServer:
    return InferenceServer.model_validate(manifest("InferenceServer", {"spec": {"replicas": None, "ranks": 2}}))


def model(name: str = "big", version: int = 1, made: tuple[RankPart, ...] = ()) -> DesiredModel:
    return DesiredModel(name=name, version=version, digest=digest(version), parts=made)


def became(server, outcome: Outcome, listed: Listing | None, kept=None) -> Outcome:
    return parted(server, {"big": outcome}, listed, kept or {})["big"]


def test_each_rank_gets_its_parts(server):
    found = became(server, Outcome(model()), listing(*ALL))
    assert (found.resolved, found.desired) == (True, model(made=parts()))
    desired = Desired(repository="r", models=(found.desired,), gpus=2)
    ranks = [desired.of_rank(rank).models for rank in range(2)]
    assert [[part.name for part in rank] for rank in ranks] == [
        ["big-rank-0"],
        ["big-rank-1-stage-1", "big-rank-1-stage-2"],
    ]
    assert {part.gpus for rank in ranks for part in rank} == {(0, 1)}
    assert Desired.model_validate_json(desired.to_json()) == desired


@pytest.mark.parametrize(
    ("entries", "reason", "words"),
    [
        ([entry("big")], Reason.NOT_A_PARTITION, "version 1 of big is no partition, and server server has ranks"),
        (
            [entry("big", *parts(names=[(f"big-rank-{rank}", rank) for rank in range(4)]))],
            Reason.OTHER_RANKS,
            "version 1 of big is a partition for 4 ranks, and server server has 2: partition the model for 2",
        ),
        (
            [entry("big", *parts(names=[("big-rank-0", 0), ("big-rank-2", 2)]))],
            Reason.OTHER_RANKS,
            "version 1 of big is a partition for 3 ranks",
        ),
        (ALL[:-1], Reason.PARTS_MISSING, "does not have version 1 of big-rank-1-stage-2 (rank 1) as version 1 of big"),
        (
            [*ALL[:-1], entry("big-rank-1-stage-2", number=2)],
            Reason.PARTS_MISSING,
            "version 1 of big-rank-1-stage-2 (rank 1)",
        ),
        ([], Reason.NOT_RESOLVED_YET, "the parts of version 1 of big are not known before"),
    ],
)
def test_what_ranks_cannot_serve_is_named_and_what_was_served_stays(server, entries, reason, words):
    before = model(version=7, made=parts(7))
    for kept in ({}, {"big": before}):
        found = became(server, Outcome(model()), listing(*entries), kept)
        assert (found.reason, found.desired) == (reason, kept.get("big"))
        assert words in found.message


def test_a_part_that_the_listing_had_no_room_for_may_be_there(server):
    short = entry("big-rank-1-stage-2", number=9, omitted=3)
    assert became(server, Outcome(model()), listing(*ALL[:-1], short)).resolved


def test_what_has_its_parts_needs_no_listing(server):
    suspended = Outcome(model(made=parts()))
    assert became(server, suspended, None) == suspended
    lost = Outcome(model(), Reason.NOT_RESOLVED_YET, "not listed")
    assert became(server, lost, None) == Outcome(None, Reason.NOT_RESOLVED_YET, "not listed")


def test_two_partitions_of_the_same_entries_do_not_meet(server):
    listed = listing(*ALL, entry("copy", *parts()))
    found = parted(server, {"big": Outcome(model()), "copy": Outcome(model("copy"))}, listed, {})
    assert found["big"].resolved
    assert (found["copy"].reason, found["copy"].desired) == (Reason.CONFLICT, None)
    assert "is made of entries that big is made of too" in found["copy"].message


def pod(number: int = 0, *, ready: bool = False, revision: str = "new") -> PodState:
    rank = RankState(number, f"uid-{number}", revision, containers_ready=ready, open=ready)
    return PodState(f"server-{number}", ready=ready, terminating=False, finished=False, problem=None, rank=rank)


@pytest.mark.parametrize(
    ("before", "after", "ready", "may"),
    [
        (None, 1, True, True),
        (1, 1, True, True),
        (1, 2, True, False),
        (1, 2, False, True),
        (1, None, True, True),
    ],
)
def test_ranks_in_traffic_are_not_told_of_other_parts(before, after, ready, may):
    previous, wanted = (
        Desired(repository="r", models=(model(version=v, made=parts(v)),) if v is not None else ())
        for v in (before, after)
    )
    assert may_be_told(previous, wanted, [pod(0), pod(1, ready=ready)]) is may


@pytest.mark.parametrize(
    ("revisions", "seen", "desired", "stops"),
    [
        (["new", "new"], True, 2, False),
        (["new", "old"], True, 2, True),
        (["old"], True, 0, True),
        ([], True, 0, False),
        (["old"], False, 2, False),
        ([], False, 0, True),
    ],
)
def test_all_ranks_stop_before_one_starts_from_another_template(revisions, seen, desired, stops):
    workload = WorkloadState(desired, seen, total=2, updated=2, ready=2, revision="new")
    assert is_stopping(workload, [pod(k, revision=revision) for k, revision in enumerate(revisions)]) is stops
    assert not is_stopping(None, [pod()])
