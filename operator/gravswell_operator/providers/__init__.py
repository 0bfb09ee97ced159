"""Where the nodes of a pool come from, one module for each provider type.

Its law: a provider answers what makes a pool's nodes, and only a cloud's module talks to a cloud; what that means for
the pool's status is decided in ``statuses``. ``base`` says how to write one.
"""

from collections.abc import Iterable, Mapping

from gravswell_operator.api import GPUNodePool
from gravswell_operator.desired.placement import pool_node_selector
from gravswell_operator.providers.base import Provider
from gravswell_operator.providers.custom import Custom
from gravswell_operator.providers.gke import Gke
from gravswell_operator.providers.karpenter import Karpenter
from gravswell_operator.providers.static import Static
from gravswell_operator.state import NodeState

PROVIDERS: Mapping[str, Provider] = {"Static": Static(), "Karpenter": Karpenter(), "GKE": Gke(), "Custom": Custom()}
"""By ``spec.provider.type``."""


def nodes_of(pool: GPUNodePool, nodes: Iterable[NodeState]) -> list[NodeState]:
    """The nodes of the cluster that belong to ``pool``: those with all the labels by which its servers select them."""
    wanted = pool_node_selector(pool).items()
    return [node for node in nodes if wanted and all(node.labels.get(key) == value for key, value in wanted)]


__all__ = ["PROVIDERS", "Provider", "nodes_of"]
