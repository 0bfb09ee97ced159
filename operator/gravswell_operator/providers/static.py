"""The Static provider: nodes that exist already, found by their labels."""

from collections.abc import Iterable

from gravswell_operator.api import GPUNodePool
from gravswell_operator.state import NodeState


def nodes_of(pool: GPUNodePool, nodes: Iterable[NodeState]) -> list[NodeState]:
    """The nodes that carry every label of ``provider.static.matchLabels``; of a pool without labels, none."""
    static = pool.spec.provider.static
    if static is None or not static.match_labels:
        return []
    wanted = static.match_labels.items()
    return [node for node in nodes if all(node.labels.get(key) == value for key, value in wanted)]
