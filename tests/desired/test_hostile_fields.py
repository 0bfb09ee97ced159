"""What a tenant writes into any field ends up in its own places, whatever it is, or is refused.

Every text of a manifest (values, and keys of maps) is replaced by hostile ones. What passes may change nothing but the
places that the field is for: no other argument, no path outside of its folder, no other object.
"""

import posixpath
import re
from copy import deepcopy
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gravswell.errors import InvalidInputError
from gravswell_operator.api.manifest import parse
from gravswell_operator.desired.objects import MODELS_FOLDER, REPOSITORY_FOLDER, Options
from gravswell_operator.plan import plan

NAMESPACE = "tenant"
OWN_ACCOUNTS = ("models-lister", "server-agent")
OPTIONS = Options(
    image="registry.example/gravswell:1",
    network_policies=(("team", "monitoring"),),
    prometheus="http://prometheus:9090",
)
API = "gravswell.dev/v1alpha1"

CLAIM = {"type": "PersistentVolumeClaim", "persistentVolumeClaim": {"claimName": "shelf", "sizeLimit": "20Gi"}}
SERVER = {
    "repositoryRef": {"name": "models"},
    "tag": "24.08",
    "vcpus": "2",
    "memory": "4Gi",
    "modelStorage": "20Gi",
    "cache": CLAIM,
    "replicas": 2,
    "service": {
        "type": "ClusterIP",
        "annotations": {"of-the-service": "service"},
        "gateway": {
            "http": {
                "parentRefs": [{"name": "gate", "namespace": "gates", "sectionName": "web"}],
                "hostnames": ["models.example.com"],
            },
            "grpc": {"parentRefs": [{"name": "other-gate"}], "hostnames": ["grpc.example.com"]},
        },
    },
    "podTemplate": {
        "labels": {"of-the-pods": "pods"},
        "annotations": {"for-the-pods": "pods"},
        "nodeSelector": {"of-the-nodes": "nodes"},
        "tolerations": [{"key": "taint", "operator": "Equal", "value": "tainted", "effect": "NoSchedule"}],
        "topologySpreadConstraints": [{"topologyKey": "zone"}],
        "priorityClassName": "priority",
        "imagePullSecrets": [{"name": "puller"}],
        "env": [{"name": "VARIABLE", "value": "varied"}],
    },
}
WAKES = [
    {"name": "waiting", "type": "Query", "query": {"promql": "queue_length"}},
    {
        "name": "mornings",
        "type": "Schedule",
        "schedule": {"timeZone": "Europe/Berlin", "start": "0 8 * * 1-5", "end": "0 9 * * *"},
    },
]
SCALED = {
    "minReplicas": 0,
    "maxReplicas": 2,
    "targetQueueTime": "20ms",
    "scaleDownDelay": "30s",
    "keda": {"idleAfter": "5m", "wakes": WAKES},
}
MODEL = {"serverRef": {"name": "server"}, "entry": "entry", "version": "alias"}
REPOSITORIES = {
    "claim": {"url": "pvc://claim/folder", "credentialsSecretRef": {"name": "keys"}, "syncInterval": "45s"},
    "amazon": {"url": "s3://bucket/folder", "region": "eu-west-3", "serviceAccountName": "reader"},
    "azure": {"url": "az://bucket/folder", "storageAccount": "account", "credentialsSecretRef": {"name": "keys"}},
    "google": {"url": "gs://bucket/folder", "credentialsSecretRef": {"name": "keys"}},
    "folder": {"url": "file:///srv/folder"},
}


