"""What an InferenceServer says, fact by fact."""

import pytest

from gravswell.serving.contracts import Desired, DesiredModel, ModelState
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.models import Outcome, Resolution
from gravswell_operator.state import AutoscalerState, Problem, ScaledObjectState
from gravswell_operator.statuses.autoscaling import NOT_LOOKED, Scaling, keda_missing
from gravswell_operator.statuses.references import blocker
from gravswell_operator.statuses.server import fields, findings
from gravswell_operator.statuses.serverview import ServerView

WANTED = DesiredModel(name="my-model", version=1, digest=f"{1:064x}")
SOME = Resolution(Desired(repository="r", models=(WANTED,)), {})
NONE = Resolution(Desired(repository="r"), {})


@pytest.fixture
def view(resource, pod):
    """``view(change, **parts)``; without ``pods`` there are so many ready ones as its ``workload`` counts."""

    def make(change=None, **parts):
        server = resource("InferenceServer", change)
        ready = parts["workload"].ready if parts.get("workload") is not None else 0
        defaults = {
            "pods": [pod(f"p-{number}") for number in range(1, ready + 1)],
            "repository": resource("ModelRepository"),
            "pool": resource("GPUNodePool"),
            "resolution": SOME,
        }
        return ServerView(server=server, **{**defaults, **parts})

    return make


def said(view):
    return {finding.type: finding for finding in findings(view)}


@pytest.mark.parametrize(
    ("change", "without", "reason", "says"),
    [
        ({}, "repository", Reason.REPOSITORY_NOT_FOUND, "no ModelRepository models in namespace ns"),
        ({}, "pool", Reason.NODE_POOL_NOT_FOUND, "no GPUNodePool pool"),
        ({"spec": {"gpus": 5}}, "", Reason.TOO_MANY_GPUS, "asks for 5 GPUs and each node of GPUNodePool pool has 4"),
        (
            {"spec": {"podTemplate": {"nodeSelector": {"nvidia.com/gpu.product": "A100"}}}},
            "",
            Reason.NODE_SELECTOR_CONFLICT,
            "nvidia.com/gpu.product",
        ),
    ],
)
def test_what_stops_it(resource, change, without, reason, says):
    parts = {"repository": resource("ModelRepository"), "pool": resource("GPUNodePool")}
    if without:
        parts[without] = None
    problem = blocker(resource("InferenceServer", change), parts["repository"], parts["pool"])
    assert problem is not None
    assert problem.reason is reason
    assert says in problem.message


def test_a_pool_for_others_only(resource):
    pool = resource("GPUNodePool", {"spec": {"allowedNamespaces": ["vision", "speech"]}})
    problem = blocker(resource("InferenceServer"), resource("ModelRepository"), pool)
    assert problem is not None
    assert problem.reason is Reason.NODE_POOL_NOT_ALLOWED
    assert "vision, speech and not ns" in problem.message


def test_nothing_stops_a_good_one(resource):
    assert blocker(resource("InferenceServer"), resource("ModelRepository"), resource("GPUNodePool")) is None


def test_a_blocker_is_what_ready_says_while_what_runs_stays_available(view, workload):
    found = said(view(blocker=Problem(Reason.TOO_MANY_GPUS, "m"), workload=workload(2, 2)))
    assert (found["Ready"].status, found["Ready"].reason) == (False, Reason.TOO_MANY_GPUS)
    assert found["Available"].status is True
    assert found["Progressing"].status is False


@pytest.mark.parametrize(
    ("deployment", "status", "reason"),
    [
        (None, False, Reason.STARTING),
        ({"desired": 1, "ready": 0, "generation_seen": False}, False, Reason.STARTING),
        ({"desired": 1, "ready": 0}, False, Reason.STARTING),
        ({"desired": 2, "ready": 1}, False, Reason.ROLLING_OUT),
        ({"desired": 2, "ready": 2, "updated": 1}, False, Reason.ROLLING_OUT),
        ({"desired": 2, "ready": 2, "total": 3}, False, Reason.ROLLING_OUT),
        ({"desired": 2, "ready": 2}, True, Reason.SERVING),
        ({"desired": 0, "ready": 0}, False, Reason.STARTING),
        ({"desired": 0, "ready": 1, "total": 1, "updated": 1}, False, Reason.ROLLING_OUT),
    ],
)
def test_ready_means_every_replica_of_the_latest_specification(view, workload, deployment, status, reason):
    ready = said(view(workload=workload(**deployment) if deployment is not None else None))["Ready"]
    assert (ready.status, ready.reason) == (status, reason)


