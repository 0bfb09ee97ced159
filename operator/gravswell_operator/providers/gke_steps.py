"""One step of a GKE node pool towards what its ``GPUNodePool`` asks for, or towards nothing."""

import base64
from functools import cached_property

from google.cloud import container_v1 as container

from gravswell import durations
from gravswell.cloudbreak.errors import LostError, TakenError
from gravswell.cloudbreak.google import Api, create_gpu_node_pool_config
from gravswell.cloudbreak.google.config import NODE_SCOPES, accelerator
from gravswell.cloudbreak.google.failures import broken, failure
from gravswell.cloudbreak.google.owners import labels_of
from gravswell.cloudbreak.machines import GPU_TYPES
from gravswell.cloudbreak.tags import RETAINED
from gravswell.errors import AccessDeniedError, ConflictError, GravswellError, NotFoundError
from gravswell_operator.api import GPUNodePool
from gravswell_operator.api.gpunodepool import CloudStatus
from gravswell_operator.api.providers import GKEProvider
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.placement import pool_node_selector
from gravswell_operator.desired.pools import drain_timeout
from gravswell_operator.providers.base import Ask, CloudState, fingerprints
from gravswell_operator.state import Problem

NAME_LENGTH = 40
"""Of a node pool, by Google's rules."""
GKE_TAINT = "nvidia.com/gpu"
"""The taint that GKE gives to machines with GPUs by itself."""

_EFFECTS = {
    None: container.NodeTaint.Effect.NO_SCHEDULE,
    "NoSchedule": container.NodeTaint.Effect.NO_SCHEDULE,
    "PreferNoSchedule": container.NodeTaint.Effect.PREFER_NO_SCHEDULE,
    "NoExecute": container.NodeTaint.Effect.NO_EXECUTE,
}
_Status = container.NodePool.Status


def pool_name(pool: GPUNodePool) -> str:
    """The node pool's name: it follows from the object, so that a second call of its creation makes no second one."""
    uid = pool.metadata.uid.partition("-")[0]
    return f"gw-{pool.metadata.name[: NAME_LENGTH - len(uid) - 4].rstrip('-')}-{uid}"