def documents(repository, *, other=False):
    """A tenant's manifests with every text field that they can have: the ``other`` has those that exclude some."""
    server = dict(SERVER)
    if other:
        del server["tag"], server["replicas"]
        server |= {"image": "registry.example/triton:24.08", "autoscaling": SCALED}
    kinds = (
        ("ModelRepository", "models", REPOSITORIES[repository]),
        ("InferenceServer", "server", server),
        ("Model", "model", MODEL),
    )
    return [
        {"apiVersion": API, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": deepcopy(spec)}
        for kind, name, spec in kinds
    ]


def texts(value, path=()):
    """The paths of all texts below ``value``; a key of a map of labels is one, and is marked so."""
    if isinstance(value, dict):
        for key, below in value.items():
            if path and path[-1] in ("labels", "annotations", "nodeSelector"):
                yield (*path, key, "<key>")
            yield from texts(below, (*path, key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from texts(below, (*path, index))
    elif isinstance(value, str):
        yield path


def replaced(value, path, text):
    """``value`` with ``text`` at ``path``."""
    if path == ():
        return text
    first, *rest = path
    if rest == ["<key>"]:
        return {**{k: v for k, v in value.items() if k != first}, text: value[first]}
    if isinstance(value, list):
        return [replaced(v, tuple(rest), text) if i == first else v for i, v in enumerate(value)]
    return {**value, first: replaced(value[first], tuple(rest), text)}


def made_of(manifests):
    """Every object that follows, by kind, namespace and name."""
    resources = [parse(manifest) for manifest in manifests]
    children = [m for planned in plan(resources, OPTIONS).objects for m in planned.children]
    return {(m["kind"], m["metadata"].get("namespace", ""), m["metadata"]["name"]): m for m in children}


def leaves(value, path=""):
    """All that is below ``value``, by path; items of lists by their names where they have one."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key != "gravswell.dev/desired-digest":
                yield from leaves(below, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, below in enumerate(value):
            name = below.get("name", index) if isinstance(below, dict) else index
            yield from leaves(below, f"{path}[{name}]")
    else:
        yield path, value


HOSTILE = [
    *("..", "../..", "/../", "/", "//", "%2e%2e", "%2F", "%00", "\n", "\r\n", "\t", "\0", " ", "'", '"', "`id`", "\\"),
    *(
        ";",
        "&&",
        "|",
        "$(id)",
        "$(POD_IP)",
        "$$(POD_IP)",
        "$POD_IP",
        "${IFS}",
        "*",
        "~",
        "-",
        "--",
        "-x",
        "#",
        "?",
        "@",
    ),
    *(
        "file:///etc",
        "http://169.254.169.254/latest",
        "pvc://",
        "s3://",
        "gs://",
        "az://",
        "kube-system/",
        "neighbour.",
    ),
    *("/var/run/secrets/kubernetes.io/serviceaccount", "system:serviceaccount:kube-system:default", "kube-system"),
    *(
        "a",
        "Z",
        "0",
        ".",
        "_",
        ":",
        ",",
        "=",
        "é",
        "\u202e",
        "gravswell.dev/server",
        "app.kubernetes.io/name",
        "a" * 60,
    ),
    *("container.apparmor.security.beta.kubernetes.io/triton", "POD_IP", "latest", "24.08", "1Gi", "5s"),
]
HARMLESS = ["other", "neighbour.models", "7Gi", "750m", "25.01", "1h30m", "x.io/y:z", "NodePort", "Equal", "NoExecute"]
TEXTS = st.one_of(
    st.sampled_from(HARMLESS),
    st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,12}[a-z0-9])?", fullmatch=True),
    st.builds("".join, st.tuples(st.sampled_from(HARMLESS), st.sampled_from(HOSTILE))),
    st.lists(st.sampled_from(HOSTILE), max_size=5).map("".join),
    st.text(max_size=12),
    st.builds(lambda head, bad: head + bad, st.sampled_from(["pvc://claim/", "s3://b/", "file:///a/"]), st.text()),
    st.builds(
        lambda head, parts: head + "".join(parts),
        st.sampled_from(
            ["pvc://claim/a", "gs://bucket/a", "az://bucket", "s3://bucket/", "file:///srv", "models", "x.io/a"]
        ),
        st.lists(st.sampled_from(HOSTILE), max_size=4),
    ),
)

POD = r"\.spec\.template\.spec"
TEMPLATE = r"\.spec\.template\.metadata"
OURS = r"(agent|lister)"
PLACES = {
    "ModelRepository.credentialsSecretRef.name": [
        rf"{POD}\.containers\[{OURS}\]\.(envFrom\[0\]\.secretRef|env\[\w+\]\.valueFrom\.secretKeyRef)\.name",
        rf"{POD}\.volumes\[credentials\]\.secret\.secretName",
    ],
    "ModelRepository.serviceAccountName": [rf"{POD}\.serviceAccountName", r"\.subjects\[.*\]\.(kind|name|namespace)"],
    "ModelRepository.region": [rf"{POD}\.containers\[{OURS}\]\.env\[AWS_REGION\]\.value"],
    "ModelRepository.storageAccount": [rf"{POD}\.containers\[{OURS}\]\.env\[AZURE_STORAGE_ACCOUNT\]\.value"],
    "ModelRepository.syncInterval": [rf"{POD}\.containers\[lister\]\.args\[7\]"],
    "InferenceServer.tag": [rf"{POD}\.containers\[triton\]\.image"],
    "InferenceServer.image": [rf"{POD}\.containers\[triton\]\.image"],
    "InferenceServer.vcpus": [rf"{POD}\.containers\[triton\]\.resources\.requests\.cpu"],
    "InferenceServer.memory": [
        rf"{POD}\.containers\[triton\]\.resources\.(requests|limits)\.memory",
        rf"{POD}\.containers\[agent\]\.args\[7\]",
    ],
    "InferenceServer.modelStorage": [
        rf"{POD}\.volumes\[models\]\.emptyDir\.sizeLimit",
        rf"{POD}\.containers\[agent\]\.args\[5\]",
        r"\.spec\.progressDeadlineSeconds",
    ],
    "InferenceServer.cache.persistentVolumeClaim.claimName": [rf"{POD}\.volumes\[cache\]\..*\.claimName"],
    "InferenceServer.cache.persistentVolumeClaim.sizeLimit": [rf"{POD}\.containers\[agent\]\.args\[\d+\]"],
    "InferenceServer.autoscaling.targetQueueTime": [r"\.spec\.triggers\[queueTime\]\.metadata\.threshold"],
    "InferenceServer.autoscaling.scaleDownDelay": [r"\.spec\.advanced\..*\.stabilizationWindowSeconds"],
    "InferenceServer.autoscaling.keda.idleAfter": [r"\.spec\.(cooldownPeriod|initialCooldownPeriod)"],
    "InferenceServer.autoscaling.keda.wakes": [r"\.spec\.triggers\[.*\]\.(name|type|metricType|metadata\..*)"],
    "InferenceServer.service.type": [r"\.spec\.type"],
    "InferenceServer.service.annotations": [r"\.metadata\.annotations\..*"],
    "InferenceServer.service.gateway.http.parentRefs": [r"\.spec\.parentRefs\[.*\]\.(name|namespace|sectionName)"],
    "InferenceServer.service.gateway.grpc.parentRefs": [r"\.spec\.parentRefs\[.*\]\.name"],
    "InferenceServer.service.gateway.http.hostnames": [r"\.spec\.hostnames\[0\]"],
    "InferenceServer.service.gateway.grpc.hostnames": [r"\.spec\.hostnames\[0\]"],
    "InferenceServer.podTemplate.labels": [rf"{TEMPLATE}\.labels\..*"],
    "InferenceServer.podTemplate.annotations": [rf"{TEMPLATE}\.annotations\..*"],
    "InferenceServer.podTemplate.nodeSelector": [rf"{POD}\.nodeSelector\..*"],
    "InferenceServer.podTemplate.tolerations": [rf"{POD}\.tolerations\[.*\]\..*"],
    "InferenceServer.podTemplate.topologySpreadConstraints": [rf"{POD}\.topologySpreadConstraints\[0\]\.topologyKey"],
    "InferenceServer.podTemplate.priorityClassName": [rf"{POD}\.priorityClassName"],
    "InferenceServer.podTemplate.imagePullSecrets": [rf"{POD}\.imagePullSecrets\[.*\]\.name"],
    "InferenceServer.podTemplate.env": [rf"{POD}\.containers\[triton\]\.env\[.*\]\.(name|value)"],
}
"""Where each field may show; a repository's url has rules of its own, and what is not named here may show nowhere."""

ARGUMENT = re.compile(r"[^$]*|\$\(POD_IP\):\d+")
"""Of our own containers: the kubelet has nothing to replace but their address."""


def where_a_field_shows(kind, path):
    field = ".".join(str(part) for part in (kind, *path) if isinstance(part, str) and part != "<key>")
    return next((places for known, places in PLACES.items() if f"{field}.".startswith(f"{known}.")), [])


def check_commands(objects, baseline):
    """Triton is started by the same command, and our own containers get as many arguments, each in its place."""
    for key, body in objects.items():
        if body["kind"] != "Deployment":
            continue
        pod, before = body["spec"]["template"]["spec"], baseline[key]["spec"]["template"]["spec"]
        for container, other in zip(
            [*pod.get("initContainers", ()), *pod["containers"]],
            [*before.get("initContainers", ()), *before["containers"]],
            strict=True,
        ):
            assert container["command"] == other["command"]
            if container["name"] == "triton":
                assert container["args"] == other["args"]
            else:
                assert len(container["args"]) == len(other["args"])
                assert [a for a in container["args"] if not ARGUMENT.fullmatch(a)] == []
                flags = [(a, o) for a, o in zip(container["args"], other["args"], strict=True) if o.startswith("--")]
                assert all(argument == flag for argument, flag in flags)
                assert not any("\n" in a or "\0" in a for a in container["args"])
                if container["name"] != "key":
                    assert container["args"][0] == "--repository"
                    check_url(container["args"][1])


def check_url(url):
    """What a pod opens: a folder below the claim's, or of a development cluster's node; or a bucket. Nothing else."""
    scheme, _, rest = url.partition("://")
    assert scheme in ("file", "gs", "s3", "az")
    assert not {".", ".."} & set(rest.split("/"))
    if scheme == "file":
        path = unquote(rest)
        assert posixpath.normpath(path) == path.rstrip("/")
        assert not {".", ".."} & set(path.split("/"))
        assert path.startswith("/")
    else:
        bucket, _, _ = rest.partition("/")
        assert re.fullmatch("[-A-Za-z0-9._]+", bucket), "no port, user, query or host"


@pytest.mark.parametrize("repository", REPOSITORIES)
@settings(max_examples=200)
@given(data=st.data())
def test_what_passes_shows_in_its_own_places_and_nowhere_else(repository, data):
    manifests = documents(repository, other=data.draw(st.booleans()))
    baseline = made_of(manifests)
    paths = [(i, path) for i, m in enumerate(manifests) for path in texts(m["spec"])]
    index, path = data.draw(st.sampled_from(paths))
    text = data.draw(TEXTS)
    kind = manifests[index]["kind"]
    manifests[index] = replaced(manifests[index], ("spec", *path), text)
    try:
        objects = made_of(manifests)
    except InvalidInputError:
        return
    if not objects.keys() >= {k for k in baseline if k[2].startswith("server")}:
        # A server whose repository is not there, or for which no node fits, gets nothing at all.
        assert path[0] == "repositoryRef" or "nodeSelector" in path
        baseline = {key: body for key, body in baseline.items() if key in objects}
    assert objects.keys() <= {*baseline, *(("ServiceAccount", NAMESPACE, name) for name in OWN_ACCOUNTS)}
    assert {namespace for _, namespace, _ in objects} == {NAMESPACE}
    check_commands(objects, baseline)
    for trigger in (t for body in objects.values() for t in body.get("spec", {}).get("triggers", ())):
        assert trigger["metadata"].get("serverAddress", OPTIONS.prometheus) == OPTIONS.prometheus
    if kind == "ModelRepository" and path == ("url",):
        for body in objects.values():
            if body["kind"] == "Deployment":
                (mounted,) = [v for v in body["spec"]["template"]["spec"]["volumes"] if v["name"] == "repository"] or [
                    {}
                ]
                assert set(mounted) <= {"name", "persistentVolumeClaim"}
        return
    allowed = where_a_field_shows(kind, path)
    for key, body in objects.items():
        now, before = dict(leaves(body)), dict(leaves(baseline.get(key, {})))
        changed = [p for p in now.keys() | before.keys() if now.get(p) != before.get(p)]
        strayed = [p for p in changed if not any(re.fullmatch(place, p, re.DOTALL) for place in allowed)]
        assert strayed == [], (kind, path, text)


@settings(max_examples=500)
@given(entry=TEXTS)
def test_the_entry_of_a_model_is_one_name_below_the_models(entry):
    try:
        model = parse({**documents("claim")[2], "spec": {**MODEL, "entry": entry}})
    except InvalidInputError:
        return
    assert posixpath.dirname(posixpath.normpath(f"{MODELS_FOLDER}/{model.spec.entry}")) == MODELS_FOLDER
    assert model.spec.entry.isprintable()


@settings(max_examples=200)
@given(path=TEXTS)
def test_the_path_in_a_claim_stays_below_its_mount(path):
    manifests = documents("claim")
    manifests[0]["spec"]["url"] = f"pvc://claim/{path}"
    try:
        objects = made_of(manifests)
    except InvalidInputError:
        return
    for name in ("models-lister", "server"):
        pod = objects["Deployment", NAMESPACE, name]["spec"]["template"]["spec"]
        (ours,) = (c for c in pod["containers"] if c["name"] in ("lister", "agent"))
        opened = unquote(ours["args"][1].removeprefix("file://"))
        assert posixpath.normpath(opened).startswith(f"{REPOSITORY_FOLDER}/")
        (volume,) = (v for v in pod["volumes"] if v["name"] == "repository")
        assert volume["persistentVolumeClaim"] == {"claimName": "claim", "readOnly": True}
