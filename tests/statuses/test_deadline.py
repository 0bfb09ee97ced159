"""How long the ranks of a server may start, and what is said of them then."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gravswell.serving.contracts import Desired
from gravswell_operator import conditions
from gravswell_operator.api import Condition, ConditionStatus
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.models import Resolution
from gravswell_operator.desired.server import start_seconds
from gravswell_operator.state import PodTimes, Problem
from gravswell_operator.statuses import deadline
from gravswell_operator.statuses.ranks import group_of
from gravswell_operator.statuses.server import findings
from gravswell_operator.statuses.serverview import ServerView

from .test_ranks import FAILED, SERVING, part, pod, reports, told

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
BEHIND = reports((part(0),), (part(1, None),))
"""Rank 1 loads its part."""


@pytest.fixture
def view(resource, workload):
    """``view(ago, **parts)``: ranks of which one still loads, and Progressing said so many seconds ago what it says."""

    def make(
        ago: float | None,
        status: ConditionStatus = ConditionStatus.TRUE,
        reason: Reason = Reason.ROLLING_OUT,
        made: float = 10**5,
        **parts: Any,
    ) -> ServerView:
        server = resource("InferenceServer", {"spec": {"replicas": None, "ranks": 2}})
        since = conditions.stamp(NOW - timedelta(seconds=ago or 0))
        before = Condition(
            type=conditions.PROGRESSING, status=status, reason=reason, message="", last_transition_time=since
        )
        known = () if ago is None else (before,)
        server = server.model_copy(update={"status": server.status.model_copy(update={"conditions": known})})
        times = PodTimes(created=int(NOW.timestamp() - made))
        pods = parts.pop("pods", [pod(0, times=times), pod(1, times=times)])
        models = parts.pop("told", told())
        group = group_of(server, models, pods, parts.pop("said", BEHIND), stopping=parts.pop("stopping", False))
        return ServerView(
            server,
            resource("ModelRepository"),
            resource("GPUNodePool"),
            resolution=Resolution(models, {}),
            workload=workload(2, 1),
            pods=pods,
            group=group,
            **parts,
        )

    return make


def held(view):
    begun = deadline.begun(view, NOW)
    return deadline.held(view, begun, NOW) if begun is not None else (view, None)


def said(view):
    return {finding.type: (finding.status, finding.reason, finding.message) for finding in findings(view)}


def test_a_rank_that_is_not_there_within_the_limit_is_named(view):
    limit = start_seconds(view(0).server)
    late, after = held(view(limit))
    assert after is None
    words = f"1 of 2 ranks ready after {limit // 60} min, so none takes traffic; rank 1: big-rank-1 version 1: Loading"
    for type_ in (conditions.PROGRESSING, conditions.RANKS_READY, conditions.READY):
        assert said(late)[type_] == (False, Reason.PROGRESS_DEADLINE_EXCEEDED, words)


def test_until_then_it_starts_and_is_looked_at_again(view):
    limit = start_seconds(view(0).server)
    for ago, made, left in ((limit - 5, 10**5, 5), (limit + 60, 40, limit - 40), (None, 10**5, limit)):
        early, after = held(view(ago, made=made))
        assert after == left
        assert said(early)[conditions.RANKS_READY][1] is Reason.STARTING
        assert said(early)[conditions.PROGRESSING][:2] == (True, Reason.ROLLING_OUT)


def test_what_is_late_stays_so_until_pods_are_made_anew(view):
    exceeded = (ConditionStatus.FALSE, Reason.PROGRESS_DEADLINE_EXCEEDED)
    assert held(view(60, *exceeded))[0].group.overdue is not None
    limit = start_seconds(view(0).server)
    assert held(view(60, *exceeded, made=50)) == (view(60, *exceeded, made=50), limit - 50)
    assert held(view(10**6, ConditionStatus.FALSE, Reason.NO_MODELS))[1] == limit, "it has a model only now"


@pytest.mark.parametrize(
    "parts",
    [
        {"said": SERVING},
        {"stopping": True},
        {"said": reports((part(0),), (part(1, None, **FAILED),))},
        {"blocker": Problem(Reason.REPOSITORY_NOT_FOUND, "there is none")},
        {"told": Desired(repository="r"), "said": reports((), ())},
    ],
    ids=["in service", "they stop", "it failed", "nothing is changed", "nothing to serve"],
)
def test_nobody_is_late_who_does_not_start(view, parts):
    found = view(10**6, **parts)
    assert held(found) == (found, None)
    assert Reason.PROGRESS_DEADLINE_EXCEEDED not in {reason for _, reason, _ in said(found).values()}


def test_ranks_that_have_nothing_to_serve_make_no_progress(view):
    found = said(view(60, told=Desired(repository="r"), said=reports((), ())))[conditions.PROGRESSING]
    assert found[:2] == (False, Reason.NO_MODELS)
