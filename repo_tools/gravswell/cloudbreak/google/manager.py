"""The clusters of a project."""

from collections.abc import Iterator
from contextlib import contextmanager

from google.cloud import container_v1 as container

from gravswell.cloudbreak.google.api import Api, Given
from gravswell.cloudbreak.google.cluster import Cluster
from gravswell.cloudbreak.google.owners import default_owner, label_value
from gravswell.cloudbreak.google.resource import WAIT_SECONDS
from gravswell.errors import InvalidInputError


class ClusterManager:
    """Makes and deletes clusters in one zone (or region) of a project.

    :param credentials: as :class:`Api` takes them; without them the application's default ones.
    :param endpoint: another server than Google's, as :class:`Api` takes it: ``http://127.0.0.1:9000`` is an emulator.
    :param owner: what the label ``gravswell-owner`` says of what is made here: only what bears it is taken over and
        deleted. Without it, the user's name on this machine.
    :param seconds: the bound of each wait.
    """

    def __init__(
        self,
        project: str,
        zone: str,
        credentials: Given = None,
        *,
        endpoint: str | None = None,
        owner: str | None = None,
        seconds: float = WAIT_SECONDS,
    ) -> None:
        if owner is not None and owner != label_value(owner):
            raise InvalidInputError(f"owner {owner!r} cannot be a label: write up to 63 of a to z, digits, - and _")
        self.api = Api(project, zone, credentials, endpoint=endpoint)
        self.owner = owner or default_owner()
        self.seconds = seconds

    def create_resource(self, resource: container.Cluster) -> Cluster:
        """Make a cluster and wait until it runs; one of that name that is ours is taken over.

        Raises :class:`~gravswell.cloudbreak.errors.TakenError` where the name is borne by somebody else's, and
        :class:`~gravswell.cloudbreak.errors.QuotaError` and its neighbours for what the cloud refuses.
        """
        if not isinstance(resource, container.Cluster):
            raise InvalidInputError(
                f"{type(resource).__name__} is no Cluster: a node pool is made with the create_resource of its cluster"
            )
        cluster = self.cluster(resource.name)
        cluster.make(resource)
        return cluster

    @contextmanager
    def manage_resource(self, resource: container.Cluster, keep: bool = False) -> Iterator[Cluster]:
        """:meth:`create_resource` for a ``with`` statement, at whose end it is deleted, but for ``keep``."""
        cluster = self.create_resource(resource)
        try:
            yield cluster
        finally:
            if not keep:
                cluster.delete()

    def delete_resource(self, resource: Cluster) -> None:
        """Delete a cluster of ours with all that is in it, and wait until it is gone."""
        resource.delete()

    def cluster(self, name: str) -> Cluster:
        """A cluster by its name, whoever made it; nothing is asked yet."""
        if not name:
            raise InvalidInputError("a cluster needs a name")
        return Cluster(self.api, name, owner=self.owner, seconds=self.seconds)

    def clusters(self) -> list[str]:
        """The names of the clusters there, whoever made them."""
        return sorted(cluster.name for cluster in self.api.clusters()[0])
