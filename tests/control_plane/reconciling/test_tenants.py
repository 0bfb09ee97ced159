"""A tenant who may write our kinds in one namespace and nothing else: what he reaches through them, and what not.

The API server decides by the chart's own role for users. What he makes beside our kinds, where he may, is in
``test_forgeries.py``. ``docs/security.md`` says what follows from it; ``tests/desired/test_hostile_fields.py`` tries
texts by the thousand.
"""

import json

import pytest

from gravswell.errors import GravswellError
from gravswell_operator.api import KINDS
from gravswell_operator.api.crd import schema

from .tenants import KINDS_MADE, neighbour, server, tenant, thing, written

__all__ = ["neighbour", "tenant"]

# What his rights are.


def test_a_tenant_has_our_kinds_in_his_namespace_and_nothing_else(tenant, neighbour):
    assert tenant.himself.admit(tenant.namespace, server())
    pool = {"provider": {"type": "Static", "static": {"matchLabels": {"a": "b"}}}}
    for body in (
        thing("GPUNodePool", **pool, accelerator={"type": "t4", "count": 1}),
        thing("Pod", api_version="v1", containers=[{"name": "a", "image": "a"}]),
        thing("ServiceAccount", api_version="v1"),
        {**thing("RoleBinding", api_version="rbac.authorization.k8s.io/v1"), "roleRef": {"kind": "Role", "name": "a"}},
    ):
        assert "forbidden" in tenant.refused(body)
    assert "forbidden" in tenant.refused(server(), neighbour.namespace)
    for kind, name in (("secret", "keys"), ("configmap", "theirs-desired"), ("inferenceserver", "theirs")):
        with pytest.raises(GravswellError, match="forbidden"):
            tenant.himself.get(kind, neighbour.namespace, name)
    with pytest.raises(GravswellError, match="forbidden"):
        tenant.himself.patch("inferenceserver", tenant.namespace, "server", {"status": {}}, subresource="status")


# References.


def _fields(node, path=()):
    for name, below in node.get("properties", {}).items():
        yield (*path, name)
        yield from _fields(below, (*path, name))
    if "items" in node:
        yield from _fields(node["items"], path)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.NAMES.scope == "Namespaced"], ids=lambda kind: kind.NAMES.kind
)
def test_no_field_names_a_namespace(kind):
    """So a reference can only be of the object's own namespace; but for a Gateway, which says whose routes it takes."""
    fields = list(_fields(schema(kind)["properties"]["spec"]))
    gates = {("service", "gateway", protocol, "parentRefs", "namespace") for protocol in ("http", "grpc")}
    assert {field for field in fields if "namespace" in field[-1].lower()} <= gates


CACHE = {"type": "PersistentVolumeClaim", "persistentVolumeClaim": {"claimName": "?"}}
REFERENCES = {
    "credentialsSecretRef": thing("ModelRepository", url="s3://zoo", credentialsSecretRef={"name": "?"}),
    "serviceAccountName": thing("ModelRepository", url="s3://zoo", serviceAccountName="?"),
    "repositoryRef": server(repositoryRef={"name": "?"}),
    "nodePoolRef": server(nodePoolRef={"name": "?"}),
    "claimName": server(cache=CACHE),
    "imagePullSecrets": server(podTemplate={"imagePullSecrets": [{"name": "?"}]}),
    "priorityClassName": server(podTemplate={"priorityClassName": "?"}),
    "serverRef": thing("Model", serverRef={"name": "?"}, entry="digits"),
}


@pytest.mark.parametrize("field", REFERENCES)
def test_a_reference_is_a_name_and_no_path(tenant, neighbour, field):
    for name in (
        "{0}/keys",
        "../{0}/keys",
        "{0}:keys",
        "{0}%2Fkeys",
        "/{0}",
        "$(POD_NAMESPACE)",
        "a\\nb",
        "",
        "k" * 300,
    ):
        body = json.loads(json.dumps(REFERENCES[field]).replace("?", name.format(neighbour.namespace)))
        assert field in tenant.refused(body), name


