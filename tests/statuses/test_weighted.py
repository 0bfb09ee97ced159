"""Canaries whose steps have weights: when they begin, and what a step waits for beside its replicas."""

from datetime import timedelta

import pytest

from gravswell.serving.contracts import ModelState
from gravswell_operator.api import InferenceServer
from gravswell_operator.api.rollout import RolloutState
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.outcome import Outcome
from gravswell_operator.desired.rollouts import staged
from gravswell_operator.state import Problem
from gravswell_operator.statuses.gateway import NOT_LOOKED, Weighing
from gravswell_operator.statuses.model import ModelView, findings
from gravswell_operator.statuses.replica import replicas_of
from gravswell_operator.statuses.rollout import AGAIN_SECONDS, Look, advance

from . import canaries
from .canaries import BEGIN, NEW, OLD, STARTED, UNDER_WAY, kept

STEPS = [{"replicas": 1, "pause": "10m", "weight": "10%"}, {"replicas": 2, "pause": "10m", "weight": "30%"}]
WAITING = {**UNDER_WAY, "state": "Waiting"}
SERVER = InferenceServer.model_validate(
    {
        "metadata": {"name": "s", "namespace": "ns"},
        "spec": {"repositoryRef": {"name": "models"}, "tag": "24.08", "replicas": 1},
    }
)
MINE = Weighing(turn="m")
MISSING = Problem(Reason.GATEWAY_MISSING, "there is none")
PASSING = Problem(Reason.ROUTES_WAITING, "nobody has taken it")
REFUSED = Problem(Reason.ROUTE_REFUSED, "no listener")


def stored(rollout=None, *, steps=STEPS, **asked):
    return canaries.stored(rollout, steps=steps, **asked)


@pytest.fixture
def look(pod, report):
    """``look(model, weighing, after)``: four replicas, each of which serves what it was told."""

    def make(model, weighing=MINE, after=timedelta(), *, told=(), **said):
        names = ("a", "b", "c", "d")
        reports = {name: report(name, 2 if name in told else 1) for name in names} | said
        replicas = replicas_of("my-model", [pod(name) for name in names], reports)
        strategy = model.spec.rollout.strategy
        return Look(model, strategy, NEW, kept(model, told), replicas, BEGIN + after, weighing=weighing)

    return make


def pods(look):
    return [replica.pod for replica in look.replicas]


def test_it_waits_first_and_then_begins(look):
    """What waits is seen by all others of its server before it begins, so of two at the same time one goes first."""
    first = advance(look(stored(), Weighing()))
    assert first.status.state is RolloutState.WAITING
    assert first.after == AGAIN_SECONDS
    assert first.refused is None
    assert (first.status.replicas, first.status.progress) == (0, "0/4 Waiting")
    later = advance(look(stored(first.status.to_dict()), MINE, timedelta(seconds=1)))
    assert later.status.state is RolloutState.PROGRESSING
    assert (later.status.step, later.status.steps) == (1, 2)
    assert later.status.started == "2026-01-01T00:00:01Z"


def test_without_weights_it_begins_at_once(look):
    found = advance(look(stored(steps=[{"replicas": 1}]), Weighing(obstacle=MISSING)))
    assert found.status.state is RolloutState.PROGRESSING


def test_while_it_waits_the_agents_are_told_nothing_of_it(look):
    one = stored(WAITING)
    assert staged(one, Outcome(NEW), OLD, pods(look(one))) == Outcome(OLD)


def test_it_waits_for_another_model(look):
    found = advance(look(stored(WAITING), Weighing(turn="other"), timedelta(days=3)))
    assert found.status.state is RolloutState.WAITING
    assert found.status.started == STARTED, "its place in the row"
    assert "the canary of Model other" in found.status.message
    assert "InferenceServer s's routes" in found.status.message
    assert found.refused is None


@pytest.mark.parametrize(
    ("obstacle", "told"), [(MISSING, True), (REFUSED, True), (PASSING, False), (NOT_LOOKED, False)]
)
def test_it_waits_for_its_servers_routes(look, obstacle, told):
    found = advance(look(stored(WAITING), Weighing(obstacle, turn="m"), timedelta(days=3)))
    assert found.status.state is RolloutState.WAITING
    assert found.status.message == obstacle.message
    assert found.refused == (obstacle if told else None)
    again = advance(look(stored(found.status.to_dict())))
    assert again.status.state is RolloutState.PROGRESSING


def test_what_waits_is_told_as_progress(look, pod):
    one = stored(WAITING)
    rollout = advance(look(one, Weighing(turn="other"))).status
    view = ModelView(one, SERVER, Outcome(OLD), [pod("a")], {}, rollout)
    progressing = next(found for found in findings(view) if found.type == "Progressing")
    assert (progressing.status, progressing.reason) == (True, Reason.ROLLING_OUT)
    assert "the canary of Model other" in progressing.message


