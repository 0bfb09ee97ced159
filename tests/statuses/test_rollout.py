"""The steps of a roll-out, from what is stored: nothing that a decision needs is in the operator's memory."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from gravswell.serving.contracts import ModelState
from gravswell_operator.api import Model
from gravswell_operator.api.rollout import RolloutState, Strategy
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.outcome import Outcome
from gravswell_operator.desired.rollouts import fallen_back, is_same, staged
from gravswell_operator.state import Problem
from gravswell_operator.statuses.replica import replicas_of
from gravswell_operator.statuses.rollout import Look, advance, resumed

from . import canaries
from .canaries import BEGIN, NEW, OLD, STARTED, UNDER_WAY, kept

PAUSE, DEADLINE = timedelta(minutes=10), timedelta(minutes=5)


def stored(rollout=None, *, pause="10m", strategy="Canary"):
    steps = [{"replicas": 2, "pause": pause}, {"replicas": "100%", "pause": "10m"}]
    return canaries.stored(rollout, steps=steps, strategy=strategy)


@pytest.fixture
def look(pod, report):
    """``look(model, after, **reports)``: what there is to see of replicas ``a`` and ``b``, which try version 2, ``c``
    and ``d``; each serves what it was told, unless ``reports`` has what it says."""

    def make(model, after=timedelta(), *, told=("a", "b"), pods=None, **reports):
        names = ("a", "b", "c", "d")
        said = {name: report(name, 2 if name in told else 1) for name in names} | reports
        replicas = replicas_of("my-model", pods or [pod(name) for name in names], said)
        return Look(model, model.spec.rollout.strategy, NEW, kept(model, told), replicas, BEGIN + after)

    return make


def taken(look):
    """What is written; every next look has only this to go on from."""
    return advance(look).status


def test_one_that_is_full_hides_no_other_that_proves_the_version_bad(look, report):
    full = report("a", 1, 2, state=ModelState.FAILED, reason="NoSpace", message="no room")
    wrong = report("b", 1, 2, state=ModelState.FAILED, reason="GoldenMismatch", message="out of tune")
    found = taken(look(stored(UNDER_WAY), a=full, b=wrong))
    assert found.state is RolloutState.ROLLED_BACK
    assert "pod b: GoldenMismatch: out of tune" in found.message


def test_a_change_at_once_that_was_not_told_yet_begins_anew_as_a_canary(look):
    at_once = {**UNDER_WAY, "strategy": "Immediate", "step": 0, "steps": 0}
    model = stored(at_once)
    assert staged(model, Outcome(NEW), OLD, [replica.pod for replica in look(model).replicas]) == Outcome(OLD)
    found = taken(look(model, timedelta(minutes=1), told=()))
    assert (found.strategy, found.step, found.steps) == (Strategy.CANARY, 1, 2)
    assert found.started > STARTED


def test_the_deadline_is_counted_from_when_replicas_were_told(look, report):
    """An operator that is away, a suspended server, or one without replicas takes nothing from a version's time."""
    waiting = {"a": report("a", 1, 2, state=ModelState.LOADING), "b": report("b", 1, 2, state=ModelState.LOADING)}
    untold = taken(look(stored(UNDER_WAY), timedelta(hours=1), told=(), **waiting))
    assert untold.state is RolloutState.PROGRESSING
    next_ = advance(look(stored(untold.to_dict()), timedelta(hours=2), **waiting))
    assert next_.status.state is RolloutState.PROGRESSING
    assert next_.after == DEADLINE.total_seconds()
    late = taken(look(stored(next_.status.to_dict()), timedelta(hours=2) + DEADLINE, **waiting))
    assert late.state is RolloutState.ROLLED_BACK
    assert "serves on 0 of 2 replicas, and progressDeadline 5m has passed" in late.message


def test_no_time_passes_without_a_replica(look, pod, report):
    loading = taken(look(stored(UNDER_WAY), a=report("a", 1, 2, state=ModelState.LOADING)))
    nobody = taken(look(stored(loading.to_dict()), timedelta(hours=1), pods=[pod("a", terminating=True)]))
    assert "there is no replica to try it on" in nobody.message
    waking = look(stored(nobody.to_dict()), timedelta(hours=9), a=report("a", 1, 2, state=ModelState.LOADING))
    assert taken(waking).state is RolloutState.PROGRESSING


