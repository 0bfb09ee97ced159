"""Node pools of a cluster."""

from google.cloud import container_v1 as container

from gravswell.cloudbreak.google.api import Api
from gravswell.cloudbreak.google.resource import Resource


class NodePool(Resource[container.NodePool]):
    """A node pool of a cluster that exists. Made by :meth:`Cluster.create_resource`."""

    def __init__(self, api: Api, cluster: str, name: str, *, owner: str, seconds: float) -> None:
        super().__init__(api, name, owner=owner, seconds=seconds)
        self.cluster = cluster

    @property
    def label(self) -> str:
        """How messages name it."""
        return self.api.label(self.cluster, self.name)

    def get(self) -> container.NodePool:
        """As Google has it now; NotFoundError where it is gone."""
        return self.api.pool(self.cluster, self.name)

    def resize(self, nodes: int) -> None:
        """Give it so many nodes (in each of its zones), and wait until it has them."""
        self.change(f"resizing to {nodes}", lambda: self.api.resize_pool(self.cluster, self.name, nodes))

    def autoscale(self, least: int, most: int) -> None:
        """Have Google's autoscaler size it between ``least`` and ``most`` nodes (in each of its zones)."""
        wanted = container.NodePoolAutoscaling(enabled=True, min_node_count=least, max_node_count=most)
        self.change(
            f"autoscaling from {least} to {most}", lambda: self.api.autoscale_pool(self.cluster, self.name, wanted)
        )

    def _submit(self, wanted: container.NodePool) -> container.Operation:
        return self.api.create_pool(self.cluster, wanted)

    def _submit_deletion(self) -> container.Operation:
        return self.api.delete_pool(self.cluster, self.name)

    def _differences(self, found: container.NodePool, wanted: container.NodePool) -> list[str]:
        pairs = [
            ("machine type", found.config.machine_type, wanted.config.machine_type),
            ("GPUs", _gpus(found), _gpus(wanted)),
            ("initial nodes", found.initial_node_count, wanted.initial_node_count),
        ]
        return [f"{what} {has}, not {asked}" for what, has, asked in pairs if asked and has != asked]


def _gpus(pool: container.NodePool) -> str:
    return ", ".join(f"{a.accelerator_count} {a.accelerator_type}" for a in pool.config.accelerators)