@pytest.mark.parametrize(
    ("asked", "state"), [({"promote": 2}, RolloutState.PROMOTED), ({"abort": 2}, RolloutState.ROLLED_BACK)]
)
def test_somebody_may_decide_of_one_that_waits(look, asked, state):
    assert advance(look(stored(WAITING, **asked), Weighing(obstacle=MISSING))).status.state is state
    assert advance(look(stored(**asked), Weighing(obstacle=MISSING))).status.state is state


def test_one_whose_weights_are_taken_out_begins(look):
    found = advance(look(stored(WAITING, steps=[{"replicas": 1}]), Weighing(obstacle=MISSING)))
    assert found.status.state is RolloutState.PROGRESSING


def test_another_version_waits_anew(look):
    found = advance(look(stored({**WAITING, "to": 3, "toDigest": "3" * 64}), MINE, timedelta(hours=1)))
    assert (found.status.state, found.status.to) == (RolloutState.WAITING, 2)
    assert found.status.started == "2026-01-01T01:00:00Z"


# The steps.

LACKING = Weighing(turn="m", lacking="HTTPRoute s is not there")
IN_FORCE = Weighing(turn="m", percent=10)


def test_a_step_waits_for_its_weight_and_its_pause_begins_with_it(look):
    waits = advance(look(stored(UNDER_WAY), LACKING, told=("a",)))
    assert waits.status.state is RolloutState.PROGRESSING
    assert "version 2 serves on 1 replica, and its weight of 10% waits for the Gateway: HTTPRoute s is not there" in (
        waits.status.message
    )
    assert waits.status.serving_since is None
    assert waits.after == timedelta(minutes=5).total_seconds()
    later = advance(look(stored(waits.status.to_dict()), IN_FORCE, timedelta(minutes=4), told=("a",)))
    assert later.status.serving_since == "2026-01-01T00:04:00Z"
    assert (later.status.weight, later.status.progress) == (10, "1/4 Progressing, weight 10%")
    assert "judged for 10m" in later.status.message


def test_a_weight_that_no_gateway_gives_in_time_ends_it(look):
    waits = advance(look(stored(UNDER_WAY), LACKING, told=("a",)))
    late = advance(look(stored(waits.status.to_dict()), LACKING, timedelta(minutes=5), told=("a",)))
    assert late.status.state is RolloutState.ROLLED_BACK
    assert "HTTPRoute s is not there, and progressDeadline 5m has passed" in late.status.message


def test_a_weight_that_is_lost_begins_the_pause_anew(look):
    good = advance(look(stored(UNDER_WAY), IN_FORCE, told=("a",)))
    lost = advance(look(stored(good.status.to_dict()), LACKING, timedelta(minutes=9), told=("a",)))
    assert (lost.status.state, lost.status.serving_since) == (RolloutState.PROGRESSING, None)
    assert lost.after == timedelta(minutes=5).total_seconds(), "nine minutes in which it was in force do not count"


def test_an_operator_that_starts_anew_takes_nothing_from_the_pause(look):
    good = advance(look(stored(UNDER_WAY), IN_FORCE, told=("a",)))
    unknown = Weighing(NOT_LOOKED, "m", "not there")
    found = advance(look(stored(good.status.to_dict()), unknown, timedelta(minutes=9), told=("a",)))
    assert found.status.serving_since == good.status.serving_since
    assert found.status.state is RolloutState.PROGRESSING
    over = advance(look(stored(found.status.to_dict()), IN_FORCE, timedelta(minutes=10), told=("a",)))
    assert over.status.step == 2


def test_a_step_without_a_weight_waits_for_no_gateway(look):
    steps = [{"replicas": 1, "pause": "10m"}, STEPS[1]]
    found = advance(look(stored(UNDER_WAY, steps=steps), LACKING, told=("a",)))
    assert found.status.serving_since == STARTED


def test_replicas_that_load_are_waited_for_first(look, report):
    loading = report("a", 1, 2, state=ModelState.LOADING)
    found = advance(look(stored(UNDER_WAY), LACKING, told=("a",), a=loading))
    assert "serves on 0 of 1 replica" in found.status.message
    assert "Gateway" not in found.status.message


def test_a_bad_version_is_rolled_back_whatever_the_gateway_does(look, report):
    wrong = report("a", 1, 2, state=ModelState.FAILED, reason="GoldenMismatch", message="out of tune")
    found = advance(look(stored(UNDER_WAY), LACKING, told=("a",), a=wrong))
    assert found.status.state is RolloutState.ROLLED_BACK


def test_the_weight_is_told_until_the_last_replica_has_gone_back(look):
    back = {**UNDER_WAY, "state": "RolledBack", "generation": 1}
    assert advance(look(stored(back), Weighing(turn="m", percent=0))).status.weight == 0
    assert advance(look(stored({**back, "weight": 0}), Weighing())).status.weight is None
