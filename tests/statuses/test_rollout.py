"""The steps of a roll-out, from what is stored: nothing that a decision needs is in the operator's memory."""

from datetime import UTC, datetime, timedelta

import pytest

from gravswell.serving.contracts import Canary, DesiredModel, ModelState
from gravswell_operator.api import Model
from gravswell_operator.api.rollout import RolloutState, Strategy
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.outcome import Outcome
from gravswell_operator.desired.rollouts import is_same, staged, window
from gravswell_operator.state import Problem
from gravswell_operator.statuses.replica import replicas_of
from gravswell_operator.statuses.rollout import Look, advance

OLD, NEW = (DesiredModel(name="my-model", version=number, digest=f"{number:064x}") for number in (1, 2))
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
STARTED = "2026-01-01T00:00:00Z"
PAUSE, DEADLINE = timedelta(minutes=10), timedelta(minutes=5)
UNDER_WAY = {
    "strategy": "Canary",
    "state": "Progressing",
    "from": 1,
    "to": 2,
    "toDigest": NEW.digest,
    "step": 1,
    "steps": 2,
    "started": STARTED,
    "since": STARTED,
}


def stored(rollout=None, *, pause="10m", strategy="Canary"):
    steps = [{"replicas": 2, "pause": pause}, {"replicas": "100%", "pause": "10m"}]
    canary = {"steps": steps, "judge": {"minRequests": 0}, "progressDeadline": "5m"}
    spec = {"strategy": strategy, **({"canary": canary} if strategy == "Canary" else {})}
    return Model.model_validate(
        {
            "metadata": {"name": "m", "namespace": "ns", "generation": 1},
            "spec": {"serverRef": {"name": "s"}, "entry": "my-model", "rollout": spec},
            "status": {"desiredVersion": 1, "desiredDigest": OLD.digest, **({"rollout": rollout} if rollout else {})},
        }
    )


@pytest.fixture
def look(pod, report):
    """``look(model, after, **reports)``: what there is to see of replicas ``a`` and ``b``, which try version 2, ``c``
    and ``d``; each serves what it was told, unless ``reports`` has what it says."""

    def make(model, after=timedelta(), *, told=("a", "b"), pods=None, **reports):
        names = ("a", "b", "c", "d")
        said = {name: report(name, 2 if name in told else 1) for name in names} | reports
        rollout, kept = model.status.rollout, OLD
        if rollout is not None and told:
            kept = OLD.model_copy(
                update={"canary": Canary(version=2, digest=NEW.digest, pods=told, window=window(rollout))}
            )
        replicas = replicas_of("my-model", pods or [pod(name) for name in names], said)
        return Look(model, model.spec.rollout.strategy, NEW, kept, replicas, BEGIN + after)

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