AUTOSCALED = {"replicas": None, "autoscaling": {"minReplicas": 2, "maxReplicas": 4}}
WAKE = {"name": "gateway", "type": "Query", "query": {"promql": "sum(rate(requests[1m]))"}}
MAY_SLEEP = {"replicas": None, "autoscaling": {"minReplicas": 0, "maxReplicas": 4, "keda": {"wakes": [WAKE]}}}


@pytest.mark.parametrize(
    ("spec", "total", "ready", "available"),
    [
        ({"replicas": 0}, 0, (True, Reason.SCALED_TO_ZERO), Reason.SCALED_TO_ZERO),
        ({"replicas": 0}, 1, (True, Reason.SCALED_TO_ZERO), Reason.SCALED_TO_ZERO),
        ({"replicas": 1}, 0, (False, Reason.STARTING), Reason.NO_REPLICA_READY),
        (AUTOSCALED, 0, (False, Reason.STARTING), Reason.NO_REPLICA_READY),
        (MAY_SLEEP, 0, (True, Reason.SCALED_TO_ZERO), Reason.SCALED_TO_ZERO),
        (MAY_SLEEP, 1, (True, Reason.SCALED_TO_ZERO), Reason.SCALED_TO_ZERO),
    ],
)
def test_no_replica_is_fine_only_where_none_is_asked_for(view, workload, spec, total, ready, available):
    found = said(view({"spec": spec}, workload=workload(0, 0, total=total)))
    assert (found["Ready"].status, found["Ready"].reason) == ready
    assert (found["Available"].status, found["Available"].reason) == (False, available)


def test_a_server_goes_to_sleep_without_a_moment_of_trouble(view, workload):
    """Nobody wants its replica any more, who is still there, and whose end its controller has not seen."""
    for total, ready, seen in ((1, 1, False), (1, 1, True), (1, 0, True), (0, 0, True)):
        deployment = workload(0, ready, total=total, updated=total, generation_seen=seen)
        found = said(view({"spec": MAY_SLEEP}, workload=deployment))["Ready"]
        assert (found.status, found.reason) == (True, Reason.SCALED_TO_ZERO)


MISSING, FORBIDDEN = keda_missing("scaledobjects", ""), keda_missing("scaledobjects", "403")


@pytest.mark.parametrize(
    ("scaling", "status", "reason"),
    [
        (Scaling(AutoscalerState(None), ScaledObjectState(True)), True, Reason.SCALED_TO_ZERO),
        (Scaling(obstacle=NOT_LOOKED), True, Reason.SCALED_TO_ZERO),
        # KEDA is there, though we cannot see its ScaledObject: it made this.
        (Scaling(AutoscalerState(None), obstacle=FORBIDDEN), True, Reason.SCALED_TO_ZERO),
        (Scaling(obstacle=FORBIDDEN), False, Reason.FORBIDDEN),
        (Scaling(obstacle=MISSING), False, Reason.AUTOSCALER_MISSING),
        (Scaling(AutoscalerState(None), obstacle=MISSING), False, Reason.AUTOSCALER_MISSING),
    ],
)
def test_a_server_that_perhaps_nobody_wakes_is_not_ready(view, workload, scaling, status, reason):
    found = said(view({"spec": MAY_SLEEP}, workload=workload(0, 0), scaling=scaling))["Ready"]
    assert (found.status, found.reason) == (status, reason)
    assert status or ("perhaps nobody wakes it" in found.message and "leave autoscaling.keda out" in found.message)