def test_a_version_that_ends_its_server_again_and_again_is_late(look, pod):
    """Each time its replica comes back before the deadline, and goes before the pause is over."""
    crash = Problem(Reason.CRASH_LOOP, "pod a: container triton ends again and again")
    broken = [pod("a", ready=False, problem=crash), *(pod(name) for name in ("b", "c", "d"))]
    rollout, at = UNDER_WAY, timedelta()
    for _ in range(100):
        good = taken(look(stored(rollout), at))
        assert good.state is RolloutState.PROGRESSING
        at += timedelta(minutes=3)
        lost = taken(look(stored(good.to_dict()), at, pods=broken))
        assert "container triton ends again and again" in lost.message
        at += timedelta(minutes=1)
        found = taken(look(stored(lost.to_dict()), at, pods=broken))
        if found.state is RolloutState.ROLLED_BACK:
            break
        rollout = found.to_dict()
    assert at == 5 * timedelta(minutes=4), "five minutes in which it did not serve"
    assert "progressDeadline 5m has passed" in found.message


@pytest.mark.parametrize("pause", ["10m", "Manual"])
def test_a_replica_that_is_lost_after_the_pause_has_all_the_time_again(look, pod, pause):
    good = taken(look(stored(UNDER_WAY, pause=pause), timedelta(minutes=4)))
    days = timedelta(days=3)
    broken = [pod("a", ready=False), *(pod(name) for name in ("b", "c", "d"))]
    lost = advance(look(stored(good.to_dict(), pause=pause), days, pods=broken))
    assert lost.status.state is RolloutState.PROGRESSING
    assert lost.after == DEADLINE.total_seconds()


def test_every_step_goes_on_from_what_is_stored(look):
    """Between two looks nothing is kept but the status, as after a restart."""
    told, rollout, history = (), None, []
    for minutes in range(60):
        seen = look(stored(rollout), timedelta(minutes=minutes), told=told)
        found = taken(seen)
        rollout = found.to_dict()
        history.append((found.step, found.state.value))
        desired = staged(stored(rollout), Outcome(NEW), seen.kept, [r.pod for r in seen.replicas]).desired
        if is_same(desired, NEW):
            break
        told = desired.canary.pods if desired.canary is not None else ()
    assert list(dict.fromkeys(history)) == [(1, "Progressing"), (2, "Progressing"), (2, "Promoted")]
    assert rollout["started"] == STARTED


SUSPENDED = {"type": "Suspended", "status": "True", "reason": "Suspended", "message": ""}


def was_suspended(model: Model, since: datetime) -> Model:
    """``model``, which was suspended until now, as its own status says."""
    raw = model.to_dict()
    moment = since.strftime("%Y-%m-%dT%H:%M:%SZ")
    raw["status"]["conditions"] = [{**SUSPENDED, "lastTransitionTime": moment}]
    return Model.model_validate(raw)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ({"loadingSince": STARTED}, {"loading_since": BEGIN + timedelta(hours=2), "serving_since": None}),
        (
            {"loadingSince": STARTED, "servingSince": "2026-01-01T00:01:00Z"},
            {"loading_since": BEGIN + timedelta(hours=2), "serving_since": BEGIN + timedelta(hours=2, minutes=1)},
        ),
    ],
    ids=["the deadline", "the pause"],
)
def test_time_stands_still_for_what_is_suspended(before, expected):
    model = was_suspended(stored({**UNDER_WAY, **before}), BEGIN + timedelta(minutes=2))
    rollout = resumed(model, BEGIN + timedelta(minutes=2, hours=2)).status.rollout
    for name, moment in expected.items():
        said = getattr(rollout, name)
        assert (datetime.fromisoformat(said) if said is not None else None) == moment


