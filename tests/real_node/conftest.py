"""One real node with its control plane, the project's own images and cluster DNS, for this folder's tests.

It takes root: namespaces, mounts and control groups. The programs are built from Go modules and the images from the
Containerfile, once for each state of the sources; Debian's packages that are missing are installed.

With ``--context`` the tests that need no node of their own run on a cluster of the user's, which has the images.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gravswell.errors import ConflictError, GravswellError
from gravswell_operator.devcluster import ensure_binaries
from gravswell_operator.devcluster.kubectl import Kubectl

from .operating import Cluster, RealCluster
from .removal import left
from .starting import build_images, started


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--context``: leave out what needs a node of its own."""
    if config.getoption("context") is None:
        return
    kept, out = [], []
    for item in items:
        names = getattr(item, "fixturenames", ())
        ours = item.path.is_relative_to(Path(__file__).parent)
        (kept if not ours or ("cluster" in names and "real_cluster" not in names) else out).append(item)
    config.hook.pytest_deselected(items=out)
    items[:] = kept


@pytest.fixture(scope="session")
def images() -> Path:
    """The folder of the images' archives and bills of materials, built by the project's own command."""
    return build_images()


@pytest.fixture(scope="session")
def real_cluster(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[RealCluster]:
    with started(tmp_path_factory.mktemp("real-node"), images) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The cluster of ``--context``, where nothing of gravswell's may be; else the real node's."""
    context = request.config.getoption("context")
    if context is None:
        real: RealCluster = request.getfixturevalue("real_cluster")
        return real
    try:
        return users_cluster(context, request.config.getoption("images"), tmp_path_factory.mktemp("users-cluster"))
    except GravswellError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


def users_cluster(context: str, registry: str, folder: Path) -> Cluster:
    """The cluster of a context. ConflictError where it has something of gravswell's."""
    binaries = ensure_binaries(names=["kubectl", "helm"])
    kubectl = Kubectl(binaries["kubectl"], context=context)
    cluster = Cluster(kubectl, binaries["helm"], folder, os.environ, registry)
    if found := left(cluster):
        raise ConflictError(
            f"the cluster of the context {context} has {', '.join(found)}: these tests install gravswell and remove "
            "all of it; name a cluster without it"
        )
    return cluster


@pytest.fixture(autouse=True)
def _inside(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test of a cluster does, it does where that can be reached."""
    name = next((name for name in ("real_cluster", "cluster") if name in request.fixturenames), None)
    if name is None:
        yield
        return
    with request.getfixturevalue(name).network():
        yield
