"""The whole way of one server, on a real API server with real controllers: up, changed, scaled, repaired, gone."""

import json
import time

import pytest

from gravswell.serving.contracts import DESIRED_KEY, Desired, ModelState

from ..operating import conditions

KINDS = (
    "deployments,services,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets,"
    "horizontalpodautoscalers,daemonsets,inferenceservers,models,modelrepositories"
)
QUIET_SECONDS = 1.5
OURS = "app.kubernetes.io/managed-by=gravswell"


@pytest.fixture
def serving(world):
    """A pool, a repository with version 1, a server and a Model, all Ready."""
    world.make_pool()
    world.make_repository()
    world.make_server(nodePoolRef={"name": world.pool}, gpus=1)
    world.make_model()
    world.until(lambda: world.get("deployment", "models-lister"))
    world.until(lambda: world.get("deployment", "models-lister")["status"].get("readyReplicas"))  # then it may list
    world.publish(1)
    world.condition("inferenceserver", "server", status="True")
    for pod in world.pods():
        world.report(pod, 1)
    world.condition("model", "digits", status="True")
    world.condition("inferenceserver", "server", "ModelsLoaded", status="True")  # it reads the reports by itself
    return world


def desired(world) -> Desired:
    return Desired.model_validate_json(world.get("configmap", "server-desired")["data"][DESIRED_KEY])


def versions(world) -> dict[str, str]:
    """The resource version of everything in the namespace."""
    return {f"{o['kind']}/{o['metadata']['name']}": o["metadata"]["resourceVersion"] for o in world.objects(KINDS)}


def at_rest(world, operator) -> dict[str, str]:
    """Of what :func:`versions` says, the one that stays: nobody has anything to do any more."""

    def same() -> dict[str, str] | None:
        before = versions(world)
        time.sleep(QUIET_SECONDS)
        return before if versions(world) == before and operator.metric("gravswell_queue_length") == 0 else None

    return world.until(same)


def test_everything_becomes_ready_and_says_so(serving):
    world = serving
    pool = world.condition("gpunodepool", world.pool, status="True", reason="NodesReady")
    assert "3 ready nodes: 24 Simulated-GPU GPUs" in pool["message"]
    assert world.condition("modelrepository", "models", status="True")["reason"] == "Listed"
    server = world.get("inferenceserver", "server")["status"]
    assert (server["replicas"], server["readyReplicas"], server["simulatedGPUs"]) == (1, 1, True)
    assert server["address"] == f"server.{world.namespace}.svc:8001"
    assert server["httpAddress"] == f"server-headless.{world.namespace}.svc:8000"
    assert server["models"] == [{"name": "digits", "version": 1, "replicas": 1}]
    model = world.get("model", "digits")["status"]
    assert (model["desiredVersion"], model["loadedVersion"]) == (1, 1)
    assert model["replicas"][0]["state"] == "Serving"
    assert world.condition("model", "digits", "Verified", status="True")["reason"] == "GoldenReproduced"


