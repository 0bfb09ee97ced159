"""``kind-config.yaml``, read by kind's own functions, and held against the example and the README that go with it."""

import hashlib
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gravswell.addresses import split
from gravswell_operator.devcluster.gobuild import Module, Program, build
from gravswell_operator.names import PORT_GRPC, PORT_HTTP
from gravswell_operator.runtime import DEFAULT_IMAGE

from .nodeimage import KIND

ROOT = Path(__file__).parents[2]
CONFIG = (ROOT / "kind-config.yaml").read_text()
EXAMPLE = list(yaml.safe_load_all((ROOT / "examples/kind/serving.yaml").read_text()))
README = (ROOT / "README.md").read_text().partition("### kind\n")[2].partition("\n## ")[0]
SOURCE = Path(__file__).with_name("readconfig.go")

Read = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def read() -> Read:
    """``read(text)``: what kind makes of a configuration, as JSON, or its words on standard error."""

    def add(kind: Path) -> None:
        (kind / "pkg/readconfig").mkdir()  # below pkg, where Go lets it use kind's internal packages
        shutil.copyfile(SOURCE, kind / "pkg/readconfig/main.go")

    name = f"kind-readconfig-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:8]}"
    module = Module(name, KIND.path, KIND.version, change=add)
    program = Program("readconfig", module, f"{KIND.path}/pkg/readconfig")
    path = build(program, cancelled=threading.Event(), tick=lambda _: None)

    def run(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([path], input=text, capture_output=True, text=True, check=False, timeout=30)

    return run


@pytest.fixture(scope="session")
def cluster(read: Read) -> dict[str, Any]:
    """The cluster that kind would make of ours."""
    done = read(CONFIG)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def node(cluster: dict[str, Any], role: str) -> dict[str, Any]:
    [found] = [one for one in cluster["Nodes"] if one["Role"] == role]
    return dict(found)


def example(kind: str) -> dict[str, Any]:
    [found] = [document for document in EXAMPLE if document["kind"] == kind]
    return dict(found["spec"])


def test_kind_takes_our_configuration_and_knows_each_of_its_fields(cluster):
    assert [one["Role"] for one in cluster["Nodes"]] == ["control-plane", "worker"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    extraPortMappings:", "    extraPortMapping:", "field extraPortMapping not found"),
        ("      - containerPort: 30081", "      - containerPort: 300810", "invalid port number: 300810"),
        (
            "        hostPort: 8001",
            "        hostPort: 8000",
            "already configured: 127.0.0.1:8000",
        ),
        ("        hostPort: 8001", "        hostport: 8001", "field hostport not found"),
        ("  - role: worker", "  - role: minion", '"minion" is not a valid node role'),
        ("name: gravswell", "name: Grav swell", "is not a valid cluster name"),
        ("v1alpha4", "v1alpha5", "unknown apiVersion"),
        ("        readOnly: true", "        readOnly: maybe", "cannot unmarshal"),
    ],
)
def test_kind_refuses_a_configuration_that_cannot_be_right(read, old, new, words):
    assert CONFIG.count(old) == 1
    done = read(CONFIG.replace(old, new))
    assert done.returncode == 1
    assert words in done.stderr


def test_what_is_sent_to_this_machine_arrives_where_the_examples_server_listens(cluster):
    service = example("InferenceServer")["service"]
    assert service["type"] == "NodePort"
    ports = {"http": PORT_HTTP, "grpc": PORT_GRPC}
    assert [
        (mapping["ListenAddress"], mapping["HostPort"], mapping["ContainerPort"])
        for mapping in node(cluster, "control-plane")["ExtraPortMappings"]
    ] == [("127.0.0.1", ports[name], port) for name, port in service["nodePorts"].items()]


def test_the_folder_of_the_worker_is_the_volume_of_the_example(cluster):
    worker = node(cluster, "worker")
    [mount] = worker["ExtraMounts"]
    volume, claim = example("PersistentVolume"), example("PersistentVolumeClaim")
    url = example("ModelRepository")["url"]
    assert mount["Readonly"]
    assert claim["volumeName"] == "gravswell-models"
    assert url == f"pvc://{volume['claimRef']['name']}/repository"
    assert mount["ContainerPath"] == f"{volume['hostPath']['path']}/repository"
    [term] = volume["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert all(worker["Labels"][one["key"]] in one["values"] for one in term["matchExpressions"])


def test_kinds_own_node_is_new_enough_for_the_chart(cluster):
    wanted = yaml.safe_load((ROOT / "charts/gravswell/Chart.yaml").read_text())["kubeVersion"]
    least = re.match(r">=\s*1\.(\d+)", wanted)
    assert least is not None
    for one in cluster["Nodes"]:
        found = re.match(r"kindest/node:v1\.(\d+)\.", one["Image"])
        assert found is not None
        assert int(found[1]) >= int(least[1])


def test_the_readmes_lines_name_this_cluster_its_images_and_its_port(cluster):
    assert set(re.findall(r"kind load docker-image --name (\S+)", README)) == {cluster["Name"]}
    built = re.findall(r"docker build .*? -t (\S+) ", README)
    tag = example("InferenceServer")["tag"]
    triton = re.search(r"--set triton\.repository=(\S+)", README)
    assert triton is not None
    assert built == [DEFAULT_IMAGE, f"{triton[1]}:{tag}-py3"]
    assert all(f"kind load docker-image --name {cluster['Name']} {image}\n" in README for image in built)
    asked = re.search(r"gravswell infer (\S+) digits ", README)
    assert asked is not None
    host, port = split(asked[1])
    mapped = node(cluster, "control-plane")["ExtraPortMappings"][0]
    assert (host, port) == (mapped["ListenAddress"], mapped["HostPort"])