def test_a_canary_that_was_suspended_for_longer_than_its_deadline_goes_on(look, report):
    loading = {name: report(name, 1, 2, state=ModelState.LOADING) for name in "ab"}
    model = was_suspended(stored({**UNDER_WAY, "loadingSince": STARTED}), BEGIN + timedelta(minutes=2))
    after = DEADLINE * 10
    waiting = taken(look(resumed(model, BEGIN + after), after, **loading))
    assert waiting.state is RolloutState.PROGRESSING
    late = taken(look(model, after, **loading))
    assert late.state is RolloutState.ROLLED_BACK, "without the shift it would be late"
    again = stored({**UNDER_WAY, "loadingSince": waiting.loading_since})
    over = taken(look(again, after + DEADLINE, **loading))
    assert over.state is RolloutState.ROLLED_BACK, "its deadline is not gone"


def test_what_is_suspended_still_or_was_never_stays_as_it_is():
    model = stored({**UNDER_WAY, "loadingSince": STARTED})
    assert resumed(model, BEGIN) is model
    suspended = was_suspended(model, BEGIN)
    suspended = suspended.model_copy(update={"spec": suspended.spec.model_copy(update={"suspend": True})})
    assert resumed(suspended, BEGIN + DEADLINE) is suspended


AT_ONCE = {**UNDER_WAY, "strategy": "Immediate", "step": 0, "steps": 0}


@pytest.fixture
def ranks(look):
    """``ranks(model, **reports)``: all of them were told version 2."""

    def make(model, **reports):
        seen = look(model, told=("a", "b", "c", "d"), **reports)
        return replace(seen, strategy=Strategy.IMMEDIATE, kept=NEW, together=True)

    return make


def refusal(report, reason="GoldenMismatch"):
    return report("b", None, 2, state=ModelState.FAILED, reason=reason, message="out of tune")


def test_ranks_go_back_together_where_one_refuses_a_version(ranks, report):
    first = taken(replace(ranks(stored(strategy="Immediate")), kept=OLD))
    assert (first.state, first.from_version, first.from_digest) == (RolloutState.COMPLETE, 1, OLD.digest)
    under_way = {**AT_ONCE, "fromDigest": OLD.digest}
    back = taken(ranks(stored(under_way, strategy="Immediate"), b=refusal(report)))
    assert (back.state, back.generation) == (RolloutState.ROLLED_BACK, 1)
    assert back.message == "version 2 was rolled back: pod b: GoldenMismatch: out of tune"

    stays = stored(back.to_dict(), strategy="Immediate")
    assert taken(ranks(stays)).state is RolloutState.ROLLED_BACK, "it is not tried again by itself"
    told = fallen_back(stays, Outcome(NEW))
    assert told.desired is not None
    assert (told.desired.version, told.desired.digest, told.reason) == (1, OLD.digest, Reason.ROLLED_BACK)
    assert fallen_back(stays, Outcome(OLD)) == Outcome(OLD), "of another version it says nothing"

    edited = stays.model_copy(update={"metadata": stays.metadata.model_copy(update={"generation": 2})})
    again = taken(ranks(edited, a=report("a", 1, 2, state=ModelState.LOADING)))
    assert (again.state, again.from_version) == (RolloutState.PROGRESSING, 1), "an edit is another try"


def test_ranks_go_back_where_the_memory_of_one_does_not_hold_the_new_version(ranks, report):
    under_way = {**AT_ONCE, "fromDigest": OLD.digest}
    back = taken(ranks(stored(under_way, strategy="Immediate"), b=refusal(report, "NoMemory")))
    assert back.state is RolloutState.ROLLED_BACK
    assert "pod b: NoMemory" in back.message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, "NoSpace"),
        ({"from": None}, "GoldenMismatch"),
        ({"state": "Complete"}, "GoldenMismatch"),
    ],
    ids=["it may pass", "there is no version before", "it served already"],
)
def test_ranks_wait_where_going_back_helps_nobody(ranks, report, change, reason):
    found = taken(ranks(stored({**AT_ONCE, **change}, strategy="Immediate"), b=refusal(report, reason)))
    assert found.state is not RolloutState.ROLLED_BACK


def test_ranks_stay_on_a_version_that_somebody_insists_on(ranks, report):
    model = stored(AT_ONCE, strategy="Immediate")
    rollout = model.spec.rollout.model_copy(update={"promote": 2})
    model = model.model_copy(update={"spec": model.spec.model_copy(update={"rollout": rollout})})
    assert taken(ranks(model, b=refusal(report))).state is RolloutState.PROGRESSING