def test_a_pod_in_trouble_is_named(view, workload, pod):
    pods = [
        pod("p-2", ready=False, problem=Problem(Reason.POD_UNSCHEDULABLE, "pod p-2 cannot be scheduled")),
        pod("p-3", ready=False, problem=Problem(Reason.IMAGE_PULL_FAILED, "pod p-3: no such image")),
    ]
    ready = said(view(workload=workload(2, 0), pods=pods))["Ready"]
    assert ready.reason is Reason.IMAGE_PULL_FAILED
    assert ready.message == "0 of 2 replicas ready; pod p-3: no such image"


def condition(type_, status, message, generation=0):
    said = {"type": type_, "status": status, "reason": "Some", "message": message}
    return {**said, "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": generation}


@pytest.mark.parametrize(
    ("pool", "problem", "says"),
    [
        ("False", Reason.POD_UNSCHEDULABLE, "1 of 2 replicas ready; why; GPUNodePool pool: node-b is cordoned"),
        ("True", Reason.POD_UNSCHEDULABLE, "1 of 2 replicas ready; why"),
        ("False", Reason.CRASH_LOOP, "1 of 2 replicas ready; why"),
    ],
)
def test_a_pool_whose_nodes_are_away_is_named_where_a_pod_waits_for_one(
    view, resource, workload, pod, pool, problem, says
):
    away = {"status": {"conditions": [condition("Ready", pool, "node-b is cordoned")]}}
    pods = [pod("p-1"), pod("p-2", ready=False, problem=Problem(problem, "why"))]
    ready = said(view(workload=workload(2, 1), pods=pods, pool=resource("GPUNodePool", away)))["Ready"]
    assert ready.message == says


@pytest.mark.parametrize(
    ("status", "generation", "replicas", "wanted"),
    [("True", 3, 2, True), ("False", 3, 2, False), ("True", 2, 2, False), ("True", 3, 1, False)],
    ids=["it was ready", "it was not", "its specification is new", "a replica is away"],
)
def test_a_deployment_that_changes_of_itself_takes_nothing_away(view, workload, status, generation, replicas, wanted):
    """Its surge, for instance, when nodes of the pool are cordoned: until its controller has looked, nothing is new."""
    before = {"metadata": {"generation": 3}, "status": {"conditions": [condition("Ready", status, "", generation)]}}
    ready = said(view(before, workload=workload(2, replicas, generation_seen=False)))["Ready"]
    assert ready.status is wanted


def test_a_quota_that_refuses_pods_is_told(view, workload):
    ready = said(view(workload=workload(1, 0, failure_message="exceeded quota")))["Ready"]
    assert ready.reason is Reason.PODS_REFUSED
    assert "exceeded quota" in ready.message


MISSING = Resolution(NONE.desired, {"my-model": Outcome(None, Reason.ENTRY_NOT_FOUND, "not there")})
WAITING = Resolution(NONE.desired, {"my-model": Outcome(None, Reason.NOT_RESOLVED_YET, "not listed yet")})
UNSEEN = Resolution(NONE.desired, {}, listed=False)
ALL = {"spec": {"models": "All"}}


@pytest.mark.parametrize("ready", [0, 1], ids=["not ready", "ready all the same"])
@pytest.mark.parametrize(
    ("change", "resolution", "reason", "says"),
    [
        ({}, NONE, Reason.NO_MODELS, "serverRef.name: server, or set models: All"),
        (ALL, NONE, Reason.NO_MODELS, "ModelRepository models has no published version"),
        (ALL, UNSEEN, Reason.NOT_RESOLVED_YET, "ModelRepository models has not been listed yet"),
        ({}, MISSING, Reason.MODELS_UNRESOLVED, "my-model: not there"),
        ({}, WAITING, Reason.NOT_RESOLVED_YET, "my-model: not listed yet"),
    ],
)
def test_a_server_without_a_model_is_not_ready_whatever_its_pods_say(
    view, workload, ready, change, resolution, reason, says
):
    found = said(view(change, workload=workload(1, ready), resolution=resolution))
    assert (found["Ready"].status, found["Ready"].reason) == (False, reason)
    assert says in found["Ready"].message
    assert (found["ModelsResolved"].status, found["ModelsResolved"].reason) == (False, reason)


