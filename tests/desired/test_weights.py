"""A canary's weights as tables: whose they are, which replicas count for the new version, and what these get."""

import pytest

from gravswell.serving.contracts import Canary, Desired, DesiredModel, ModelReport, ModelState, Report
from gravswell_operator.api import Model
from gravswell_operator.desired.weights import Split, split_of, weigher
from gravswell_operator.state import PodState

OLD, NEW = (DesiredModel(name="digits", version=number, digest=f"{number:064x}") for number in (1, 2))
NAMES = ("a", "b", "c", "d")
STEPS = ({"replicas": 1, "weight": "10%"}, {"replicas": 2, "weight": "30%"})


def pod(name, *, ready=True, **state):
    return PodState(name, ready=ready, **{"terminating": False, "finished": False, "problem": None, **state})


PODS = [pod(name) for name in NAMES]


def model(name="digits", state="Progressing", *, step=1, started="2026-01-01T00:00:00Z", steps=STEPS, **spec):
    rollout = {"strategy": "Canary", "state": state, "from": 1, "to": 2, "toDigest": NEW.digest}
    moments = {"started": started, "since": started}
    return Model.model_validate(
        {
            "metadata": {"name": name, "namespace": "ns"},
            "spec": {
                "serverRef": {"name": "s"},
                "entry": name,
                "rollout": {"strategy": "Canary", "canary": {"steps": list(steps)}},
                **spec,
            },
            "status": {"rollout": {**rollout, **moments, "step": step, "steps": len(steps)}} if state else {},
        }
    )


def reports(new, entry="digits"):
    """The pods ``new`` serve version 2, all others version 1."""

    def said(name):
        version = 2 if name in new else 1
        loaded = {"loaded_version": version, "loaded_digest": f"{version:064x}"}
        return ModelReport(name=entry, state=ModelState.SERVING, desired_version=version, **loaded)

    return {name: Report(pod=name, models=(said(name),)) for name in NAMES}


def told(*chosen):
    """The agents of ``chosen`` are to serve the new version."""
    canary = Canary(version=2, digest=NEW.digest, pods=chosen, window="w") if chosen else None
    return Desired(repository="r", models=(OLD.model_copy(update={"canary": canary}),))


UNWEIGHTED = ({"replicas": 1}, {"replicas": 2, "weight": "30%"})


@pytest.mark.parametrize(
    ("one", "chosen", "serving", "split"),
    [
        (model(), ("a",), "", Split(frozenset(), 0)),  # before it serves, nobody may reach it
        (model(), ("a",), "a", Split(frozenset("a"), 10)),
        (model(state="Paused"), ("a",), "a", Split(frozenset("a"), 10)),
        (model(step=2), ("a", "b"), "a", Split(frozenset("a"), 10)),  # one of two: the step before
        (model(step=2), ("a", "b"), "ab", Split(frozenset("ab"), 30)),
        (model(step=9), ("a", "b"), "ab", Split(frozenset("ab"), 30)),  # the plan had more steps
        (model(steps=UNWEIGHTED), ("a",), "", None),
        (model(steps=UNWEIGHTED), ("a",), "a", None),
        (model(steps=UNWEIGHTED, step=2), ("a", "b"), "a", None),
        (model(steps=UNWEIGHTED, step=2), ("a", "b"), "ab", Split(frozenset("ab"), 30)),
        (model(), ("a",), "ab", Split(frozenset("ab"), 10)),  # one that is no more of it, and has not gone back
        (model(state="RolledBack"), (), "ab", Split(frozenset("ab"), 0)),
        (model(state="RolledBack"), (), "", None),
        (model(), (), "a", Split(frozenset("a"), 0)),  # it is not wanted any more, and that is not written yet
        (model(state="Waiting"), (), "", None),
        (model(state="Promoted"), (), "ab", None),
        (model(state="Complete"), (), "abcd", None),
    ],
)
def test_what_replicas_get_of_the_requests(one, chosen, serving, split):
    assert split_of(one, told(*chosen), PODS, reports(serving)) == split


def test_a_replica_that_is_not_ready_keeps_its_step_from_being_weighed():
    pods = [pod("a"), pod("b", ready=False), pod("c"), pod("d")]
    assert split_of(model(step=2), told("a", "b"), pods, reports("ab")) == Split(frozenset("ab"), 10)


def test_when_all_are_told_the_new_version_all_get_the_same():
    """Somebody chose another strategy, or the promotion is not written yet."""
    wanted = Desired(repository="r", models=(NEW,))
    assert split_of(model(), wanted, PODS, reports("a")) is None


def test_an_entry_that_nobody_is_told_has_no_weights():
    assert split_of(model(), Desired(repository="r"), PODS, reports("a")) is None


@pytest.mark.parametrize(
    ("pods", "weights"),
    [
        (PODS, (90, 10)),
        ([pod("a", ready=False), *PODS[1:]], (100, 0)),
        ([pod("a", terminating=True), *PODS[1:]], (100, 0)),
        ([pod("a"), pod("b", ready=False)], (0, 100)),
        ([pod("a")], (0, 100)),
        ([pod("a", ready=False), pod("b", ready=False)], (100, 0)),
        ([], (100, 0)),
    ],
)
def test_a_side_with_nobody_ready_gets_nothing(pods, weights):
    """A Gateway fails the requests that it sends to a Service without endpoints."""
    assert Split(frozenset("a"), 10).weights(pods) == weights


def named(*models, serving=""):
    found = weigher(models, PODS, reports(serving))
    return found.metadata.name if found is not None else None


EARLY, LATE = "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"


@pytest.mark.parametrize(
    ("models", "first"),
    [
        ([], None),
        ([model(state=None)], None),
        ([model(state="Complete")], None),
        ([model(steps=[{"replicas": 1}])], None),
        ([model(rollout={"strategy": "Immediate"})], None),
        ([model("b"), model("a", started=LATE)], "b"),
        ([model("b"), model("a")], "a"),  # of one second
        ([model("b", "Paused", started=LATE), model("a", "Waiting", started=EARLY)], "b"),
        ([model("b", "Waiting", started=LATE), model("a", "Waiting", started=EARLY)], "a"),
        ([model("b", "Waiting", started=LATE), model("a", "Waiting", suspend=True)], "b"),
        ([model("b", "Paused", started=LATE, suspend=True), model("a", "Waiting")], "b"),
        ([model("b", "Waiting", started=LATE), model("a", "RolledBack")], "b"),
        ([model("b", "Waiting", started=LATE), model("a", "Promoted")], "b"),
    ],
)
def test_one_canary_at_a_time_has_the_weights(models, first):
    assert named(*models) == first
    assert named(*reversed(models)) == first


def test_who_goes_back_keeps_the_weights_until_no_replica_serves_it():
    back, waits = model("digits", "RolledBack"), model("later", "Waiting", started=LATE)
    assert named(back, waits, serving="b") == "digits"
    assert named(back, waits) == "later"
