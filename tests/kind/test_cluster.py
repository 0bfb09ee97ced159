"""The README's lines for kind, run with the real kind and docker, on images that need no registry.

The tests are one story in the order in which they stand.
"""

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from gravswell import quiver as qv
from gravswell.errors import UnavailableError
from gravswell_operator.devcluster import ensure_binaries
from gravswell_operator.devcluster.processes import tail
from gravswell_operator.devcluster.realnode import Machine

from ..real_node.starting import build_images
from ..serving.agent.versions import scaling_graph
from .engine import Docker
from .nodeimage import program, write_node
from .withoutregistry import ROOT, build_options

README = (ROOT / "README.md").read_text().partition("### kind\n")[2]
LINES = README.partition("```sh\n")[2].partition("```")[0].splitlines()
LINE_SECONDS = 500
NODE = "gravswell.dev/kind-node:1"
NODE_LOGS = ("journal.log", "kubelet.log", "containerd.log")
"""Of what ``kind export logs`` writes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What docker and its machine write, and what they are given."""
    return tmp_path_factory.mktemp("kind")


@pytest.fixture(scope="module")
def machine(folder: Path) -> Iterator[Machine]:
    """The machine in which docker and its containers run."""
    try:
        with Machine(folder / "machine", name="kind") as machine:
            yield machine
    finally:
        shutil.rmtree(folder / "machine/docker", ignore_errors=True)  # gigabytes


@pytest.fixture(scope="module")
def docker(folder: Path, machine: Machine) -> Docker:
    """A docker with the node image."""
    programs = folder / "programs"
    programs.mkdir()
    for name, path in {**ensure_binaries(names=["kubectl", "helm"]).paths, "kind": program("kind")}.items():
        (programs / name).symlink_to(path)
    docker = Docker(machine, programs)
    docker.start()
    try:
        archive = write_node(folder / "node" / "node.tar")
        entry = 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]'
        docker.run("docker", "import", "--change", entry, "--change", "ENV container=docker", archive, NODE)
    finally:
        shutil.rmtree(folder / "node", ignore_errors=True)  # gigabytes
    return docker


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the lines are run: the project's files, a repository with an entry ``digits``, and rows for it."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("kind-config.yaml", "charts", "examples"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    entry = qv.ModelRepository(str(folder / "my-repo")).add("digits", platform=qv.Platform.ONNX)
    entry.export_version(onnx.load_from_string(scaling_graph(3.0)))
    np.savez(folder / "rows.npz", x=np.ones((20, 4), np.float32))
    return folder


@pytest.fixture(scope="module")
def building(folder: Path, machine: Machine, docker: Docker) -> Iterator[str]:
    """Options of ``docker build``: the base is made of Debian's packages, Python's come from an index of our own."""
    given = folder / "building"
    given.mkdir()
    try:
        yield build_options(docker, machine, build_images(), given)
    finally:
        shutil.rmtree(given)


def state(docker: Docker, folder: Path) -> str:
    """What an engineer would look at first: pods, our objects, events, and the ends of kind's logs of the nodes."""
    everywhere = ("--all-namespaces",)
    parts = [
        docker.said("kubectl", "get", "pods", *everywhere, "--output=wide"),
        docker.said("kubectl", "get", "gravswell", *everywhere),
        docker.said("kubectl", "get", "events", *everywhere, "--sort-by=.lastTimestamp")[-6000:],
        docker.said("kind", "export", "logs", folder, "--name", "gravswell"),
    ]
    logs = [log for name in NODE_LOGS for log in sorted(folder.rglob(name))]
    return "\n".join([*parts, *(tail(log, 30) for log in logs)])


@pytest.mark.timeout(1800)  # for what is asked where a line fails, too
@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line.split()[:2]))
def test_a_line_of_the_readme_does_what_it_says(docker, project, building, line, tmp_path):
    try:
        do(line, docker, project, building)
    except UnavailableError as error:
        pytest.fail(f"{error}\n{state(docker, tmp_path)}")


def do(line: str, docker: Docker, project: Path, building: str) -> None:
    """A line of the README, with what registries would give from here, and a cluster that fails kept for its logs."""
    folder = project
    if line.startswith("docker build "):
        line = line.replace("docker build ", f"docker build {building} ", 1)
        folder = ROOT  # what a build is sent holds no links
    elif line.startswith("kind create "):
        line += f" --image {NODE} --wait 180s --retain"
    docker.run("bash", "-ec", f"cd {shlex.quote(str(folder))} && {line}", timeout=LINE_SECONDS)


def test_the_port_of_this_machine_gave_the_models_answers(project):
    with np.load(project / "answers.npz") as answers:
        assert answers["y"].tolist() == [[3.0] * 4] * 20


def test_the_cluster_goes_with_its_containers(docker):
    docker.run("kind", "delete", "cluster", "--name", "gravswell")
    assert docker.run("docker", "ps", "--all", "--quiet") == ""
