"""The engine: what it does twice it writes once, what fails is told and tried again, what is others' it leaves."""

from datetime import timedelta

import pytest

from gravswell.kube import errors
from gravswell_operator.cluster import resources
from gravswell_operator.reconcile import apply

SERVER = {"spec": {"nodePoolRef": None, "gpus": 0}}
CHILDREN = [
    "ConfigMap server-desired",
    "ConfigMap server-report",
    "ServiceAccount server-agent",
    "Role server-agent",
    "RoleBinding server-agent",
    "Service server",
    "Service server-headless",
    "PodDisruptionBudget server",
    "Deployment server",
]


async def test_everything_is_made_once_and_then_nothing_is_written(served):
    await served.settle()
    assert all(f"apply {child}" in served.api.writes for child in CHILDREN)
    assert served.failures() == 0
    # What pods need is there before the pods.
    assert served.api.writes.index("apply Deployment server") > served.api.writes.index(
        "apply RoleBinding server-agent"
    )
    served.api.writes.clear()
    served.now += timedelta(days=1)
    for record in list(served.context.cache.all(resources.INFERENCE_SERVER)):
        served.context.queue.add(record.key, 0)
    for record in list(served.context.cache.all(resources.MODEL_REPOSITORY)):
        served.context.queue.add(record.key, 0)
    await served.settle()
    assert served.api.writes == []


async def test_a_failure_is_told_and_tried_again(served):
    refused = errors.ApiUnavailableError("the API server is away", retry_after=7)
    served.api.refuse = lambda words: refused if words == "apply Deployment server" else None
    for _ in range(3):
        served.time += 100
        key = await served.context.queue.get()
        await served.engine.handle(key)
        served.context.queue.done(key)
        if key.resource is resources.INFERENCE_SERVER:
            break
    ready = served.condition("InferenceServer", "server")
    assert (ready["status"], ready["reason"]) == ("False", "ApiError")
    assert "the API server is away" in ready["message"]
    assert served.context.queue.failing == 1
    served.api.refuse = lambda _: None
    served.time += 100
    await served.settle()
    assert served.context.queue.failing == 0
    assert served.condition("InferenceServer", "server")["reason"] == "NoModels"


async def test_after_a_long_outage_everything_is_tried_again_soon(served):
    served.api.refuse = lambda _: errors.ApiUnavailableError("the API server is away")
    for _ in range(600):
        await served.tick()
    served.api.refuse = lambda _: None
    for _ in range(40):
        await served.tick()
    assert served.context.queue.failing == 0
    assert served.condition("InferenceServer", "server")["reason"] == "NoModels"


async def test_after_a_fault_in_a_swarm_of_events_the_status_is_right_soon(served):
    """Nothing else wakes a server whose last status write failed: its own wait must be as short as the fault was."""
    await served.settle()
    conflict = errors.ApiConflictError("the object has been modified")
    served.api.refuse = lambda words: conflict if words.startswith("status InferenceServer") else None
    deployment = served.get("Deployment", "server")
    for ready in range(15):
        body = {**deployment, "status": {"replicas": 15, "readyReplicas": ready}}
        served.see(resources.DEPLOYMENT, body)
        await served.tick()
    served.api.refuse = lambda _: None
    for _ in range(20):
        await served.tick()
    assert served.get("InferenceServer", "server")["status"]["readyReplicas"] == 14


async def test_conflicts_are_tried_again_soon_however_long_they_last(served):
    served.api.refuse = lambda words: (
        errors.ApiConflictError("modified") if words == "apply Deployment server" else None
    )
    for _ in range(600):
        await served.tick()
    served.api.refuse = lambda _: None
    for _ in range(40):
        await served.tick()
    assert served.context.queue.failing == 0


async def test_a_conflict_is_told_once_where_it_lasts(served, caplog):
    served.api.refuse = lambda words: (
        errors.ApiConflictError("modified") if words == "apply Deployment server" else None
    )

    def told():
        return [r.getMessage() for r in caplog.records if "modified" in r.getMessage() and r.levelname == "WARNING"]

    for _ in range(5):
        await served.tick()
    assert served.context.queue.failing == 1
    assert told() == []
    for _ in range(600):
        await served.tick()
    (words,) = told()
    assert words.startswith("InferenceServer ns/server: ")


