"""``GPUNodePool``: a set of nodes with GPUs, and where they come from."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gravswell_operator.api.common import (
    ApiModel,
    Column,
    DnsLabel,
    Duration,
    ImageReference,
    LabelValue,
    Names,
    QualifiedName,
    Resource,
    Scale,
    Status,
    name_rule,
)
from gravswell_operator.api.providers import Provider
from gravswell_operator.api.rules import Rule


class Accelerator(ApiModel):
    """The GPUs of one node."""

    type: LabelValue
    """What the GPUs are called: of a Static pool for people, such as nvidia-tesla-t4; with Karpenter the very value of
    the label by which its cloud names them, such as t4; with GKE t4, l4, a100… or as Google writes it."""
    count: Annotated[int, Field(ge=1, le=16)]
    """GPUs on each node."""
    resource_name: QualifiedName = "nvidia.com/gpu"
    """The extended resource by which pods ask for them."""


class Taint(ApiModel):
    """A taint that the pool's nodes carry; servers on this pool tolerate it."""

    key: QualifiedName
    """The taint's key."""
    value: LabelValue | None = None
    """The taint's value; absent: any."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; absent: all."""


class Drivers(ApiModel):
    """What makes the GPUs visible to Kubernetes."""

    install: bool = False
    """Run NVIDIA's device plugin on the pool's nodes, as a DaemonSet in a privileged namespace of its own. Leave it
    off where the cluster or the GPU operator does this already."""
    image: ImageReference | None = None
    """Image of the device plugin; absent: the one that this release was made with."""


class PoolAutoscaling(ApiModel):
    """How many nodes the pool has, as its servers need them."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.min <= self.max",
            "min must not be above max",
            lambda autoscaling: autoscaling.min <= autoscaling.max,
            ".min",
        ),
    )

    min: Annotated[int, Field(ge=0, le=1000)] = 0
    """Nodes that the pool keeps while it is in use."""
    max: Annotated[int, Field(ge=1, le=1000)]
    """Nodes that the pool may have."""


class GPUNodePoolSpec(ApiModel):
    """What the pool shall be."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.size) && has(self.autoscaling))",
            "size and autoscaling exclude each other: a fixed number of nodes, or as many as are needed",
            lambda spec: spec.size is None or spec.autoscaling is None,
        ),
        Rule(
            "self.provider.type == 'Static' || has(self.size) || has(self.autoscaling)",
            "a provider that makes nodes must be told how many: set size or autoscaling",
            lambda spec: not spec.managed or spec.size is not None or spec.autoscaling is not None,
        ),
        Rule(
            "self.provider.type != 'Static' || !(has(self.autoscaling) || has(self.idleAfter) || has(self.vcpus))",
            "a Static pool has the nodes that there are: autoscaling, idleAfter and vcpus need one that makes nodes",
            lambda spec: spec.managed or (spec.autoscaling is None and spec.idle_after is None and spec.vcpus is None),
        ),
        Rule(
            "self.provider.type != 'Karpenter' || !has(self.autoscaling) || self.autoscaling.min == 0",
            "Karpenter makes nodes for pods that wait, and keeps none in reserve: autoscaling.min must be 0; for a "
            "fixed number of nodes set size instead",
            lambda spec: spec.provider.type != "Karpenter" or spec.autoscaling is None or spec.autoscaling.min == 0,
            ".autoscaling.min",
        ),
        Rule(
            "self.provider.type != 'Karpenter' || has(self.size) == has(oldSelf.size)",
            "Karpenter cannot turn a pool with size into one with autoscaling, or back; make a new GPUNodePool",
        ),
        Rule(
            "!has(self.vcpus) || !has(self.provider.karpenter) || !has(self.provider.karpenter.instanceLabels) || "
            "has(self.provider.karpenter.instanceLabels.vcpus)",
            "vcpus needs provider.karpenter.instanceLabels.vcpus: the label that says how many a machine has",
            lambda spec: (
                spec.vcpus is None
                or spec.provider.karpenter is None
                or spec.provider.karpenter.labels.vcpus is not None
            ),
            ".vcpus",
        ),
        Rule(
            "!has(self.provider.gke) || has(self.provider.gke.machineType) || has(self.vcpus)",
            "which machine a node of GKE's is must be told: set vcpus, or provider.gke.machineType",
            lambda spec: (
                spec.provider.gke is None or spec.provider.gke.machine_type is not None or spec.vcpus is not None
            ),
        ),
        Rule(
            "!has(self.provider.gke) || (self.accelerator == oldSelf.accelerator && "
            "has(self.vcpus) == has(oldSelf.vcpus) && (!has(self.vcpus) || self.vcpus == oldSelf.vcpus))",
            "the GPUs and vCPUs of machines that exist cannot be changed; make a new GPUNodePool",
        ),
        Rule(
            "!has(self.provider.gke) || (self.taints == oldSelf.taints && "
            "has(self.drainTimeout) == has(oldSelf.drainTimeout) && "
            "(!has(self.drainTimeout) || self.drainTimeout == oldSelf.drainTimeout))",
            "a node pool of GKE's keeps the taints and the drainTimeout that it was made with; make a new GPUNodePool",
        ),
    )

    provider: Provider
    """Where the nodes come from."""
    accelerator: Accelerator
    """The GPUs of each node."""
    vcpus: Annotated[int, Field(ge=1, le=1024)] | None = None
    """vCPUs of each node that the provider makes; absent: whatever machine has the GPUs."""
    size: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Nodes that the pool shall have; of a Static pool absent: one. The pool is Ready when at least so many are."""
    autoscaling: PoolAutoscaling | None = None
    """In place of size: as many nodes as the servers on the pool need, within these bounds."""
    idle_after: Duration | None = None
    """How long the pool may stand unused before its nodes are removed, such as 30m; they come back when a server needs
    them. Absent: a pool of a fixed size stays, and nodes that autoscaling added go after ten minutes without a pod."""
    drain_timeout: Duration | None = None
    """How long the pods of a node that is removed may take to move or end; after it the node goes with them. Absent:
    one hour."""
    deletion_policy: Literal["Delete", "Retain"] = "Delete"
    """What becomes of the nodes that were made for the pool when it is deleted. Delete: they are drained and removed.
    Retain: they stay, with what makes them. Static nodes always stay."""
    taints: Annotated[
        tuple[Taint, ...], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = (Taint(key="nvidia.com/gpu", value=None, effect=None),)
    """Taints of the nodes that servers on this pool tolerate; absent: nvidia.com/gpu, whatever its value and effect."""
    drivers: Drivers = Drivers()
    """What makes the GPUs visible to Kubernetes."""
    allowed_namespaces: Annotated[
        tuple[DnsLabel, ...], Field(max_length=256, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """Namespaces whose servers may use the pool; absent or empty: all."""
    suspend: bool = False
    """True: the operator leaves the pool and what belongs to it as they are."""

    @property
    def managed(self) -> bool:
        """Whether the pool's nodes are made and removed for it."""
        return self.provider.type != "Static"


