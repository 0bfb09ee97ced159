"""gravswell's own check of a manifest and the API server's agree, on manifests that nobody wrote down."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from gravswell.errors import InvalidInputError
from gravswell_operator.api.manifest import parse

ROOT = Path(__file__).parents[2]
GOOD = yaml.safe_load((ROOT / "tests/api/manifests.yaml").read_text())["good"]
COUNT, SEED = 150, 20261121

REMOVE = object()
TEXTS = [
    "",
    "a",
    "A",
    "24.08",
    "24.8",
    "99.12",
    "latest",
    "../a",
    "a b",
    "a/b",
    "0",
    "1",
    "1.5Gi",
    "-1",
    "5s",
    "1h",
    "s",
    "ü",
]
VALUES: list[Any] = [
    REMOVE,
    *TEXTS,
    0,
    1,
    17,
    -1,
    1001,
    True,
    False,
    [],
    {},
    ["a"],
    {"name": "a"},
    {"name": ""},
    {"nmae": "a"},
]
FIELDS = {
    "GPUNodePool": {
        "provider.type": ["Static", "GKE"],
        "provider.static": [{"matchLabels": {}}, {"matchLabels": {"a": "b c"}}, {"matchLabels": {"a b": "c"}}],
        "accelerator.type": ["nvidia-l4"],
        "accelerator.count": [16],
        "accelerator.resourceName": ["nvidia.com/mig-1g.5gb", "/gpu", "a/b/c"],
        "size": [1000],
        "taints": [
            [{"key": "a/b", "value": "c", "effect": "NoExecute"}],
            [{"key": "a", "effect": "Never"}],
            [{"value": "a"}],
        ],
        "drivers": [{"install": True}, {"install": "yes"}, {"image": "x"}, {"image": "x y"}],
        "allowedNamespaces": [["default"], ["A"]],
        "suspend": [],
    },
    "ModelRepository": {
        "url": [
            "file:///a",
            "file://a",
            "pvc://a/b",
            "pvc://A/b",
            "pvc://a/b/..",
            "pvc://a/b/../c",
            "gs://a/b",
            "pvc://a/b?c",
            "pvc://a/b/",
            "pvc://a//b",
            "pvc://a/./b",
            "pvc://a/%2E",
            "pvc://a/b%20%C3%BC",
            "pvc://a/$(b)",
            "file:///a\nb",
        ],
        "credentialsSecretRef": [],
        "serviceAccountName": ["reader.b"],
        "syncInterval": ["4s", "5s", "1m5s", "1s1m", "100h", "99999h", "9999999999999h"],
        "suspend": [],
    },
    "InferenceServer": {
        "repositoryRef": [],
        "nodePoolRef": [],
        "tag": ["24.07", "25.01", "24.00", "24.13", 24.08],
        "image": ["a:b", "a:b:c//d", "nvcr.io/nvidia/tritonserver:24.07-py3", "nvcr.io/nvidia/tritonserver:24.08-py3"],
        "gpus": [16, "1"],
        "vcpus": [0.5, "500m", "0m", "1e3", 4, "4"],
        "memory": ["8Gi", "0.0Gi", "8GiB"],
        "replicas": [100, 101],
        "autoscaling": [{"minReplicas": 1, "maxReplicas": 1}, {"minReplicas": 2, "maxReplicas": 1}, {"minReplicas": 1}],
        "models": ["All", "Some"],
        "cache": [
            {"type": "PersistentVolumeClaim"},
            {"type": "PersistentVolumeClaim", "persistentVolumeClaim": {"claimName": "a", "sizeLimit": "1Gi"}},
            {"type": "PersistentVolumeClaim", "persistentVolumeClaim": {"claimName": "A"}},
            {"type": "HostPath"},
        ],
        "service": [
            {"type": "NodePort"},
            {"annotations": {"a": "b"}},
            {"annotations": {"a": 1}},
            {"annotations": {"A.B/c": "d"}},
            {"type": "NodePort", "nodePorts": {"http": 30080, "grpc": 30081}},
            {"type": "NodePort", "nodePorts": {"http": 30080, "grpc": 30080}},
            {"type": "NodePort", "nodePorts": {"http": 0}},
            {"type": "LoadBalancer", "nodePorts": {"grpc": 65536}},
            {"nodePorts": {}},
        ],
        "podTemplate": [
            {"labels": {"app.kubernetes.io/name": "x"}},
            {"labels": {"team": "x"}},
            {"labels": {"A.B/c": "x"}},
            {"annotations": {"not a key": "x"}},
            {"nodeSelector": {"a..b/c": "x"}},
            {"env": [{"name": "A", "value": "b"}]},
            {"env": [{"name": "1A"}]},
            {"env": [{"name": "POD_IP"}]},
            {"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]},
            {"tolerations": [{"operator": "Exists"}]},
            {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
            {"topologySpreadConstraints": [{"topologyKey": "zone"}]},
            {"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 0}]},
            {"priorityClassName": "high"},
            {"imagePullSecrets": [{"name": "team"}]},
            {"imagePullSecrets": ["team"]},
            {"volumes": []},
        ],
    },
    "Model": {
        "serverRef": [],
        "entry": ["my-model", ".hidden", "a.b_c-d"],
        "version": [10**18 - 1, 10**18, 10**20, 1, 0, -1, "latest", "champion", "v1.0", "1", 1.5],
        "placement": [
            {"instances": 1},
            {"instances": 65},
            {"devices": 1},
            {"devices": 17},
            {"devices": 2, "start": 14, "shared": True},
            {"devices": 2, "start": 15},
            {"start": 0},
            {"shared": True},
            {"shared": False},
        ],
        "verification": ["Golden", "Hashes", "None", "golden"],
        "unknown": [],
    },
}


def mutated(kind: str, number: int, dice: random.Random) -> dict[str, Any]:
    """The good manifest of a kind with one or two of its fields changed at random."""
    manifest = {"apiVersion": "gravswell.dev/v1alpha1", "kind": kind, **json.loads(json.dumps(GOOD[kind]))}
    manifest["metadata"]["name"] = f"m{number}"
    for path in dice.sample(sorted(FIELDS[kind]), dice.choice((1, 1, 2))):
        *parents, name = path.split(".")
        node = manifest["spec"]
        for parent in parents:
            node = node[parent]
        # What is made for a field is likelier to come close to right than what is made for all.
        pool = FIELDS[kind][path] if FIELDS[kind][path] and dice.random() < 0.6 else VALUES
        value = dice.choice(pool)
        if value is REMOVE:
            node.pop(name, None)
        else:
            node[name] = value
    return manifest


def accepted_here(manifest: dict[str, Any]) -> bool:
    try:
        parse(manifest)
    except InvalidInputError:
        return False
    return True


@pytest.fixture(scope="module")
def api(cluster) -> None:
    cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(ROOT / "crds"))


@pytest.mark.parametrize("kind", FIELDS)
def test_the_same_manifests_are_accepted(api, kubectl, kind):
    dice = random.Random(f"{SEED}-{kind}")
    manifests = {f"m{number}": mutated(kind, number, dice) for number in range(COUNT)}
    listed = kubectl(
        "create", "--dry-run=server", "--validate=strict", "-o", "name", "-f", "-",
        stdin="\n---\n".join(json.dumps(manifest) for manifest in manifests.values()),
        check=False,
    )  # fmt: skip
    there = {line.rpartition("/")[2] for line in listed.splitlines()}
    here = {name for name, manifest in manifests.items() if accepted_here(manifest)}
    assert {name: manifests[name]["spec"] for name in here ^ there} == {}, (
        f"only here: {here - there}, only there: {there - here}"
    )
    assert 10 < len(there) < COUNT - 10, "the dice should make good and bad ones"
