"""``credentialsSecretRef``: the Secret's values reach what reads the repository, and nothing else."""

import base64
import json

import pytest

from ..operating import ACCOUNT as OPERATOR

SECRET = "bucket-keys"
KEY, FIRST, SECOND = "AWS_SECRET_ACCESS_KEY", "first-value", "second-value"
READERS = (("lister", "lister"), ("triton", "agent"))
"""By role of the pod, the container that reads the repository."""


def write_secret(place, value):
    data = {KEY: base64.b64encode(value.encode()).decode(), "AWS_REGION": base64.b64encode(b"here").decode()}
    place.create("v1", "Secret", SECRET, data=data)


@pytest.fixture(scope="module")
def serving(place):
    """A server whose Secret appears after everything else, all Ready; and what was said before it appeared."""
    place.make_repository(credentialsSecretRef={"name": SECRET})
    place.make_server()
    place.make_model()
    said = [
        place.condition("modelrepository", "models", status="False", reason="CredentialsNotFound"),
        place.condition("inferenceserver", "server", status="False", reason="ContainerConfigError"),
    ]
    write_secret(place, FIRST)
    place.until_serving(1)
    return place, said


def test_a_missing_secret_is_named_and_repaired_when_it_appears(serving):
    place, said = serving
    for condition in said:
        assert f'secret "{SECRET}" not found' in condition["message"]
    assert "credentialsSecretRef" in said[0]["message"]
    assert place.answer() == 1.0


@pytest.mark.parametrize(("role", "container"), READERS)
def test_what_reads_the_repository_has_the_values(serving, role, container):
    place, _ = serving
    first, *_ = place.environments(place.pod(role), container)
    assert (first[KEY], first["AWS_REGION"]) == (FIRST, "here")


def test_triton_and_what_makes_its_key_have_not(serving):
    place, _ = serving
    pod = place.pod()
    assert all(KEY not in environment for environment in place.environments(pod, "triton"))
    containers = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    assert [c["name"] for c in containers if SECRET in json.dumps(c)] == ["agent"]
    assert SECRET not in json.dumps(pod["spec"]["volumes"])


@pytest.mark.parametrize("verb", ["get", "list", "watch"])
def test_the_operator_may_not_read_it(serving, verb):
    place, _ = serving
    may = place.kubectl("auth", "can-i", verb, f"secrets/{SECRET}", f"--as={OPERATOR}", check=False)
    assert may.strip() == "no"


def test_a_secret_that_changes_reaches_the_pods_when_they_are_restarted(serving, operator):
    """What a user restarts is restarted, and stays so: the operator takes it for no drift."""
    place, _ = serving
    before = {role: place.pod(role)["metadata"]["uid"] for role, _ in READERS}
    write_secret(place, SECOND)
    place.patch("modelrepository", "models", {"metadata": {"annotations": {"look": "again"}}})
    place.until(lambda: operator.metric("gravswell_queue_length") == 0)
    assert {role: place.pod(role)["metadata"]["uid"] for role, _ in READERS} == before

    place.kubectl("rollout", "restart", "deployment/models-lister", "deployment/server")
    for name in ("models-lister", "server"):
        place.kubectl("rollout", "status", f"deployment/{name}", "--timeout=90s")
    place.until_serving(1)
    for role, container in READERS:
        pod = place.pod(role)
        assert pod["metadata"]["uid"] != before[role]
        assert place.environments(pod, container)[0][KEY] == SECOND


def test_another_secret_replaces_the_pods(serving):
    place, _ = serving
    before = [place.pod(role)["metadata"]["uid"] for role, _ in READERS]
    place.create("v1", "Secret", "keys-of-tomorrow", data={KEY: base64.b64encode(b"third").decode()})
    place.make_repository(credentialsSecretRef={"name": "keys-of-tomorrow"})
    place.until(lambda: place.replaced(*before))
    place.until_serving(1)
    for role, container in READERS:
        assert place.environments(place.pod(role), container)[0][KEY] == "third"
