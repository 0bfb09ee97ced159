"""What a Model says, from what its server's agents report."""

import pytest

from gravswell.serving.contracts import Canary, DesiredModel, ModelState, Verification
from gravswell_operator.api.rollout import RolloutStatus
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.outcome import Outcome
from gravswell_operator.state import Problem
from gravswell_operator.statuses.model import ModelView, fields, findings


def wanted(number, **other):
    return DesiredModel(name="my-model", version=number, digest=f"{number:064x}", **other)


TWO = Outcome(wanted(2))


@pytest.fixture
def view(resource):
    def make(pods=(), reports=(), outcome=TWO, **parts):
        server = parts.pop("server", resource("InferenceServer"))
        by_pod = {r.pod: r for r in reports}
        return ModelView(resource("Model"), server, outcome, pods, by_pod, **parts)

    return make


def said(view):
    return {finding.type: finding for finding in findings(view)}


def test_without_a_server(view):
    found = said(view(server=None, outcome=None))
    assert found["Ready"].reason is Reason.SERVER_NOT_FOUND
    assert "no InferenceServer server in namespace ns" in found["Ready"].message


def test_what_was_not_resolved_says_what_stays(view):
    ready = said(view(outcome=Outcome(wanted(1), Reason.VERSION_NOT_FOUND, "no version 9")))["Ready"]
    assert (ready.status, ready.reason) == (False, Reason.VERSION_NOT_FOUND)
    assert ready.message == "no version 9; version 1 stays meanwhile"


def test_without_replicas(view):
    assert said(view())["Ready"].reason is Reason.NO_REPLICAS


def test_served_and_verified_everywhere(view, pod, report):
    found = said(view([pod("a"), pod("b")], [report("a", 2), report("b", 2)]))
    assert (found["Ready"].status, found["Ready"].reason) == (True, Reason.SERVING)
    assert (found["Verified"].status, found["Verified"].reason) == (True, Reason.GOLDEN_REPRODUCED)
    assert found["Progressing"].status is False


def test_the_same_number_with_another_digest_is_not_it(view, pod, report):
    other = Outcome(DesiredModel(name="my-model", version=2, digest="f" * 64))
    assert said(view([pod("a")], [report("a", 2)], other))["Ready"].status is False


def test_a_pod_in_trouble_is_why_nothing_serves(view, pod):
    stuck = pod("a", ready=False, problem=Problem(Reason.POD_UNSCHEDULABLE, "pod a cannot be scheduled: no GPU"))
    ready = said(view([stuck]))["Ready"]
    assert (ready.status, ready.reason) == (False, Reason.LOADING)
    assert ready.message == "version 2 serves on 0 of 1 replica; pod a cannot be scheduled: no GPU"


def test_a_replica_that_still_starts_takes_nothing_away(view, pod, report):
    found = said(view([pod("a"), pod("new", ready=False)], [report("a", 2)]))
    assert found["Ready"].status is True
    assert found["Ready"].message == "version 2 serves on 1 of 2 replicas"
    assert (found["Progressing"].status, found["Progressing"].reason) == (True, Reason.LOADING)


def test_a_replica_that_crashes_does(view, pod, report):
    crashed = pod("b", ready=False, problem=Problem(Reason.CRASH_LOOP, "container triton of pod b: it ended"))
    found = said(view([pod("a"), crashed], [report("a", 2)]))
    assert (found["Ready"].status, found["Ready"].reason) == (False, Reason.CRASH_LOOP)
    assert found["Ready"].message == "version 2 serves on 1 of 2 replicas; container triton of pod b: it ended"


def test_a_replica_that_takes_traffic_with_another_version_does(view, pod, report):
    found = said(view([pod("a"), pod("b")], [report("a", 2), report("b", 1)]))
    assert (found["Ready"].status, found["Ready"].reason) == (False, Reason.LOADING)


def test_a_failure_has_the_agents_reason_and_names_the_pod(view, pod, report):
    broken = report("b", 1, 2, state=ModelState.FAILED, reason="HashMismatch", message="model.onnx differs")
    found = said(view([pod("a"), pod("b")], [report("a", 2), broken]))
    assert (found["Ready"].status, found["Ready"].reason) == (False, "HashMismatch")
    assert found["Ready"].message == (
        "version 2 is not served on 1 of 2 replicas; pod b: model.onnx differs; version 1 still serves there"
    )
    assert (found["Verified"].status, found["Verified"].reason) == (False, "HashMismatch")
    assert found["Progressing"].status is False


def test_a_failure_of_an_earlier_wish_is_old_news(view, pod, report):
    broken = report("a", None, 1, state=ModelState.FAILED, reason="HashMismatch", message="old")
    found = said(view([pod("a")], [broken]))
    assert found["Ready"].reason is Reason.LOADING
    assert fields(view([pod("a")], [broken]))["replicas"] == [{"pod": "a", "state": "Waiting", "message": ""}]