@pytest.mark.parametrize("field", [field for field, body in REFERENCES.items() if '{"name": "?"}' in json.dumps(body)])
def test_a_namespace_beside_a_name_is_no_field(tenant, neighbour, field):
    """Strictly it is an error; for a client that does not ask for that it is dropped; the name is one of his own."""
    beside = json.dumps({"name": "theirs", "namespace": neighbour.namespace})
    body = json.loads(json.dumps(REFERENCES[field]).replace('{"name": "?"}', beside))
    assert "unknown field" in tenant.refused(body)
    assert neighbour.namespace not in json.dumps(tenant.stored(body))


def test_the_names_of_a_neighbour_s_objects_are_nobody_s_here(tenant, neighbour):
    before = written(neighbour)
    tenant.make_server("theirs", repositoryRef={"name": "theirs"})
    tenant.make_model("theirs", serverRef={"name": "theirs"})
    ready = tenant.condition("inferenceserver", "theirs", status="False", reason="RepositoryNotFound")
    assert f"there is no ModelRepository theirs in namespace {tenant.namespace}" in ready["message"]
    assert written(tenant) == {}
    # With a repository of that name here, all that follows is made here, and asks for what is here.
    tenant.make_repository("theirs", url="s3://zoo", credentialsSecretRef={"name": "keys"})
    tenant.until(lambda: tenant.get("deployment", "theirs"))
    tenant.until(lambda: tenant.get("networkpolicy", "theirs-lister"))
    owners = {tenant.get(kind, "theirs")["metadata"]["uid"] for kind in ("inferenceserver", "modelrepository")}
    everywhere = json.loads(tenant.cluster.kubectl("get", KINDS_MADE, "-A", "-o", "json"))["items"]
    made = [o for o in everywhere if owners & {r["uid"] for r in o["metadata"].get("ownerReferences", ())}]
    assert {o["metadata"]["namespace"] for o in made} == {tenant.namespace}
    subjects = [(s["kind"], s["namespace"]) for o in made for s in o.get("subjects", ())]
    assert set(subjects) == {("ServiceAccount", tenant.namespace)}
    assert neighbour.namespace not in json.dumps(made)
    assert written(neighbour) == before


def test_a_pool_of_others_is_not_to_be_had(tenant, neighbour):
    neighbour.make_pool(allowedNamespaces=[neighbour.namespace])
    tenant.make_repository()
    tenant.make_server(nodePoolRef={"name": neighbour.pool}, gpus=1)
    ready = tenant.condition("inferenceserver", "server", status="False", reason="NodePoolNotAllowed")
    assert f"allows the namespaces {neighbour.namespace} and not {tenant.namespace}" in ready["message"]
    assert tenant.get("deployment", "server") is None
    neighbour.delete("gpunodepool", neighbour.pool)


# The pods' template.

OVERLAYS = {
    "account": {"serviceAccountName": "default"},
    "account by its old name": {"serviceAccount": "default"},
    "token": {"automountServiceAccountToken": True},
    "host path": {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
    "secret": {"volumes": [{"name": "keys", "secret": {"secretName": "keys"}}]},
    "projected token": {"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
    "mounts": {"volumeMounts": [{"name": "token", "mountPath": "/token"}]},
    "host network": {"hostNetwork": True},
    "host processes": {"hostPID": True},
    "shared processes": {"shareProcessNamespace": True},
    "root": {"securityContext": {"runAsUser": 0}},
    "containers": {"containers": [{"name": "agent", "image": "mine"}]},
    "init containers": {"initContainers": [{"name": "first", "image": "mine"}]},
    "node": {"nodeName": "plain"},
    "readiness gates": {"readinessGates": [{"conditionType": "gravswell.dev/all-ranks-ready"}]},
    "runtime": {"runtimeClassName": "unconfined"},
    "affinity": {"affinity": {"nodeAffinity": {}}},
    "hosts": {"hostAliases": [{"ip": "127.0.0.1", "hostnames": ["kubernetes.default"]}]},
    "scheduler": {"schedulerName": "mine"},
    "resource claims": {"resourceClaims": [{"name": "gpu", "resourceClaimName": "theirs"}]},
    "a Secret as environment": {"envFrom": [{"secretRef": {"name": "keys"}}]},
    "a variable of a Secret": {
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "AWS_SECRET_ACCESS_KEY"}}}]
    },
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pod_template_is_an_allow_list(tenant, overlay):
    """Strictly what is not on it is an error; for a client that does not ask for that it is dropped."""
    body = server(podTemplate=OVERLAYS[overlay])
    assert "unknown field" in tenant.refused(body)
    left = tenant.stored(body)["podTemplate"]
    assert left in ({}, {"env": [{"name": "A", "value": ""}]}), left


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"podTemplate": {"labels": {"gravswell.dev/server": "theirs"}}}, "by these the operator finds its pods"),
        (
            {"podTemplate": {"annotations": {"container.apparmor.security.beta.kubernetes.io/triton": "unconfined"}}},
            "the operator sets the pods' security context",
        ),
        # The kubelet would replace what the shell is to run, had a variable this name.
        ({"podTemplate": {"env": [{"name": "cat /run/gravswell/key", "value": "x"}]}}, "spec.podTemplate.env"),
        ({"podTemplate": {"env": [{"name": "POD_IP", "value": "0.0.0.0"}]}}, "the operator itself sets POD_IP"),
        (
            {"podTemplate": {"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}},
            "would show Triton GPUs that it was not given; ask for GPUs with gpus and nodePoolRef",
        ),
        ({"tag": None, "image": "mine; id"}, "image must be a reference"),
        ({"tag": None, "image": "$(POD_IP)"}, "image must be a reference"),
        ({"gpus": 1}, "needs nodePoolRef"),
    ],
)
def test_what_would_change_what_the_operator_makes_is_refused(tenant, spec, words):
    assert words in tenant.refused(server(**spec))


