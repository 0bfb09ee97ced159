"""The control plane that these tests run on: real, on loopback, one for each pytest process.

``cluster``      a :class:`ControlPlane` for the whole session (one for each xdist worker)
``namespace``    the name of a namespace made for the test and deleted after it
``kubectl``      ``kubectl(*args, stdin=None, check=True) -> str`` as administrator
``kwok_nodes``   20 simulated nodes with 8 GPUs each, for the rest of the session
``local_node``   the node ``gravswell-local`` with real pods, for the rest of the session
"""

import uuid
from collections.abc import Iterator
from typing import Protocol

import pytest

from gravswell_operator.devcluster import ControlPlane, KwokNodes, LocalNode


class Kubectl(Protocol):
    def __call__(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str: ...


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@pytest.fixture
def kubectl(cluster: ControlPlane) -> Kubectl:
    return cluster.kubectl


@pytest.fixture
def namespace(cluster: ControlPlane) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def local_node(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
    with LocalNode(cluster, tmp_path_factory.mktemp("local-node")) as node:
        yield node


@pytest.fixture(scope="session")
def kwok_nodes(cluster: ControlPlane) -> Iterator[KwokNodes]:
    with KwokNodes(cluster, count=20) as nodes:
        yield nodes
