"""The Static provider: nodes that exist already, found by their labels."""

from gravswell_operator.api import GPUNodePool
from gravswell_operator.desired.objects import Manifest
from gravswell_operator.desired.pools import Bounds


class Static:
    """Makes nothing: its nodes belong to somebody else."""

    way_out = ""

    def objects(self, pool: GPUNodePool, bounds: Bounds) -> list[Manifest]:  # noqa: ARG002  a provider's signature
        """None."""
        return []