def test_a_pod_in_trouble_is_told_before_that_there_is_no_model(view, workload, pod):
    pods = [pod(ready=False, problem=Problem(Reason.IMAGE_PULL_FAILED, "no such image"))]
    assert said(view(workload=workload(1, 0), pods=pods, resolution=NONE))["Ready"].reason is Reason.IMAGE_PULL_FAILED


def test_a_model_that_fails_everywhere_is_why_it_is_not_ready(view, workload, pod, report):
    reports = {"p-1": report(loaded=None, desired=1, state=ModelState.FAILED, reason="HashMismatch", message="x")}
    ready = said(view(workload=workload(1, 0), pods=[pod(ready=False)], reports=reports))["Ready"]
    assert ready.reason is Reason.LOAD_FAILED
    assert "model my-model on pod p-1: HashMismatch: x" in ready.message


@pytest.mark.parametrize(
    ("other", "reason", "says"),
    [
        (None, Reason.LOADING, "pod p-1 has not loaded version 3 of other yet"),
        ({"state": ModelState.DOWNLOADING}, Reason.LOADING, "pod p-1 has not loaded version 3 of other yet"),
        (
            {"state": ModelState.FAILED, "reason": "HashMismatch", "message": "x"},
            Reason.LOAD_FAILED,
            "model other on pod p-1: HashMismatch: x",
        ),
    ],
    ids=["not begun", "under way", "failed"],
)
def test_it_is_not_ready_while_one_of_its_models_is_not_loaded(view, workload, report, other, reason, says):
    """Though each replica takes traffic with the first."""
    two = Desired(repository="r", models=(WANTED, DesiredModel(name="other", version=3, digest=f"{3:064x}")))
    told = report("p-1")
    if other is not None:
        (second,) = report("p-1", None, 3, **other).models
        told = told.model_copy(update={"models": (*told.models, second.model_copy(update={"name": "other"}))})
    found = said(view(workload=workload(1, 1), resolution=Resolution(two, {}), reports={"p-1": told}))
    assert (found["Ready"].status, found["Ready"].reason) == (False, reason)
    assert found["Ready"].message == f"1 of 1 replica ready; {says}"
    assert found["Available"].status is True


def test_it_is_ready_while_an_earlier_version_serves(view, workload, report):
    failed = report("p-1", 1, 2, state=ModelState.FAILED, reason="GoldenMismatch", message="out of tune")
    found = said(view(workload=workload(1, 1), reports={"p-1": failed}))
    assert (found["Ready"].status, found["ModelsLoaded"].status) == (True, False)


def test_what_cannot_be_resolved_is_a_condition_of_its_own(view, workload):
    unresolved = Resolution(SOME.desired, {"other": Outcome(None, Reason.ENTRY_NOT_FOUND, "not there")})
    found = said(view(workload=workload(1, 1), resolution=unresolved))
    assert found["Ready"].status is True
    assert found["ModelsResolved"].message == "other: not there"


def test_a_roll_out_past_its_deadline_is_no_progress(view, workload):
    late = workload(2, 1, progressing_reason="ProgressDeadlineExceeded", progressing_message="timed out")
    progressing = said(view(workload=late))["Progressing"]
    assert (progressing.status, progressing.reason) == (False, Reason.PROGRESS_DEADLINE_EXCEEDED)
    waiting = said(view(workload=late, resolution=NONE))["Progressing"]
    assert (waiting.status, waiting.reason) == (False, Reason.NO_MODELS), "it is not late: it has nothing to load"


