"""Canaries as tables: how many replicas, which ones, and what each of them is told."""

import pytest

from gravswell.serving.contracts import Canary, Desired, DesiredModel, Verification
from gravswell_operator.api import Model
from gravswell_operator.api.rollout import Step
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.outcome import Outcome
from gravswell_operator.desired.repository import what_is_served
from gravswell_operator.desired.rollouts import pick, share, staged
from gravswell_operator.state import PodState

OLD, NEW = (DesiredModel(name="digits", version=number, digest=f"{number:064x}") for number in (1, 2))
MOMENT = "2026-01-01T00:00:00Z"
UNDER_WAY = {
    "strategy": "Canary",
    "state": "Progressing",
    "to": 2,
    "toDigest": NEW.digest,
    "step": 1,
    "steps": 1,
    "started": MOMENT,
    "since": MOMENT,
    "message": "it was worse",
}


def pod(name, *, ready=True, terminating=False):
    return PodState(name, ready=ready, terminating=terminating, finished=False, problem=None)


PODS = [pod(name) for name in ("a", "b", "c", "d")]


def model(rollout=None, *, strategy="Canary", replicas="50%", **spec):
    canary = {"canary": {"steps": [{"replicas": replicas}]}} if strategy == "Canary" else {}
    return Model.model_validate(
        {
            "metadata": {"name": "m", "namespace": "ns"},
            "spec": {
                "serverRef": {"name": "s"},
                "entry": "digits",
                "rollout": {"strategy": strategy, **canary},
                **spec,
            },
            "status": {"rollout": rollout} if rollout else {},
        }
    )


@pytest.mark.parametrize(
    ("replicas", "of", "wanted"),
    [("25%", 4, 1), ("25%", 5, 2), ("1%", 300, 3), ("100%", 7, 7), (3, 2, 2), (1, 8, 1), ("25%", 1, 1), ("25%", 0, 0)],
)
def test_a_share_is_rounded_up_and_never_more_than_there_is(replicas, of, wanted):
    assert share(Step(replicas=replicas), of) == wanted


@pytest.mark.parametrize(
    ("pods", "chosen", "wanted", "picked"),
    [
        (PODS, (), 2, ("a", "b")),
        (PODS, ("c",), 2, ("a", "c")),
        (PODS, ("c", "d"), 1, ("c",)),
        (PODS, ("gone", "d"), 1, ("d",)),
        ([pod("a", ready=False), pod("b")], (), 1, ("b",)),
        ([pod("a", ready=False), pod("b")], ("a",), 1, ("a",)),  # the new version may be why it is not ready
        ([pod("a", terminating=True), pod("b")], ("a",), 1, ("b",)),
        (PODS, ("a",), 0, ()),
    ],
)
def test_those_that_were_picked_stay_and_others_are_ready(pods, chosen, wanted, picked):
    assert pick(pods, chosen, wanted) == picked
    assert pick(reversed(pods), chosen, wanted) == picked


def told(outcome):
    """What each replica is told."""
    return [outcome.desired.on(pod.name).version for pod in PODS]


@pytest.mark.parametrize(
    ("one", "versions"),
    [
        (model(strategy="Immediate"), [2, 2, 2, 2]),
        (model(), [1, 1, 1, 1]),  # not begun yet
        (model(UNDER_WAY), [2, 2, 1, 1]),
        (model(UNDER_WAY, replicas=3), [2, 2, 2, 1]),
        (model({**UNDER_WAY, "step": 9}), [2, 2, 1, 1]),  # the plan had more steps when it began
        (model({**UNDER_WAY, "state": "Paused"}), [2, 2, 1, 1]),
        (model({**UNDER_WAY, "state": "Promoted"}), [2, 2, 2, 2]),
        (model({**UNDER_WAY, "state": "RolledBack"}), [1, 1, 1, 1]),
        (model({**UNDER_WAY, "state": "RolledBack"}, strategy="Immediate"), [2, 2, 2, 2]),
        (model({**UNDER_WAY, "to": 3}), [1, 1, 1, 1]),
        (model({**UNDER_WAY, "toDigest": "0" * 64}), [1, 1, 1, 1]),  # another one of the same number
    ],
)
def test_what_replicas_are_told(one, versions):
    assert told(staged(one, Outcome(NEW), OLD, PODS)) == versions


def test_what_was_rolled_back_is_not_resolved_and_says_why():
    outcome = staged(model({**UNDER_WAY, "state": "RolledBack"}), Outcome(NEW), OLD, PODS)
    assert outcome == Outcome(OLD, Reason.ROLLED_BACK, "it was worse")


def test_the_first_version_and_the_one_that_serves_need_no_canary():
    assert staged(model(), Outcome(NEW), None, PODS) == Outcome(NEW)
    assert staged(model(UNDER_WAY), Outcome(NEW), NEW, PODS) == Outcome(NEW)


def test_what_cannot_be_resolved_stays_as_it_was_told():
    stays = Outcome(OLD, Reason.VERSION_NOT_FOUND, "gone")
    assert staged(model(UNDER_WAY), stays, OLD, PODS) is stays


def test_the_old_one_keeps_its_own_gate():
    """It has no manifest, so nothing could be verified when a replica starts anew; the new one has."""
    foreign = DesiredModel(name="digits", version=1, digest=None, verification=Verification.NONE)
    desired = staged(model(UNDER_WAY), Outcome(NEW), foreign, PODS).desired
    assert desired.on("a") == NEW
    assert desired.on("d") == foreign


def test_the_rest_of_the_wish_is_for_all_replicas():
    asked = NEW.model_copy(update={"instances": 4, "gpus": (1,)})
    desired = staged(model(UNDER_WAY), Outcome(asked), OLD, PODS).desired
    assert desired.on("a") == asked
    assert desired.on("d") == OLD.model_copy(update={"instances": 4, "gpus": (1,)})


def test_replicas_that_are_not_named_are_told_nothing_of_a_canary():
    canary = Canary(version=2, digest=NEW.digest, pods=("a",), window="w")
    document = Desired(repository="r", models=(OLD.model_copy(update={"canary": canary}),))
    assert document.on("b") == Desired(repository="r", models=(OLD,))
    assert Desired.model_validate_json(document.to_json()) == document
    assert "canary" not in document.on("a").to_json(), "an agent of an earlier release has never seen one"
    assert document.on("a").models == (NEW,)
    plain = Desired(repository="r", models=(OLD,))
    assert plain.on("a") is plain


def test_what_a_canary_tries_is_pinned():
    canary = Canary(version=2, digest=NEW.digest, pods=("a",), window="w")
    document = Desired(repository="r", models=(OLD.model_copy(update={"canary": canary}),))
    assert what_is_served("r", [(document, [])]).entries == {"digits": (1, 2)}