def test_the_operator_s_own_containers_run_no_code_of_the_tenant_s_and_triton_has_no_token(tenant):
    tenant.make_repository(serviceAccountName="reader")
    tenant.make_server(
        tag=None,
        image="registry.example/mine:1",
        podTemplate={"annotations": {"eks.amazonaws.com/skip-containers": ""}, "env": [{"name": "A", "value": "$(B)"}]},
    )
    tenant.until(lambda: tenant.get("deployment", "server"))
    template = tenant.get("deployment", "server")["spec"]["template"]
    pod = template["spec"]
    assert pod["serviceAccountName"] == "reader"
    assert pod["automountServiceAccountToken"] is False
    containers = {c["name"]: c for c in (*pod["initContainers"], *pod["containers"])}
    with_token = {n for n, c in containers.items() if "token" in {m["name"] for m in c["volumeMounts"]}}
    assert with_token == {"agent"}
    assert {n for n, c in containers.items() if c["image"] == "registry.example/mine:1"} == {"triton"}
    kept_from = {
        "eks.amazonaws.com/skip-containers": "triton,key",
        "azure.workload.identity/skip-containers": "triton;key",
    }
    assert kept_from.items() <= template["metadata"]["annotations"].items()


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://kubernetes.default.svc/api",
        "file://",
        "file://host/share",
        "file:///srv/../etc",
        "file:///srv/%2e%2e/etc",
        "file:///$(POD_NAME)",
        "pvc://claim/../..",
        "pvc://claim",
        "pvc://claim/%2e%2e/other",
        "pvc://claim/a%2F..%2Fb",
        "pvc://../claim/a",
        "s3://user:password@bucket",
        "s3://minio.kube-system.svc:9000/zoo",
        "s3://bucket/../other",
        "s3://bucket/$(AWS_SECRET_ACCESS_KEY)",
        "gs://",
        "S3://bucket",
        "--repository=file:///etc",
    ],
)
def test_a_url_is_a_bucket_or_a_folder_of_a_claim(tenant, url):
    assert "spec.url" in tenant.refused(thing("ModelRepository", url=url))


def test_a_folder_s_repository_runs_on_a_development_cluster_s_node_alone(tenant):
    """The label is the administrator's: on any other cluster no node has it, and the pods stay pending."""
    tenant.make_repository(url="file:///etc")
    tenant.make_server(podTemplate={"nodeSelector": {"gravswell.dev/local-node": "false"}})
    ready = tenant.condition("inferenceserver", "server", status="False", reason="NodeSelectorConflict")
    assert "gravswell.dev/local-node" in ready["message"]
    tenant.until(lambda: tenant.get("deployment", "models-lister"))
    lister = tenant.get("deployment", "models-lister")["spec"]["template"]["spec"]
    assert lister["nodeSelector"] == {"gravswell.dev/local-node": "true"}
    assert not any("hostPath" in volume for volume in lister["volumes"])
