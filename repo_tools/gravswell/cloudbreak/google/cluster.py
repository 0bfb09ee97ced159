"""A cluster: its node pools, its API server, and what is deployed there."""

import asyncio
import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from google.cloud import container_v1 as container

from gravswell.cloudbreak import manifests
from gravswell.cloudbreak.google.api import Api
from gravswell.cloudbreak.google.fitting import check_fit
from gravswell.cloudbreak.google.nodepool import NodePool
from gravswell.cloudbreak.google.resource import Resource
from gravswell.cloudbreak.kubernetes import K8sClient
from gravswell.errors import InvalidInputError, UnavailableError
from gravswell.kube.credentials import Account, Endpoint

TOKEN_SECONDS = 60.0
"""How long a token is used before Google's library is asked again; it renews one that is about to expire."""
TEMPLATES = files("gravswell.cloudbreak.google") / "templates"
"""What :meth:`Cluster.deploy` finds by its bare name where there is no such file."""
GPU_OPERATOR_DRIVERS = "app=nvidia-driver-daemonset"
"""The label of the DaemonSet by which NVIDIA's GPU operator installs drivers."""


class Cluster(Resource[container.Cluster]):
    """A cluster of a project. Made by :meth:`ClusterManager.create_resource`."""

    def __init__(self, api: Api, name: str, *, owner: str, seconds: float) -> None:
        super().__init__(api, name, owner=owner, seconds=seconds)
        self._k8s: K8sClient | None = None

    @property
    def label(self) -> str:
        """How messages name it."""
        return self.api.label(self.name)

    @property
    def k8s_client(self) -> K8sClient:
        """Its API server, with Google's token: waits for what was deployed."""
        if self._k8s is None:
            self._k8s = K8sClient(self._account, self.label)
        return self._k8s

    def get(self) -> container.Cluster:
        """As Google has it now; NotFoundError where it is gone."""
        return self.api.cluster(self.name)

    def create_resource(self, resource: container.NodePool) -> NodePool:
        """Make a node pool and wait until it runs; one of that name that is ours and alike is taken over.

        Errors as of :meth:`ClusterManager.create_resource`.
        """
        if not isinstance(resource, container.NodePool):
            raise InvalidInputError(
                f"{type(resource).__name__} is no NodePool: a cluster is made with a ClusterManager"
            )
        pool = self.node_pool(resource.name)
        pool.make(resource)
        return pool

    @contextmanager
    def manage_resource(self, resource: container.NodePool, keep: bool = False) -> Iterator[NodePool]:
        """:meth:`create_resource` for a ``with`` statement, at whose end it is deleted, but for ``keep``."""
        pool = self.create_resource(resource)
        try:
            yield pool
        finally:
            if not keep:
                pool.delete()

    def delete_resource(self, resource: NodePool) -> None:
        """Delete a node pool of ours, and wait until it is gone."""
        resource.delete()

    def node_pool(self, name: str) -> NodePool:
        """A node pool by its name, whoever made it; nothing is asked yet."""
        if not name:
            raise InvalidInputError("a node pool needs a name")
        return NodePool(self.api, self.name, name, owner=self.owner, seconds=self.seconds)

    def deploy(self, file: str, namespace: str = "default", **values: Any) -> None:
        """Apply a template of Kubernetes objects, filled with ``values``; what is there already is changed.

        ``file`` is a file of yours, or else one that comes with the library: ``triton.yaml``, a plain Triton with a
        load balancer (values ``name``, ``tag``, ``bucket``, ``gpus``, ``vcpus``). Raises InvalidInputError, a
        ``ValueError``, for a value that is missing or that nothing uses, and where no node pool's nodes have what a pod
        asks for: Kubernetes itself needs some of each node's vCPUs.
        """
        objects = manifests.render(*manifests.read(file, TEMPLATES), values)
        check_fit(objects, self.get(), self.label)
        self.k8s_client.apply(objects, namespace)

    def remove_deployment(self, name: str, namespace: str = "default") -> None:
        """Delete a Deployment, and the Service of its name; what is gone already is fine."""
        self.k8s_client.remove_deployment(name, namespace)

    def deploy_gpu_drivers(self) -> None:
        """Have NVIDIA's driver installed on all nodes with GPUs, now and later, and wait for those there are.

        GKE does so by itself for node pools whose configuration asks for it, as
        :func:`~gravswell.cloudbreak.google.create_gpu_node_pool_config`'s does; this is for all others. Where NVIDIA's
        GPU operator manages the drivers, it is left to that.
        """
        if self.k8s_client.has_daemon_set(GPU_OPERATOR_DRIVERS):
            return
        objects = manifests.render(*manifests.read("gpu-drivers.yaml", TEMPLATES), {})
        self.k8s_client.apply(objects, "kube-system")
        self.k8s_client.wait_for_daemon_set("nvidia-driver-installer", "kube-system")

    def _submit(self, wanted: container.Cluster) -> container.Operation:
        return self.api.create_cluster(wanted)

    def _submit_deletion(self) -> container.Operation:
        return self.api.delete_cluster(self.name)

    def _account(self) -> Account:
        found = self.get()
        if not found.endpoint:
            raise UnavailableError(
                f"{self.label} has no API server yet: it is {found.status.name.lower()}; wait for it"
            )
        try:
            authority = base64.b64decode(found.master_auth.cluster_ca_certificate, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise UnavailableError(f"{self.label}: its authority's certificate cannot be read") from None
        return _account(self.api, Endpoint(f"https://{found.endpoint}", ca_data=authority or None))


def _account(api: Api, endpoint: Endpoint) -> Account:
    def header() -> str | None:
        token = api.token()
        return None if token is None else f"Bearer {token}"

    async def renew(refused: bool) -> tuple[str | None, None]:
        del refused  # Google's library knows how long a token holds
        return await asyncio.to_thread(header), None

    return Account(endpoint, header(), renew=renew, seconds=TOKEN_SECONDS)