class Steps:
    """What one pass may do. Every method makes one change at most, and raises what Google answers.

    Made where a look at the operation that is remembered, and at the node pool, comes first.
    """

    def __init__(self, api: Api, ask: Ask) -> None:
        gke = ask.pool.spec.provider.gke
        assert gke is not None  # a rule of the union
        self.api, self.ask, self.gke = api, ask, gke
        self.name = pool_name(ask.pool)
        self.label = api.label(gke.cluster, self.name)
        self._before = ask.pool.status.cloud or CloudStatus()

    def towards(self) -> CloudState:
        """One step towards what is asked for."""
        if self._running is not None:
            return self._working(self._running)
        found = self._found
        if found is None:
            return self._create()
        if found.status in {_Status.PROVISIONING, _Status.STOPPING}:
            return self._waiting(f"{self.label}: {found.status.name.lower()}")
        return self._fit(found)

    def away(self) -> CloudState:
        """One step towards nothing being left."""
        try:
            if self._running is not None:
                return self._working(self._running)
            found = self._found
            if found is None:
                return CloudState(gone=True)
            if found.status == _Status.STOPPING:
                return self._waiting(f"{self.label} is being deleted: Google drains its nodes")
            return self._working(self.api.delete_pool(self.gke.cluster, self.name))
        except NotFoundError:  # it, the cluster, or the whole API
            return CloudState(gone=True)

    def authorities(self) -> frozenset[str]:
        """The certificate authorities of the cluster's API server, as Google says; empty where it does not."""
        try:
            encoded = self.api.cluster(self.gke.cluster).master_auth.cluster_ca_certificate
        except AccessDeniedError:
            return frozenset()  # the right to look at clusters is not needed for anything else
        return fingerprints(base64.b64decode(encoded).decode())

    @cached_property
    def failed(self) -> GravswellError | None:
        """What the operation that is remembered failed with."""
        operation = self._operation
        if operation is None or operation.status != container.Operation.Status.DONE:
            return None
        return failure(self.label, operation)

    @property
    def deletion_failed(self) -> GravswellError | None:
        """The same, of an operation that was to delete the node pool."""
        operation = self._operation
        deleted = operation is not None and operation.operation_type == container.Operation.Type.DELETE_NODE_POOL
        return self.failed if deleted else None

    @cached_property
    def broken(self) -> GravswellError | None:
        """What is wrong with the node pool, where it could not be made or does not work any more."""
        if self._running is not None or self._found is None or self._found.status != _Status.ERROR:
            return None
        return broken(self.label, self._found.status_message, list(self._found.conditions))

    @cached_property
    def _operation(self) -> container.Operation | None:
        """The operation that is remembered, as long as Google does too."""
        if not self._before.operation:
            return None
        try:
            return self.api.operation(self._before.operation)
        except NotFoundError:
            return None

    @property
    def _running(self) -> container.Operation | None:
        operation = self._operation
        return operation if operation and operation.status != container.Operation.Status.DONE else None

    @cached_property
    def _found(self) -> container.NodePool | None:
        """The node pool with our tag; TakenError where what bears its name has none."""
        pools = self.api.pools(self.gke.cluster)
        tag = self.ask.tag.items()
        tagged = next((pool for pool in pools if tag <= labels_of(pool).items()), None)
        if tagged is None and any(pool.name == self.name for pool in pools):
            raise TakenError(
                f"{self.label} exists and does not bear the label gravswell-pool={self.ask.pool.metadata.uid}: it was "
                "not made for this pool, and is left alone; delete it, or make the GPUNodePool anew"
            )
        if tagged is not None:
            self.name = tagged.name
        return tagged

    def _create(self) -> CloudState:
        try:
            operation = self.api.create_pool(self.gke.cluster, self._wanted())
        except ConflictError as error:
            if type(error) is not ConflictError:
                raise
            raise LostError(f"{self.label} appeared while it was being made; it is looked at again") from error
        return self._working(operation, size=self._fixed)

    def _fit(self, found: container.NodePool) -> CloudState:
        """What a node pool that runs is told, if its size is not the wanted one."""
        scale, resize = self._autoscaled_otherwise(found), self._fixed is not None and self._before.size != self._fixed
        labels = labels_of(found)
        marked = {key: value for key, value in labels.items() if key != RETAINED} | self.ask.mark
        if (scale or resize or marked != labels) and found.status == _Status.RECONCILING:
            return self._waiting(f"{self.label}: reconciling")
        if marked != labels:
            return self._working(self.api.label_pool(self.gke.cluster, found.name, marked))
        if scale:
            return self._working(self.api.autoscale_pool(self.gke.cluster, found.name, self._autoscaling()))
        if resize:
            nodes = self.ask.bounds.minimum
            return self._working(self.api.resize_pool(self.gke.cluster, found.name, nodes), size=nodes)
        if found.status == _Status.RUNNING_WITH_ERROR:
            raise broken(self.label, found.status_message, list(found.conditions))
        return CloudState(remembered=self.remembered(size=self._before.size))

    def _autoscaled_otherwise(self, found: container.NodePool) -> bool:
        """Whether Google's autoscaler is told something else than is wanted."""
        scaled, wanted = found.autoscaling, self._autoscaling()
        bounds = [(told.total_min_node_count, told.total_max_node_count) for told in (scaled, wanted)]
        return scaled.enabled != wanted.enabled or (wanted.enabled and bounds[0] != bounds[1])

    @property
    def _fixed(self) -> int | None:
        """The number of nodes that we say; None where Google's autoscaler does."""
        return self.ask.bounds.minimum if self.ask.pool.spec.autoscaling is None else None

    def _autoscaling(self) -> container.NodePoolAutoscaling:
        if self._fixed is not None:
            return container.NodePoolAutoscaling(enabled=False)
        bounds = self.ask.bounds
        return container.NodePoolAutoscaling(
            enabled=True, total_min_node_count=bounds.minimum, total_max_node_count=bounds.maximum
        )

    def _wanted(self) -> container.NodePool:
        gke, pool = self.gke, self.ask.pool
        drain = container.NodePool.NodeDrainConfig(
            respect_pdb_during_node_pool_deletion=True,
            pdb_timeout_duration={"seconds": durations.seconds(drain_timeout(pool))},
        )
        return container.NodePool(
            name=self.name,
            initial_node_count=self.ask.bounds.minimum,
            locations=[gke.zone or gke.location],
            config=_machines(pool, gke, {**self.ask.tag, **self.ask.mark}),
            autoscaling=self._autoscaling() if self._fixed is None else None,
            management=container.NodeManagement(auto_repair=True, auto_upgrade=True),
            node_drain_config=drain,
        )

    def _working(self, operation: container.Operation, *, size: int | None = None) -> CloudState:
        words = f"{self.label}: {operation.operation_type.name.lower().replace('_', ' ')} {operation.detail}".strip()
        return CloudState(
            remembered=self.remembered(operation.name, size if size is not None else self._before.size),
            problem=Problem(Reason.PROVIDER_STARTING, f"{words} is under way"),
        )

    def _waiting(self, words: str) -> CloudState:
        problem = Problem(Reason.PROVIDER_STARTING, words)
        return CloudState(remembered=self.remembered(size=self._before.size), problem=problem)

    def remembered(self, operation: str = "", size: int | None = None) -> CloudStatus:
        """What the next pass shall know: of a size that is not said again, that it must be."""
        path = self.api.path(self.gke.cluster, self.name)
        return CloudStatus(resource=path, operation=operation, size=size if self._fixed is not None else None)


def _machines(pool: GPUNodePool, gke: GKEProvider, labels: dict[str, str]) -> container.NodeConfig:
    """What each machine of the node pool is."""
    gpus, kind = pool.spec.accelerator.count, pool.spec.accelerator.type
    taints = [
        container.NodeTaint(key=taint.key, value=taint.value or "", effect=_EFFECTS[taint.effect])
        for taint in pool.spec.taints
        if taint.key != GKE_TAINT
    ]
    options = {
        "labels": pool_node_selector(pool),
        "resource_labels": labels,
        "taints": taints,
        "spot": gke.spot,
        "disk_size_gb": gke.disk_size_gb or 0,
        "disk_type": gke.disk_type or "",
        "service_account": gke.service_account or "",
    }
    if gke.machine_type is None:
        assert pool.spec.vcpus is not None  # a rule of the pool
        return create_gpu_node_pool_config(pool.spec.vcpus, gpus, kind, **options)
    return container.NodeConfig(
        machine_type=gke.machine_type,
        accelerators=[accelerator(GPU_TYPES.get(kind.lower(), kind), gpus)],
        oauth_scopes=list(NODE_SCOPES),
        **options,
    )