@pytest.mark.parametrize("watch_is_first", [False, True])
async def test_a_failure_in_other_words_each_time_is_not_tried_again_any_sooner(served, watch_is_first):
    words = (f"attempt {number} failed" for number in range(10**6))
    served.api.refuse = lambda asked: (
        errors.ApiUnavailableError(next(words)) if asked == "apply Deployment server" else None
    )
    if watch_is_first:
        served.api.written = served.context.observe
    for _ in range(60):
        await served.tick()
    # After 0.5, 1, 2, 4, 8, 16 and 32 seconds.
    assert 5 <= served.failures(kind="InferenceServer") <= 8
    assert served.condition("InferenceServer", "server")["reason"] == "ApiError"


async def test_a_success_is_not_followed_by_a_second_look(world):
    world.own(resources.GPU_NODE_POOL)
    assert await world.tick() == 1
    assert world.condition("GPUNodePool", "pool")["reason"] == "NoNodes"
    assert await world.tick() == 0


async def test_a_status_that_somebody_else_writes_is_put_right(world):
    world.own(resources.GPU_NODE_POOL)
    await world.settle()
    ours = world.get("GPUNodePool", "pool")
    world.see(resources.GPU_NODE_POOL, {**ours, "status": {**ours["status"], "nodes": 99}})
    await world.settle()
    assert world.get("GPUNodePool", "pool")["status"] == ours["status"]


async def test_a_change_that_the_answer_to_a_status_write_brings_is_acted_upon(world):
    """A user's change reaches the API server while the status is on its way there."""
    world.own(resources.GPU_NODE_POOL)

    def change(words):
        body = world.get("GPUNodePool", "pool")
        if words.startswith("status") and body["metadata"]["generation"] == 1:
            world.api.store({**body, "metadata": {**body["metadata"], "generation": 2}})

    world.api.refuse = change
    await world.settle()
    assert world.get("GPUNodePool", "pool")["status"]["observedGeneration"] == 2


@pytest.mark.parametrize("port", [40123, 55555])
def test_a_failure_is_told_without_the_port_that_differs_each_time(port):
    error = errors.ApiUnavailableError(f"calling webhook: read tcp 10.0.0.1:{port}->10.0.0.2:443: i/o timeout")
    told = apply.problem(error).message
    assert told.endswith("calling webhook: read tcp 10.0.0.1->10.0.0.2:443: i/o timeout")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.ApiRejectedError("spec.x is wrong"), "Rejected"),
        (errors.ApiForbiddenError("cannot create"), "Forbidden"),
        (errors.QuotaExceededError("exceeded quota"), "QuotaExceeded"),
        (errors.AdmissionDeniedError("denied"), "Rejected"),
        (errors.NamespaceNotFoundError("no such namespace"), "NamespaceNotFound"),
        (errors.ApiNotFoundError("no such Role"), "ApiError"),
    ],
)
@pytest.mark.parametrize("child", ["ConfigMap server-desired", "Role server-agent", "RoleBinding server-agent"])
async def test_what_the_api_server_says_reaches_the_status(served, child, error, reason):
    served.api.refuse = lambda words: error if words == f"apply {child}" else None
    key = next(served.context.cache.all(resources.INFERENCE_SERVER)).key
    await served.engine.handle(key)
    ready = served.condition("InferenceServer", "server")
    assert ready["reason"] == reason
    assert str(error) in ready["message"]
    assert f"InferenceServer {reason}" in served.events.told
    # The Deployment waits until what it needs is there; what no pod needs does not.
    assert served.get("Deployment", "server") is None
    assert served.get("Service", "server") is not None


async def test_a_service_that_is_refused_holds_up_nothing_else(served):
    refused = errors.ApiRejectedError("metadata.annotations: Invalid value")
    await served.settle()
    served.api.refuse = lambda words: refused if words == "apply Service server" else None
    change = {"replicas": None, "autoscaling": {"minReplicas": 1, "maxReplicas": 2}}
    served.change(resources.INFERENCE_SERVER, "server", service={"annotations": {"a": "b"}}, **change)
    await served.tick()
    await served.tick()
    assert served.get("HorizontalPodAutoscaler", "server") is not None
    served.change(resources.INFERENCE_SERVER, "server", replicas=2, autoscaling=None)
    await served.tick()
    await served.tick()
    assert served.get("Deployment", "server")["spec"]["replicas"] == 2
    # What is no longer wanted goes all the same.
    assert served.get("HorizontalPodAutoscaler", "server") is None
    assert served.condition("InferenceServer", "server")["reason"] == "Rejected"


