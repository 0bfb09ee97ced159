"""``GPUNodePool``: a set of nodes with GPUs, and where they come from."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gravswell_operator.api.common import (
    ApiModel,
    Column,
    DnsLabel,
    Labels,
    LabelValue,
    Names,
    Resource,
    Rule,
    Scale,
    Status,
)


class Accelerator(ApiModel):
    """The GPUs of one node."""

    type: Annotated[str, Field(min_length=1, max_length=63)]
    """What the GPUs are called, such as nvidia-tesla-t4; shown, and compared with the nodes' labels where they say."""
    count: Annotated[int, Field(ge=1, le=16)]
    """GPUs on each node."""
    resource_name: Annotated[str, Field(min_length=1, max_length=253)] = "nvidia.com/gpu"
    """The extended resource by which pods ask for them."""


class StaticProvider(ApiModel):
    """Nodes that exist already."""

    match_labels: Annotated[Labels, Field(min_length=1)]
    """The nodes that carry all of these labels belong to the pool."""


class Provider(ApiModel):
    """Where the nodes come from: `type`, and the field of that name in lower case."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("self.type != 'Static' || has(self.static)", "a provider of type Static needs the field static"),
        Rule("self.type == oldSelf.type", "the provider's type is immutable; make a new GPUNodePool", ".type"),
    )

    type: Literal["Static"]
    """Static: nodes that exist already, found by their labels."""
    static: StaticProvider | None = None
    """For the type Static: which nodes."""


class Taint(ApiModel):
    """A taint that the pool's nodes carry; servers on this pool tolerate it."""

    key: Annotated[str, Field(min_length=1, max_length=317)]
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
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Image of the device plugin; absent: the one that this release was made with."""


class GPUNodePoolSpec(ApiModel):
    """What the pool shall be."""

    provider: Provider
    """Where the nodes come from."""
    accelerator: Accelerator
    """The GPUs of each node."""
    size: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Nodes that the pool shall have. Of a Static pool: how many must be ready for it to be Ready; absent: one."""
    taints: Annotated[
        tuple[Taint, ...], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = (Taint(key="nvidia.com/gpu", value=None, effect=None),)
    """Taints of the nodes that servers on this pool tolerate."""
    drivers: Drivers = Drivers()
    """What makes the GPUs visible to Kubernetes."""
    allowed_namespaces: Annotated[
        tuple[DnsLabel, ...], Field(max_length=256, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """Namespaces whose servers may use the pool; empty: all."""
    suspend: bool = False
    """True: the operator leaves the pool and what belongs to it as they are."""


class GPUNodePoolStatus(Status):
    """What the pool is."""

    nodes: int = 0
    """Nodes that belong to the pool."""
    ready_nodes: int = 0
    """Of these, the ones that are ready and schedulable."""
    allocatable_gpus: int = Field(default=0, alias="allocatableGPUs")
    """GPUs that the ready nodes offer."""
    selector: str = ""
    """Label selector of the nodes, as text, for /scale."""


class GPUNodePool(Resource):
    """A set of nodes with GPUs, where they come from, and who may use them."""

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
            Column("Reason", ".status.conditions[?(@.type=='Ready')].reason", wide=True),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )

    spec: GPUNodePoolSpec
    status: GPUNodePoolStatus = GPUNodePoolStatus()