@pytest.mark.parametrize(
    ("verification", "verified", "status", "reason"),
    [
        (Verification.GOLDEN, False, None, Reason.VERIFICATION_PENDING),
        (Verification.HASHES, False, True, Reason.HASHES_MATCH),
        (Verification.NONE, False, False, Reason.VERIFICATION_OFF),
    ],
)
def test_verified_means_what_was_asked_for(view, pod, report, verification, verified, status, reason):
    outcome = Outcome(wanted(2, verification=verification))
    found = said(view([pod("a")], [report("a", 2, verified=verified)], outcome))["Verified"]
    assert (found.status, found.reason) == (status, reason)


def test_a_suspended_server_is_not_told_of_changes(view, resource, pod, report):
    server = resource("InferenceServer", {"spec": {"suspend": True}})
    ready = said(view([pod("a")], [report("a", 1)], server=server))["Ready"]
    assert ready.reason is Reason.SUSPENDED


def test_fields(view, pod, report):
    same = fields(view([pod("a"), pod("b")], [report("a", 1), report("b", 1)]))
    assert (same["desiredVersion"], same["loadedVersion"]) == (2, 1)
    assert same["loadedDigest"] == f"{1:064x}"
    mixed = fields(view([pod("a"), pod("b"), pod("c", terminating=True)], [report("a", 1), report("b", 2)]))
    assert "loadedVersion" not in mixed
    assert [replica["pod"] for replica in mixed["replicas"]] == ["a", "b"]


def test_the_devices_that_a_model_was_given(view):
    assert fields(view(outcome=Outcome(wanted(2, gpus=(2, 3)))))["placement"] == {"devices": [2, 3]}
    assert "placement" not in fields(view())


def test_a_model_without_a_place_is_not_ready_and_says_who_has_it(view):
    ready = said(view(outcome=Outcome(wanted(1), Reason.NOT_PLACED, "x asks for 2 devices")))["Ready"]
    assert (ready.status, ready.reason) == (False, Reason.NOT_PLACED)
    assert ready.message == "x asks for 2 devices; version 1 stays meanwhile"


def test_a_suspended_model_says_so_beside_the_rest(resource, pod, report):
    model = resource("Model", {"spec": {"suspend": True}})
    found = said(ModelView(model, resource("InferenceServer"), TWO, [pod("a")], {"a": report("a", 2)}))
    assert found["Ready"].status is True
    assert (found["Suspended"].status, found["Suspended"].reason) == (True, Reason.SUSPENDED)


def trying(*pods):
    canary = Canary(version=2, digest=f"{2:064x}", pods=pods, window="w")
    return Outcome(wanted(1, canary=canary))


def rollout(state):
    moment = "2026-01-01T00:00:00Z"
    return RolloutStatus(
        strategy="Canary", state=state, to=2, to_digest=f"{2:064x}", started=moment, since=moment, message="step 1 of 2"
    )


@pytest.mark.parametrize(("state", "reason"), [("Progressing", Reason.ROLLING_OUT), ("Paused", Reason.ROLLOUT_PAUSED)])
def test_a_canary_makes_nothing_less_ready(view, pod, report, state, reason):
    pods = [pod("a"), pod("b")]
    on_its_way = said(view(pods, [report("a", 1, 2, state=ModelState.VERIFYING), report("b", 1)], trying("a")))
    assert (on_its_way["Ready"].status, on_its_way["Ready"].reason) == (True, Reason.SERVING)
    there = view(pods, [report("a", 2), report("b", 1)], trying("a"), rollout=rollout(state))
    found = said(there)
    assert found["Ready"].message == "version 1 serves on 1 of 2 replicas, version 2 on 1"
    progressing = found["Progressing"]
    assert (progressing.status, progressing.reason, progressing.message) == (True, reason, "step 1 of 2")
    status = fields(there)
    assert status["desiredVersion"] == 1
    assert "loadedVersion" not in status, "the replicas differ"
    assert [(r["pod"], r["state"], r["version"]) for r in status["replicas"]] == [
        ("a", "Serving", 2),
        ("b", "Serving", 1),
    ]
    assert status["rollout"]["state"] == state


def test_a_replica_that_refuses_the_canary_says_which_version(view, pod, report):
    failed = report("a", 1, 2, state=ModelState.FAILED, reason="GoldenMismatch", message="out of tune")
    ready = said(view([pod("a"), pod("b")], [failed, report("b", 1)], trying("a")))["Ready"]
    assert (ready.status, ready.reason) == (False, "GoldenMismatch")
    assert (
        "version 2 is not served on 1 of 2 replicas; pod a: out of tune; version 1 still serves there" in ready.message
    )