async def test_a_fault_of_ours_is_logged_and_nobody_elses(served, caplog):
    served.api.refuse = lambda words: RuntimeError("bug") if words == "apply Service server" else None
    key = next(served.context.cache.all(resources.INFERENCE_SERVER)).key
    await served.engine.handle(key)
    assert "a fault of the operator" in caplog.text
    ready = served.condition("InferenceServer", "server")
    assert (ready["status"], ready["reason"]) == ("False", "OperatorFault")
    assert "RuntimeError: bug" in ready["message"]
    assert served.context.queue.failing == 1
    other = next(served.context.cache.all(resources.MODEL_REPOSITORY)).key
    await served.engine.handle(other)
    assert served.get("Deployment", "models-lister") is not None


async def test_a_fault_that_ends_is_no_longer_told(served):
    served.api.refuse = lambda words: RuntimeError("bug") if words == "apply Service server" else None
    await served.tick()
    assert served.condition("InferenceServer", "server")["reason"] == "OperatorFault"
    # Told once, and tried again no sooner for it.
    assert await served.tick() <= 2
    served.api.refuse = lambda _: None
    served.time += 100
    await served.settle()
    assert served.condition("InferenceServer", "server")["reason"] != "OperatorFault"
    assert served.context.queue.failing == 0


async def test_nothing_is_told_of_a_namespace_that_is_going(served, caplog):
    await served.settle()
    ended = errors.NamespaceTerminatingError("forbidden: it is being terminated")
    served.api.refuse = lambda words: ended if words.startswith("apply") else None
    told = list(served.events.told)
    for kind, resource in (("Service", resources.SERVICE), ("ConfigMap", resources.CONFIG_MAP)):
        for name in ("server", "server-report", "models-listing"):
            if served.get(kind, name) is not None:
                served.remove(resource, name)
    served.api.writes.clear()
    await served.settle()
    assert [w for w in served.api.writes if w.startswith("apply")]
    assert served.context.queue.failing == 0
    assert served.events.told == told
    ours = [r for r in caplog.records if r.name.partition(".")[0] == "gravswell_operator"]
    assert [r for r in ours if r.levelname in ("WARNING", "ERROR")] == []
    assert served.condition("InferenceServer", "server")["reason"] != "Forbidden"


async def test_an_object_that_cannot_be_read_is_told_in_the_same_words_each_time(world):
    key = world.own(resources.INFERENCE_SERVER, {"spec": {"repositoryRef": None}})
    await world.engine.handle(key)
    first = world.condition("InferenceServer", "server")
    world.now += timedelta(days=1)
    await world.engine.handle(key)
    assert world.condition("InferenceServer", "server") == first
    assert first["reason"] == "InvalidSpec"
    assert "spec.repositoryRef: Field required" in first["message"]


async def test_an_object_that_is_suspended_looks_observed_and_says_what_it_said(served):
    await served.settle()
    before = served.get("InferenceServer", "server")["status"]
    served.own(
        resources.INFERENCE_SERVER,
        {"metadata": {"generation": 2}, "spec": {**SERVER["spec"], "suspend": True}, "status": before},
    )
    await served.settle()
    after = served.get("InferenceServer", "server")["status"]
    assert after["observedGeneration"] == 2
    suspended = after["conditions"].pop()
    assert (suspended["type"], suspended["status"], suspended["observedGeneration"]) == ("Suspended", "True", 2)
    assert after == {**before, "observedGeneration": 2}


