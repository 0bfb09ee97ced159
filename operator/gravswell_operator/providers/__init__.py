"""Where the nodes of a pool come from, one module for each provider type.

Its law: a provider answers which nodes belong to a pool; what that means for its status is decided in ``statuses``.
"""

from collections.abc import Iterable

from gravswell_operator.api import GPUNodePool
from gravswell_operator.providers import static
from gravswell_operator.state import NodeState


def nodes_of(pool: GPUNodePool, nodes: Iterable[NodeState]) -> list[NodeState]:
    """The nodes of the cluster that belong to ``pool``."""
    return static.nodes_of(pool, nodes)


__all__ = ["nodes_of"]