class CloudStatus(ApiModel):
    """What the operator remembers of the pool's things in a cloud, between two looks."""

    resource: Annotated[str, Field(max_length=1024)] = ""
    """Full name of what was made for the pool there."""
    operation: Annotated[str, Field(max_length=1024)] = ""
    """Name of the long-running operation that is under way there; empty: none."""
    size: Annotated[int, Field(ge=0)] | None = None
    """Nodes that it was last asked to have there; absent where the cloud itself says so, or sizes it."""


class GPUNodePoolStatus(Status):
    """What the pool is."""

    nodes: int = 0
    """Nodes that belong to the pool."""
    ready_nodes: int = 0
    """Of these, the ones that are ready and schedulable."""
    allocatable_gpus: int = Field(default=0, alias="allocatableGPUs")
    """GPUs that the ready nodes offer."""
    pending_nodes: int = 0
    """Nodes that were asked for and do not belong to the cluster yet."""
    idle_since: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """Since when no server has used the pool; absent while one does, or where idleAfter is not set."""
    selector: str = ""
    """Label selector of the nodes, as text, for kubectl get nodes -l."""
    cloud: CloudStatus | None = None
    """What was made for the pool in a cloud; absent where its provider makes nothing outside the cluster."""


class GPUNodePool(Resource):
    """A set of nodes with GPUs, where they come from, and who may use them."""

    RULES: ClassVar[tuple[Rule, ...]] = (name_rule("a GPUNodePool"),)

    NAMES: ClassVar[Names] = Names(
        kind="GPUNodePool",
        plural="gpunodepools",
        short=("gnp",),
        scope="Cluster",
        scale=Scale(".spec.size", ".status.nodes"),
        columns=(
            Column("Provider", ".spec.provider.type"),
            Column("Accelerator", ".spec.accelerator.type"),
            Column("Nodes", ".status.nodes", "integer"),
            Column("Ready Nodes", ".status.readyNodes", "integer"),
            Column("GPUs", ".status.allocatableGPUs", "integer"),
            Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            Column("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Message", ".status.conditions[?(@.type=='Ready')].message", wide=True),
        ),
    )

    spec: GPUNodePoolSpec
    status: GPUNodePoolStatus = GPUNodePoolStatus()