async def test_what_is_going_is_left_alone(world):
    world.own(resources.MODEL_REPOSITORY)
    key = world.own(resources.INFERENCE_SERVER, SERVER | {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    await world.engine.handle(key)
    assert world.api.writes == []


async def test_an_object_that_vanishes_meanwhile_is_no_failure_and_forgotten(served):
    """Nothing is made for it any more, whatever the watches have missed."""
    gone = errors.ApiNotFoundError("gone")
    served.api.refuse = lambda words: gone if words == "status InferenceServer server" else None
    await served.settle()
    assert served.context.queue.failing == 0
    assert list(served.context.cache.all(resources.INFERENCE_SERVER)) == []
    served.api.writes.clear()
    served.see(resources.SERVICE, served.get("Service", "server"), deleted=True)
    await served.settle()
    assert served.api.writes == []


def _child(kind, name, labels, controller=None):
    owner = [{"uid": controller, "controller": True, "kind": "X", "name": "x"}] if controller else []
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "ns", "labels": labels, "ownerReferences": owner},
    }


OURS = {"app.kubernetes.io/managed-by": "gravswell", "gravswell.dev/server": "server"}


async def test_what_belongs_to_somebody_else_is_not_touched(served):
    theirs = served.api.store(_child("ConfigMap", "server-report", {}))
    key = next(served.context.cache.all(resources.INFERENCE_SERVER)).key
    await served.engine.handle(key)
    assert served.condition("InferenceServer", "server")["reason"] == "NameTaken"
    assert served.get("ConfigMap", "server-report") == theirs


async def test_drift_that_a_watch_brings_before_the_answer_to_our_own_write_is_repaired(served):
    """Somebody writes between our apply and its answer, and their version is what the cache holds by then."""
    await served.settle()
    service = served.get("Service", "server")
    apply = served.api.apply
    drifted = []

    async def apply_and_lose_the_race(resource, manifest, **options):
        answer = await apply(resource, manifest, **options)
        if resource is resources.SERVICE and manifest["metadata"]["name"] == "server" and not drifted:
            drifted.append({**answer, "spec": {**answer["spec"], "selector": {"nobody": "has this"}}})
            served.see(resources.SERVICE, drifted[0])
        return answer

    served.api.apply = apply_and_lose_the_race
    served.see(resources.SERVICE, {**service, "spec": {**service["spec"], "type": "NodePort"}})
    await served.settle()
    assert drifted
    assert served.get("Service", "server")["spec"] == service["spec"]


async def test_a_new_child_is_one_request(served):
    asked = []
    served.api.refuse = asked.append
    await served.settle()
    children = [words for words in asked if "InferenceServer" not in words and "ModelRepository" not in words]
    assert len(children) == len(set(children)), "each child is applied once, and none is asked for before"


async def test_a_child_that_no_watch_has_shown_is_applied_all_the_same(served):
    """As after a create whose answer was lost."""
    served.api.store(_child("ConfigMap", "server-report", OURS, controller="uid-InferenceServer-server"))
    await served.settle()
    assert served.condition("InferenceServer", "server")["reason"] != "NameTaken"
    assert "gravswell.dev/desired-digest" in served.get("ConfigMap", "server-report")["metadata"]["annotations"]


async def test_what_was_orphaned_on_purpose_is_adopted(served):
    served.see(resources.CONFIG_MAP, _child("ConfigMap", "server-report", OURS))
    await served.settle()
    references = served.get("ConfigMap", "server-report")["metadata"]["ownerReferences"]
    assert [r["uid"] for r in references] == ["uid-InferenceServer-server"]


async def test_children_of_a_former_owner_are_waited_for(served):
    former = _child("ConfigMap", "server-report", OURS, controller="former")
    served.see(resources.CONFIG_MAP, former)
    key = next(served.context.cache.all(resources.INFERENCE_SERVER)).key
    await served.engine.handle(key)
    ready = served.condition("InferenceServer", "server")
    assert ready["reason"] == "Starting"
    assert "of a former InferenceServer ns/server" in ready["message"]
    served.see(resources.CONFIG_MAP, former, deleted=True)
    await served.settle()
    assert served.get("Deployment", "server") is not None