def test_fields(view, workload, pod, report):
    reports = {"p-1": report("p-1", 1), "p-2": report("p-2", 2), "gone": report("gone", 1)}
    made = fields(view(workload=workload(2, 1), pods=[pod("p-1"), pod("p-2")], reports=reports))
    assert made == {
        "replicas": 2,
        "readyReplicas": 1,
        "selector": "app.kubernetes.io/name=triton,gravswell.dev/server=server",
        "address": "server.ns.svc:8001",
        "httpAddress": "server-headless.ns.svc:8000",
        "models": [{"name": "my-model", "version": 1, "replicas": 1}],
        "devices": [],
        "ranks": [],
        "simulatedGPUs": False,
    }


def test_who_was_given_which_device(view):
    placed = [("a", (0, 1)), ("b", (1,)), ("everywhere", None)]
    models = tuple(DesiredModel(name=name, version=1, gpus=gpus) for name, gpus in placed)
    made = fields(view({"spec": {"gpus": 3}}, resolution=Resolution(Desired(repository="r", models=models), {})))
    assert made["devices"] == [
        {"device": 0, "models": ["a"]},
        {"device": 1, "models": ["a", "b"]},
        {"device": 2, "models": []},
    ]


@pytest.mark.parametrize(
    ("message", "way_out"),
    [
        ('pods "p" is forbidden: exceeded quota: small, requested: pods=1', "raise the ResourceQuota"),
        ('pods "p" is forbidden: failed quota: q: must specify limits.cpu for: triton', "let a LimitRange"),
        ("maximum memory usage per Container is 1Gi, but limit is 2Gi", "raise the namespace's LimitRange"),
        ('violates PodSecurity "restricted:latest": privileged', "keep the restricted standard"),
        ('error looking up service account ns/a: serviceaccount "a" not found', "make the ServiceAccount"),
        ("denied by somebody's webhook", "mend what refuses them"),
    ],
)
def test_pods_that_are_refused_have_a_way_out(view, workload, message, way_out):
    ready = said(view(workload=workload(1, 0, failure_message=message)))["Ready"]
    assert (ready.status, ready.reason) == (False, Reason.PODS_REFUSED)
    assert message in ready.message
    assert way_out in ready.message


def test_a_replica_counts_by_what_it_says_itself(view, workload, pod, report):
    """Its controller may not have looked yet, and its probes may still be about to fail."""
    crashed = pod("p-1", ready=False, problem=Problem(Reason.CRASH_LOOP, "container triton of pod p-1: it ended"))
    found = said(view(workload=workload(1, 1), pods=[crashed]))
    assert (found["Ready"].status, found["Ready"].reason) == (False, Reason.CRASH_LOOP)
    assert found["Available"].status is False
    empty = report("p-1", None, 1, state=ModelState.WAITING, message="Triton was started again")
    found = said(view(workload=workload(1, 1), pods=[pod("p-1")], reports={"p-1": empty}))
    assert (found["Ready"].status, found["Available"].status) == (False, False)


def test_whether_every_model_is_loaded_everywhere(view, workload, pod, report):
    pods = [pod("p-1"), pod("p-2")]
    both = {"p-1": report("p-1", 1), "p-2": report("p-2", 1)}
    loaded = said(view(workload=workload(2, 2), pods=pods, reports=both))["ModelsLoaded"]
    assert (loaded.status, loaded.reason, loaded.message) == (True, Reason.LOADED, "1 model on 2 replicas")
    behind = said(view(workload=workload(2, 2), pods=pods, reports={"p-1": both["p-1"]}))["ModelsLoaded"]
    assert (behind.status, behind.reason) == (False, Reason.LOADING)
    assert behind.message == "not on every replica yet: my-model"
    failed = report("p-2", 1, 2, state=ModelState.FAILED, reason="GoldenMismatch", message="out of tune")
    found = said(view(workload=workload(2, 2), pods=pods, reports={**both, "p-2": failed}))["ModelsLoaded"]
    assert (found.status, found.reason) == (False, Reason.LOAD_FAILED)
    assert found.message == (
        "version 2 of my-model on pod p-2: GoldenMismatch: out of tune; version 1 still serves there"
    )
    assert "ModelsLoaded" not in said(view({"spec": {"replicas": 0}}, workload=workload(0, 0)))
