"""How a bucket's credentials reach what reads it, and nothing else in the pods."""

import json

import pytest

from gravswell_operator.api import InferenceServer, ModelRepository
from gravswell_operator.desired.objects import Options
from gravswell_operator.plan import plan

READERS = ("lister", "agent")
SECRET = {"credentialsSecretRef": {"name": "bucket-keys"}}
IDENTITY = {"serviceAccountName": "reader"}
KEPT_FROM_TRITON = {
    "eks.amazonaws.com/skip-containers": "triton,key",
    "azure.workload.identity/skip-containers": "triton;key",
}


def templates(url, template=None, **repository):
    """The pod templates of the lister and of a server."""
    spec = {"url": url, **repository}
    server = {"repositoryRef": {"name": "models"}, "tag": "24.08", "replicas": 1, "models": "All"}
    resources = [
        ModelRepository.model_validate({"metadata": {"name": "models", "namespace": "n"}, "spec": spec}),
        InferenceServer.model_validate(
            {"metadata": {"name": "server", "namespace": "n"}, "spec": {**server, "podTemplate": template or {}}}
        ),
    ]
    made = [m for p in plan(resources, Options(image="registry.example/gravswell:1")).objects for m in p.children]
    return [manifest["spec"]["template"] for manifest in made if manifest["kind"] == "Deployment"]


def containers(*args, **options):
    specs = [template["spec"] for template in templates(*args, **options)]
    return {c["name"]: c for spec in specs for c in (*spec.get("initContainers", ()), *spec["containers"])}


def variables(container):
    """What each variable of the container comes from: its value, or the key of the Secret."""
    found = {}
    for variable in container.get("env", ()):
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference is not None:
            assert (reference["name"], reference["optional"]) == ("bucket-keys", True)
            found[variable["name"]] = f"key {reference['key']}"
        elif "value" in variable:
            found[variable["name"]] = variable["value"]
    found.pop("TMPDIR", None)
    return found


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "gs://bucket/zoo",
            {
                "STORAGE_EMULATOR_HOST": "key endpoint",
                "GOOGLE_APPLICATION_CREDENTIALS": "/run/gravswell-credentials/credentials.json",
            },
        ),
        ("s3://bucket/zoo", {"AWS_ENDPOINT_URL": "key endpoint", "AWS_REGION": "key region"}),
        ("az://container/zoo", {"AZURE_STORAGE_ENDPOINT": "key endpoint"}),
        ("pvc://claim/zoo", {}),
        ("file:///srv/zoo", {}),
    ],
)
def test_the_secret_s_keys_reach_each_library_under_its_own_names(url, expected):
    found = containers(url, **SECRET)
    for name in READERS:
        assert variables(found[name]) == expected
        assert found[name]["envFrom"] == [{"secretRef": {"name": "bucket-keys"}}]  # demanded: without it nothing starts


def test_a_key_file_is_a_file_of_the_readers_alone():
    for template in templates("gs://bucket", **SECRET):
        (volume,) = [volume for volume in template["spec"]["volumes"] if volume["name"] == "credentials"]
        assert volume["secret"] == {
            "secretName": "bucket-keys",
            "items": [{"key": "credentials.json", "path": "credentials.json"}],
            "defaultMode": 0o440,
            "optional": True,  # an emulator's Secret has none
        }
    found = containers("gs://bucket", **SECRET)
    mounted = {name for name, c in found.items() if any(m["name"] == "credentials" for m in c["volumeMounts"])}
    assert mounted == set(READERS)
    for url in ("s3://bucket", "az://container", "pvc://claim/zoo"):
        assert not [t for t in templates(url, **SECRET) if "credentials" in {v["name"] for v in t["spec"]["volumes"]}]


@pytest.mark.parametrize("url", ["gs://bucket", "s3://bucket", "az://container"])
def test_neither_triton_nor_what_makes_its_key_hears_of_the_secret(url):
    found = containers(url, **SECRET)
    assert {name for name, container in found.items() if "bucket-keys" in json.dumps(container)} == set(READERS)


@pytest.mark.parametrize(
    ("url", "said", "expected"),
    [
        ("gs://bucket", {}, {}),
        ("s3://bucket", {}, {}),
        ("s3://bucket", {"region": "eu-west-3"}, {"AWS_REGION": "eu-west-3"}),
        ("az://container", {"storageAccount": "lab"}, {"AZURE_STORAGE_ACCOUNT": "lab"}),
    ],
)
def test_without_a_secret_nothing_is_set_but_what_the_repository_says(url, said, expected):
    """Whatever else was set would hide the identity of the nodes or of the ServiceAccount."""
    for who in ({}, IDENTITY):
        found = containers(url, **said, **who)
        for name in READERS:
            assert variables(found[name]) == expected
            assert "envFrom" not in found[name]


@pytest.mark.parametrize(
    ("url", "said", "expected"),
    [
        ("s3://bucket", {"region": "eu-west-3"}, {"AWS_ENDPOINT_URL": "key endpoint", "AWS_REGION": "eu-west-3"}),
        (
            "az://container",
            {"storageAccount": "lab"},
            {"AZURE_STORAGE_ENDPOINT": "key endpoint", "AZURE_STORAGE_ACCOUNT": "lab"},
        ),
    ],
)
def test_what_the_repository_says_goes_before_the_secret_and_is_said_once(url, said, expected):
    found = containers(url, **said, **SECRET)
    for name in READERS:
        assert variables(found[name]) == expected
        assert len({variable["name"] for variable in found[name]["env"]}) == len(found[name]["env"])


def test_azure_s_identity_is_asked_for_by_a_label_and_kept_from_triton():
    lister, server = templates("az://container", storageAccount="lab", template={"labels": {"a": "b"}}, **IDENTITY)
    for template in (lister, server):
        assert template["spec"]["serviceAccountName"] == "reader"
        assert template["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert server["metadata"]["labels"]["a"] == "b"
    assert server["metadata"]["annotations"] == KEPT_FROM_TRITON


@pytest.mark.parametrize("url", ["s3://bucket", "gs://bucket", "az://container", "pvc://claim/zoo", "file:///srv/zoo"])
def test_an_identity_is_kept_from_triton_whatever_the_url_and_the_template_say(url):
    """The account may have an identity of any cloud, and Triton's image is the user's."""
    said = {"storageAccount": "lab"} if url.startswith("az") else {}
    annotations = {"a": "b", **dict.fromkeys(KEPT_FROM_TRITON, "")}
    lister, server = templates(url, template={"annotations": annotations}, **said, **IDENTITY)
    assert "annotations" not in lister["metadata"]
    assert server["metadata"]["annotations"] == {"a": "b", **KEPT_FROM_TRITON}


@pytest.mark.parametrize("url", ["s3://bucket", "az://container", "gs://bucket"])
def test_who_has_a_secret_wants_no_identity(url):
    for template in templates(url, **SECRET):
        assert "annotations" not in template["metadata"]
        assert "azure.workload.identity/use" not in template["metadata"]["labels"]
