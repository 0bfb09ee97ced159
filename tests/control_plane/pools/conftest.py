"""The operator and the real Karpenter, which makes simulated nodes, on a control plane of their own.

``operator``    the running operator, under the chart's own role; Karpenter's definitions are not there yet
``karpenter``   installs the definitions and starts Karpenter, once and for the rest of the module
``world``       a namespace, with a pool of its own
"""

from collections.abc import Callable, Iterator
from functools import cache

import pytest

from gravswell_operator.devcluster import ControlPlane, ensure_binaries
from gravswell_operator.devcluster.karpenter import KarpenterKwok, Machine, install_definitions

from ..operating import OperatorProcess, control_plane, operator_of_cluster
from ..reconciling.conftest import World

MACHINES = (
    Machine("t4", 4, price=4),
    Machine("t4", 1, price=1),
    Machine("a100", 4, price=2),
)
"""The cheapest is never the one that is asked for."""


cluster = control_plane("pools", "module")


operator = operator_of_cluster(scope="module")


@pytest.fixture(scope="module")
def karpenter(cluster: ControlPlane) -> Iterator[Callable[[], None]]:
    ensure_binaries(names=["kwok", "karpenter"])  # a cold machine builds them: not within the time of a test
    running = KarpenterKwok(cluster, MACHINES)

    @cache
    def start() -> None:
        install_definitions(cluster)
        running.start()

    yield start
    running.stop()


@pytest.fixture
def world(cluster: ControlPlane, namespace: str, operator: OperatorProcess) -> Iterator[World]:
    made = World(cluster, namespace)
    yield made
    for kind in ("isrv", "mr"):
        made.delete(kind)
    made.delete("gpunodepool", made.pool)
