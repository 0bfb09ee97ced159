"""The Container API's verbs, one call each: bounded, and with our errors. Waiting and owners are for who calls them."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import google.auth
import grpc
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.transport.requests import Request
from google.cloud import container_v1 as container
from google.cloud.container_v1.services.cluster_manager.transports import ClusterManagerGrpcTransport
from google.oauth2 import service_account

from gravswell.cloudbreak.google import failures
from gravswell.errors import InvalidInputError

CALL_SECONDS = 30.0
"""For the answer to one call, which begins an operation at most and does not wait for it."""
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
ENDPOINT_VARIABLE = "GRAVSWELL_GKE_ENDPOINT"
"""Environment variable: the endpoint where none is given, so that programs run against an emulator unchanged."""
EVERYWHERE = "-"
"""The location that stands for all of them, where clusters are listed."""

Given = str | Path | Credentials | None
"""Credentials, the file of a service account's key, or None: the application's default credentials."""

T = TypeVar("T")


class Api:
    """The calls on one location of one project. Threads may share it.

    :param location: a zone or a region.
    :param credentials: of Google; without them the application's default ones (``gcloud auth application-default
        login``, or the identity of the machine or pod).
    :param endpoint: another server than Google's that speaks the Container API; without it, the one that
        :data:`ENDPOINT_VARIABLE` names, else Google's. With ``http://`` in front it is spoken to in the clear and shown
        no credentials, as emulators want it; those that are given, or that ``GOOGLE_APPLICATION_CREDENTIALS`` names,
        are then for the API servers of its clusters alone.

    Every method raises members of :mod:`gravswell.errors` and :mod:`gravswell.cloudbreak.errors` that name the object.
    A call is never made twice here: Google's client would repeat some of them for minutes.
    """

    def __init__(
        self,
        project: str,
        location: str,
        credentials: Given = None,
        *,
        endpoint: str | None = None,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        if not project or not location:
            raise InvalidInputError("a project and a zone (or region) are needed to find clusters in")
        endpoint = endpoint or os.environ.get(ENDPOINT_VARIABLE)
        self.project, self.location = project, location
        self._seconds = call_seconds
        self._plain = urlsplit(endpoint).netloc if endpoint and endpoint.startswith("http://") else None
        self._credentials = _credentials(credentials, anonymous=self._plain is not None)
        try:
            self._client = _client(self._credentials, self._plain, endpoint)
        except auth.GoogleAuthError as error:
            raise failures.told(f"project {project}", error) from error

    @property
    def parent(self) -> str:
        """The location, as the API names it."""
        return f"projects/{self.project}/locations/{self.location}"

    def path(self, cluster: str, pool: str | None = None) -> str:
        """A cluster or a node pool of it, as the API names them."""
        return f"{self.parent}/clusters/{cluster}" + (f"/nodePools/{pool}" if pool is not None else "")

    def close(self) -> None:
        """End the connection."""
        self._client.transport.close()  # type: ignore[no-untyped-call]  # Google's library is half typed

    def token(self) -> str | None:
        """A token for the API servers of clusters; None where the credentials have none. Blocks."""
        if isinstance(self._credentials, AnonymousCredentials):
            return None
        try:
            if not self._credentials.valid:
                self._credentials.refresh(Request())  # type: ignore[no-untyped-call]
        except auth.GoogleAuthError as error:
            raise failures.told(f"project {self.project}", error) from error
        return str(self._credentials.token)

    def clusters(self) -> tuple[list[container.Cluster], list[str]]:
        """All clusters, with their node pools; and the zones that did not answer."""
        request = container.ListClustersRequest(parent=self.parent)
        answer = self._call(f"clusters in {self.parent}", self._client.list_clusters, request)
        return list(answer.clusters), list(answer.missing_zones)

    def cluster(self, name: str) -> container.Cluster:
        """One cluster; NotFoundError without it."""
        request = container.GetClusterRequest(name=self.path(name))
        return self._call(self.label(name), self._client.get_cluster, request)

    def create_cluster(self, cluster: container.Cluster) -> container.Operation:
        """Begin to make a cluster; ConflictError where its name is borne already."""
        request = container.CreateClusterRequest(parent=self.parent, cluster=cluster)
        return self._call(self.label(cluster.name), self._client.create_cluster, request)

    def delete_cluster(self, name: str) -> container.Operation:
        """Begin to delete a cluster, with all that is in it."""
        request = container.DeleteClusterRequest(name=self.path(name))
        return self._call(self.label(name), self._client.delete_cluster, request)

    def pools(self, cluster: str) -> list[container.NodePool]:
        """The node pools of a cluster; NotFoundError without the cluster."""
        request = container.ListNodePoolsRequest(parent=self.path(cluster))
        return list(self._call(self.label(cluster), self._client.list_node_pools, request).node_pools)

    def pool(self, cluster: str, name: str) -> container.NodePool:
        """One node pool; NotFoundError without it."""
        request = container.GetNodePoolRequest(name=self.path(cluster, name))
        return self._call(self.label(cluster, name), self._client.get_node_pool, request)

    def create_pool(self, cluster: str, pool: container.NodePool) -> container.Operation:
        """Begin to make a node pool; ConflictError where its name is borne already."""
        request = container.CreateNodePoolRequest(parent=self.path(cluster), node_pool=pool)
        return self._call(self.label(cluster, pool.name), self._client.create_node_pool, request)

    def delete_pool(self, cluster: str, name: str) -> container.Operation:
        """Begin to delete a node pool; Google drains its nodes."""
        request = container.DeleteNodePoolRequest(name=self.path(cluster, name))
        return self._call(self.label(cluster, name), self._client.delete_node_pool, request)

    def resize_pool(self, cluster: str, name: str, nodes: int) -> container.Operation:
        """Begin to give a node pool so many nodes (in each zone, where it spans several)."""
        request = container.SetNodePoolSizeRequest(name=self.path(cluster, name), node_count=nodes)
        return self._call(self.label(cluster, name), self._client.set_node_pool_size, request)

    def autoscale_pool(
        self, cluster: str, name: str, autoscaling: container.NodePoolAutoscaling
    ) -> container.Operation:
        """Begin to have a node pool sized by Google's autoscaler, or no longer."""
        request = container.SetNodePoolAutoscalingRequest(name=self.path(cluster, name), autoscaling=autoscaling)
        return self._call(self.label(cluster, name), self._client.set_node_pool_autoscaling, request)

    def label_pool(self, cluster: str, name: str, labels: Mapping[str, str]) -> container.Operation:
        """Begin to give the machines of a node pool these labels of Google's, and no others; nothing restarts."""
        request = container.UpdateNodePoolRequest(
            name=self.path(cluster, name), resource_labels=container.ResourceLabels(labels=dict(labels))
        )
        return self._call(self.label(cluster, name), self._client.update_node_pool, request)

    def operation(self, name: str) -> container.Operation:
        """An operation, by the name that its beginning answered; NotFoundError once Google has forgotten it."""
        request = container.GetOperationRequest(name=f"{self.parent}/operations/{name}")
        return self._call(f"operation {name}", self._client.get_operation, request)

    def label(self, cluster: str, pool: str | None = None) -> str:
        """How messages name a cluster, or a node pool of it."""
        where = f"cluster {cluster} in {self.project}/{self.location}"
        return where if pool is None else f"node pool {pool} of {where}"

    def _call(self, what: str, method: Callable[..., T], request: Any) -> T:
        try:
            return method(request=request, timeout=self._seconds, retry=None)
        except (exceptions.GoogleAPIError, auth.GoogleAuthError, grpc.RpcError) as error:
            raise failures.told(what, error) from error


def _credentials(given: Given, *, anonymous: bool) -> Credentials:
    if given is None and anonymous and "GOOGLE_APPLICATION_CREDENTIALS" not in os.environ:
        return AnonymousCredentials()  # type: ignore[no-untyped-call]
    try:
        if given is None:
            found: Credentials = google.auth.default(scopes=SCOPES)[0]
            return found
        if isinstance(given, str | Path):
            key: Credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
                str(given), scopes=SCOPES
            )
            return key
    except auth.GoogleAuthError as error:
        raise failures.told("Google", error) from error
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{given} is no key of a service account that can be read: {error}") from None
    return given


def _client(credentials: Credentials, plain: str | None, endpoint: str | None) -> container.ClusterManagerClient:
    if plain is None:
        options = ClientOptions(api_endpoint=endpoint) if endpoint else None
        return container.ClusterManagerClient(credentials=credentials, client_options=options)
    # No proxy of the environment reaches an emulator on this machine.
    channel = grpc.insecure_channel(plain, options=[("grpc.enable_http_proxy", 0)])
    nobody = AnonymousCredentials()  # type: ignore[no-untyped-call]
    transport = ClusterManagerGrpcTransport(channel=channel, credentials=nobody)
    return container.ClusterManagerClient(transport=transport)