async def test_what_is_wanted_no_more_is_deleted(world):
    world.own(resources.MODEL_REPOSITORY)
    scaled = {
        "spec": {"nodePoolRef": None, "gpus": 0, "replicas": None, "autoscaling": {"minReplicas": 1, "maxReplicas": 2}}
    }
    world.own(resources.INFERENCE_SERVER, scaled)
    await world.settle()
    assert "replicas" not in world.get("Deployment", "server")["spec"]
    assert world.get("HorizontalPodAutoscaler", "server") is not None
    world.own(resources.INFERENCE_SERVER, {**SERVER, "metadata": {"generation": 2}})
    await world.settle()
    assert world.get("HorizontalPodAutoscaler", "server") is None
    assert world.get("Deployment", "server")["spec"]["replicas"] == 1


async def test_replicas_are_handed_over_before_they_are_let_go(served):
    await served.settle()
    served.api.writes.clear()
    scaled = {
        "metadata": {"generation": 2},
        "spec": {"nodePoolRef": None, "gpus": 0, "replicas": None, "autoscaling": {"minReplicas": 2, "maxReplicas": 4}},
    }
    served.own(resources.INFERENCE_SERVER, scaled)
    await served.settle()
    handed = served.api.writes.index("apply as gravswell-autoscaling Deployment server")
    assert handed < served.api.writes.index("apply Deployment server")
    assert served.api.writes.count("apply as gravswell-autoscaling Deployment server") == 1


async def test_an_autoscaled_server_that_somebody_scales_to_none_wakes(served):
    """An autoscaler leaves a Deployment of none alone."""
    bounds = {"minReplicas": 2, "maxReplicas": 4}
    served.change(resources.INFERENCE_SERVER, "server", replicas=None, autoscaling=bounds)
    await served.settle()
    assert served.get("HorizontalPodAutoscaler", "server") is not None
    for replicas, handed in ((3, 0), (0, 1)):
        deployment = served.get("Deployment", "server")
        served.see(resources.DEPLOYMENT, {**deployment, "spec": {**deployment["spec"], "replicas": replicas}})
        served.api.writes.clear()
        await served.settle()
        assert served.api.writes.count("apply as gravswell-autoscaling Deployment server") == handed


@pytest.mark.parametrize(("paused", "handed"), [("False", 1), ("True", 0)])
async def test_who_pauses_keda_at_none_is_not_fought(served, paused, handed):
    served.context.optional[resources.SCALED_OBJECT] = None
    bounds = {"minReplicas": 2, "maxReplicas": 4, "keda": {}}
    served.change(resources.INFERENCE_SERVER, "server", replicas=None, autoscaling=bounds)
    await served.settle()
    scaled, deployment = served.get("ScaledObject", "server"), served.get("Deployment", "server")
    status = {"conditions": [{"type": "Paused", "status": paused}]}
    served.see(resources.SCALED_OBJECT, {**scaled, "status": status})
    served.see(resources.DEPLOYMENT, {**deployment, "spec": {**deployment["spec"], "replicas": 0}})
    served.api.writes.clear()
    await served.settle()
    assert served.api.writes.count("apply as gravswell-autoscaling Deployment server") == handed


async def test_the_report_of_a_pod_that_is_gone_is_forgotten_and_that_of_a_new_one_kept(served):
    await served.settle()
    report = served.get("ConfigMap", "server-report")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "new", "namespace": "ns", "labels": OURS}}
    served.api.store(pod)  # there, but no watch has said so yet
    served.see(resources.CONFIG_MAP, {**report, "data": {"new": "{}", "gone": "{}"}})
    await served.settle()
    assert served.get("ConfigMap", "server-report")["data"] == {"new": "{}"}


async def test_the_time_of_a_condition_moves_only_with_it(served):
    await served.settle()
    before = served.condition("InferenceServer", "server", "RepositoryResolved")
    served.now += timedelta(hours=1)
    repository = next(served.context.cache.all(resources.MODEL_REPOSITORY))
    served.see(resources.MODEL_REPOSITORY, served.get("ModelRepository", repository.key.name), deleted=True)
    await served.settle()
    after = served.condition("InferenceServer", "server", "RepositoryResolved")
    assert (before["status"], after["status"]) == ("True", "False")
    assert after["lastTransitionTime"] == "2026-01-01T01:00:00Z"
    assert served.condition("InferenceServer", "server", "Available")["lastTransitionTime"] == "2026-01-01T00:00:00Z"
