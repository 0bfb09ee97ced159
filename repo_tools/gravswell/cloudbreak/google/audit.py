"""What of ours is in a project: clusters and node pools with our labels, and for whom they were made."""

import enum
from dataclasses import dataclass
from pathlib import Path

from google.cloud import container_v1 as container

from gravswell.cloudbreak.errors import TakenError
from gravswell.cloudbreak.google.api import Api
from gravswell.cloudbreak.google.nodepool import NodePool
from gravswell.cloudbreak.google.owners import OWNER, labels_of
from gravswell.cloudbreak.google.resource import WAIT_SECONDS
from gravswell.cloudbreak.kubernetes import GPU_NODE_POOL
from gravswell.cloudbreak.tags import CLUSTER_ID, POOL_ID, RETAINED
from gravswell.kube import credentials
from gravswell.kube.client import Client
from gravswell.kube.errors import ApiNotFoundError
from gravswell.kube.resources import NAMESPACE, Selection


@dataclass(frozen=True, slots=True)
class PoolFound:
    """A node pool with one of our labels."""

    location: str
    cluster: str
    name: str
    path: str
    """As Google names it."""
    status: str
    machine_type: str
    gpus: int
    """On each machine."""
    owner: str = ""
    """Who made it by the library; empty where an operator did."""
    pool_id: str = ""
    """For which ``GPUNodePool`` an operator made it."""
    cluster_id: str = ""
    """Of which cluster that operator is."""
    retained: bool = False
    """Whether it shall outlive its ``GPUNodePool``."""


@dataclass(frozen=True, slots=True)
class ClusterFound:
    """A cluster that was made by the library."""

    location: str
    name: str
    path: str
    status: str
    owner: str
    created: str
    """RFC 3339."""


@dataclass(frozen=True, slots=True)
class Found:
    """Everything of ours, and where nobody could look."""

    clusters: tuple[ClusterFound, ...]
    pools: tuple[PoolFound, ...]
    missing_zones: tuple[str, ...]


def find(api: Api) -> Found:
    """Everything with our labels in the API's location; of :data:`~gravswell.cloudbreak.google.api.EVERYWHERE`, in all.

    One call. Errors as of :class:`Api`.
    """
    clusters, missing = api.clusters()
    made, pools = [], []
    for cluster in clusters:
        path = f"projects/{api.project}/locations/{cluster.location}/clusters/{cluster.name}"
        if owner := labels_of(cluster).get(OWNER):
            made.append(
                ClusterFound(
                    location=cluster.location,
                    name=cluster.name,
                    path=path,
                    status=cluster.status.name,
                    owner=owner,
                    created=cluster.create_time,
                )
            )
        for pool in cluster.node_pools:
            labels = labels_of(pool)
            if not {OWNER, POOL_ID} & set(labels):
                continue
            pools.append(
                PoolFound(
                    location=cluster.location,
                    cluster=cluster.name,
                    name=pool.name,
                    path=f"{path}/nodePools/{pool.name}",
                    status=pool.status.name,
                    machine_type=pool.config.machine_type,
                    gpus=sum(accelerator.accelerator_count for accelerator in pool.config.accelerators),
                    owner="" if POOL_ID in labels else labels[OWNER],
                    pool_id=labels.get(POOL_ID, ""),
                    cluster_id=labels.get(CLUSTER_ID, ""),
                    retained=RETAINED in labels,
                )
            )
    return Found(tuple(made), tuple(pools), tuple(missing))


class Verdict(enum.StrEnum):
    """Whose a node pool is."""

    OWNED = "owned"
    """Its ``GPUNodePool`` is there."""
    ORPHAN = "orphan"
    """It was made for a ``GPUNodePool`` that is not there any more."""
    RETAINED = "retained"
    """The same, and that one said that it shall stay."""
    ELSEWHERE = "elsewhere"
    """It is of another cluster's operator, which was not asked."""
    BY_HAND = "by hand"
    """Somebody made it by the library."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a cluster's API server says."""

    cluster_id: str
    """The uid of its namespace kube-system."""
    pools: frozenset[str]
    """The uids of all its ``GPUNodePool`` objects."""


async def ask(kubeconfig: Path | None = None, context: str | None = None) -> Asked:
    """Which cluster it is, and which ``GPUNodePool`` objects it has; where it does not know the kind, none.

    Errors as of :func:`gravswell.kube.credentials.load` and of :mod:`gravswell.kube.errors`.
    """
    account = await credentials.load(kubeconfig, context)
    async with Client(account, name="gravswell-audit") as client:
        home = await client.get(NAMESPACE, None, "kube-system")
        try:
            listed = (await client.list_all(Selection(GPU_NODE_POOL))).items
        except ApiNotFoundError:
            listed = []
    return Asked(home["metadata"]["uid"], frozenset(body["metadata"]["uid"] for body in listed))


def judge(pool: PoolFound, asked: Asked) -> Verdict:
    """Whose the node pool is, by what one cluster says."""
    if not pool.pool_id:
        return Verdict.BY_HAND
    if pool.cluster_id != asked.cluster_id:
        return Verdict.ELSEWHERE
    if pool.pool_id in asked.pools:
        return Verdict.OWNED
    return Verdict.RETAINED if pool.retained else Verdict.ORPHAN


def remove(api: Api, pool: PoolFound, *, seconds: float = WAIT_SECONDS) -> None:
    """Delete a node pool that was found, and wait until it is gone. ``api`` is that of its location.

    Raises :class:`TakenError` where it bears another label by now than it was found with.
    """

    def check(found: container.NodePool) -> None:
        if labels_of(found).get(POOL_ID) != pool.pool_id:
            raise TakenError(
                f"{api.label(pool.cluster, pool.name)} is not the one that was found, and stays; audit again"
            )

    NodePool(api, pool.cluster, pool.name, owner="", seconds=seconds).remove(check)