def test_a_pod_is_what_was_asked_for(serving):
    world = serving
    (pod,) = world.objects("pods", selector="gravswell.dev/server=server")
    triton, agent = pod["spec"]["containers"]
    assert triton["image"] == "nvcr.io/nvidia/tritonserver:24.08-py3"
    assert triton["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "/run/gravswell/key" in triton["args"][0]
    assert pod["spec"]["nodeSelector"]["type"] == "kwok"
    assert not any("serviceaccount" in mount["mountPath"] for mount in triton["volumeMounts"])
    assert any("serviceaccount" in mount["mountPath"] for mount in agent["volumeMounts"])


def test_the_agents_may_do_what_they_need_and_nothing_else(serving):
    world = serving
    account = f"system:serviceaccount:{world.namespace}:server-agent"

    def may(verb, what, name="") -> bool:
        target = f"{what}/{name}" if name else what
        answer = world.kubectl("auth", "can-i", verb, target, f"--as={account}", check=False)
        return answer.strip() == "yes"

    assert may("get", "configmaps", "server-desired")
    assert may("watch", "configmaps", "server-desired")
    assert may("patch", "configmaps", "server-report")
    assert not may("patch", "configmaps", "server-desired")
    assert not may("get", "configmaps", "models-listing")
    assert not may("list", "configmaps")
    assert not may("get", "secrets", "any")


def test_events_tell_the_story(serving, operator):
    world = serving
    story = {("InferenceServer", "Serving"), ("Model", "GoldenReproduced"), ("ModelRepository", "Listed")}

    def ours():
        events = json.loads(world.kubectl("get", "events.events.k8s.io", "-o", "json"))["items"]
        return [e for e in events if e.get("reportingController") == "gravswell.dev/operator"]

    world.until(lambda: story <= {(e["regarding"]["kind"], e["reason"]) for e in ours()})  # told after the status is
    # Nothing went wrong, so nobody is warned.
    assert [e["note"] for e in ours() if e["type"] == "Warning"] == []
    lines = [line for line in operator.log.read_text().splitlines() if world.namespace in line]
    assert [line for line in lines if " INFO " not in line] == []


def test_a_published_version_rolls_out_and_back(serving):
    world = serving
    (pod,) = world.pods()
    world.publish(1, 2)
    loading = world.condition("model", "digits", status="False", reason="Loading")
    assert "version 2 serves on 0 of 1 replica" in loading["message"]
    # The server resolves by itself, perhaps after its Model has.
    world.until(lambda: [(m.version, m.digest) for m in desired(world).models] == [(2, f"{2:064x}")])
    world.report(pod, 2)
    world.condition("model", "digits", status="True")
    world.make_model(version=1)
    world.condition("model", "digits", reason="Loading")
    world.until(lambda: [m.version for m in desired(world).models] == [1])
    # Not one pod was replaced for it.
    assert world.pods() == [pod]


def test_a_new_url_is_not_ready_before_it_is_listed(serving):
    world, elsewhere = serving, "file:///srv/other"
    before = world.get("deployment", "server")["spec"]
    world.make_repository(url=elsewhere)
    accessible = world.condition("modelrepository", "models", "Accessible", status="Unknown", reason="NotListedYet")
    assert elsewhere in accessible["message"]
    world.condition("modelrepository", "models", status="False")
    world.until(lambda: elsewhere in conditions(world.get("inferenceserver", "server"))["Ready"]["message"])
    assert desired(world).repository == "file:///srv/models"
    assert world.get("deployment", "server")["spec"] == before
    world.publish(1, 2, url=elsewhere)
    world.condition("modelrepository", "models", status="True")
    world.until(lambda: (desired(world).repository, desired(world).models[0].version) == (elsewhere, 2))
    world.until(lambda: elsewhere in json.dumps(world.get("deployment", "server")))
    world.until(lambda: conditions(world.get("inferenceserver", "server"))["Ready"]["status"] == "True")


def test_a_new_url_that_lacks_what_is_served_costs_no_replica(serving):
    world, elsewhere = serving, "file:///srv/other"
    before, pods = world.get("deployment", "server")["spec"], world.pods()
    world.make_repository(url=elsewhere)
    world.publish(url=elsewhere)
    ready = world.condition("inferenceserver", "server", status="False", reason="ModelsUnresolved")
    assert "digits: ModelRepository models has no published version of digits" in ready["message"]
    assert "The server stays on file:///srv/models" in ready["message"]
    assert "version 1 stays meanwhile" in world.condition("model", "digits", reason="EntryNotFound")["message"]
    assert desired(world).repository == "file:///srv/models"
    assert (world.get("deployment", "server")["spec"], world.pods()) == (before, pods)
    world.publish(1, 2, url=elsewhere)
    world.until(lambda: (desired(world).repository, desired(world).models[0].version) == (elsewhere, 2))
    world.until(lambda: not set(pods) & set(world.pods()))
    world.condition("inferenceserver", "server", status="True")


def test_a_version_that_fails_is_told_with_the_agents_words_while_the_old_one_serves(serving):
    world = serving
    (pod,) = world.pods()
    world.publish(1, 2)
    world.report(pod, 1, 2, state=ModelState.FAILED, reason="HashMismatch", message="model.onnx differs")
    ready = world.condition("model", "digits", status="False", reason="HashMismatch")
    assert f"pod {pod}: model.onnx differs; version 1 still serves there" in ready["message"]
    assert world.condition("inferenceserver", "server")["status"] == "True"


def test_scaling_through_the_scale_subresource(serving):
    world = serving
    world.kubectl("scale", "inferenceserver", "server", "--replicas=2")
    world.condition("inferenceserver", "server", status="True")
    status = world.get("inferenceserver", "server")["status"]
    assert (status["replicas"], status["readyReplicas"]) == (2, 2)
    scale = json.loads(
        world.kubectl(
            "get", "--raw", f"/apis/gravswell.dev/v1alpha1/namespaces/{world.namespace}/inferenceservers/server/scale"
        )
    )
    assert scale["status"]["replicas"] == 2
    assert len(world.objects("pods", selector=scale["status"]["selector"])) == 2
    for pod in world.pods():
        world.report(pod, 1)
    world.until(lambda: "2 of 2 replicas" in world.condition("model", "digits", status="True")["message"])
    world.kubectl("scale", "inferenceserver", "server", "--replicas=0")
    world.condition("inferenceserver", "server", status="True", reason="ScaledToZero")
    world.condition("model", "digits", status="False", reason="NoReplicas")
    # What pods that are gone have said is forgotten.
    world.until(lambda: not world.get("configmap", "server-report").get("data"))


def test_a_restart_changes_nothing(serving, operator):
    world = serving
    before = at_rest(world, operator)
    operator.restart()
    world.until(lambda: operator.metric("gravswell_queue_length") == 0)
    for kind in ("Deployment", "Service", "ConfigMap", "Role", "RoleBinding", "ServiceAccount", "PodDisruptionBudget"):
        for verb in ("patch", "create", "delete"):
            assert operator.metric("gravswell_api_requests_total", kind=kind, verb=verb) == 0
    assert versions(world) == before


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        ("deployment", "server", {"spec": {"replicas": 5}}),
        ("deployment", "server", {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 600}}}}),
        ("service", "server-headless", {"metadata": {"labels": {"app.kubernetes.io/name": "other"}}}),
        ("role", "server-agent", {"rules": []}),
        ("configmap", "server-desired", {"data": {"desired.json": "{}"}}),
        ("poddisruptionbudget", "server", {"spec": {"maxUnavailable": 3}}),
    ],
)
def test_drift_is_repaired(serving, kind, name, change):
    world = serving
    before = world.get(kind, name)
    world.patch(kind, name, change)
    world.until(lambda: _owned(world.get(kind, name)) == _owned(before))


@pytest.mark.parametrize(
    ("kind", "name"), [("service", "server"), ("rolebinding", "server-agent"), ("configmap", "server-desired")]
)
def test_what_somebody_deleted_comes_back(serving, kind, name):
    world = serving
    uid = world.get(kind, name)["metadata"]["uid"]
    world.kubectl("delete", kind, name)
    world.until(lambda: (world.get(kind, name) or {"metadata": {"uid": uid}})["metadata"]["uid"] != uid)


def _owned(body):
    """What the operator says of an object; the rest is the server's."""
    spec = {k: v for k, v in (body.get("spec") or {}).items() if k not in ("clusterIP", "clusterIPs")}
    return (body["metadata"]["labels"], spec, body.get("data"), body.get("rules"))


def test_deletion_leaves_nothing(serving):
    world = serving
    world.kubectl("delete", "isrv,mdl,mr", "--all", "--timeout=60s")
    world.kubectl("delete", "gpunodepool", world.pool, "--timeout=60s")
    world.until(lambda: not world.objects(KINDS, "pods", selector=OURS))
