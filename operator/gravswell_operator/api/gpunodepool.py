"""``GPUNodePool``: a set of nodes with GPUs, and where they come from."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gravswell_operator.api.common import (
    LABEL_KEYS,
    ApiModel,
    Column,
    DnsLabel,
    ImageReference,
    LabelValue,
    Names,
    QualifiedName,
    Resource,
    Scale,
    Status,
    name_rule,
)
from gravswell_operator.api.rules import Rule


class Accelerator(ApiModel):
    """The GPUs of one node."""

    type: LabelValue
    """What the GPUs are called, such as nvidia-tesla-t4. Shown to people; which nodes belong to the pool, the provider
    says."""
    count: Annotated[int, Field(ge=1, le=16)]
    """GPUs on each node."""
    resource_name: QualifiedName = "nvidia.com/gpu"
    """The extended resource by which pods ask for them."""


class StaticProvider(ApiModel):
    """Nodes that exist already."""

    match_labels: Annotated[dict[str, LabelValue], Field(min_length=1, max_length=64), LABEL_KEYS]
    """The nodes that carry all of these labels belong to the pool."""


class Provider(ApiModel):
    """Where the nodes come from: the type, and the field of that name in lower case."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.type != 'Static' || has(self.static)",
            "a provider of type Static needs the field static, with the labels of its nodes",
            lambda provider: provider.type != "Static" or provider.static is not None,
        ),
        Rule(
            "self.type == oldSelf.type",
            "the provider's type is immutable; make a new GPUNodePool",
            field_path=".type",
        ),
    )

    type: Literal["Static"]
    """Static: nodes that exist already, found by their labels."""
    static: StaticProvider | None = None
    """For the type Static: which nodes."""


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


class GPUNodePoolSpec(ApiModel):
    """What the pool shall be."""

    provider: Provider
    """Where the nodes come from."""
    accelerator: Accelerator
    """The GPUs of each node."""
    size: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Nodes that the pool shall have; absent: one. A Static pool is Ready when at least so many of its nodes are."""
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


class GPUNodePoolStatus(Status):
    """What the pool is."""

    nodes: int = 0
    """Nodes that belong to the pool."""
    ready_nodes: int = 0
    """Of these, the ones that are ready and schedulable."""
    allocatable_gpus: int = Field(default=0, alias="allocatableGPUs")
    """GPUs that the ready nodes offer."""
    selector: str = ""
    """Label selector of the nodes, as text, for kubectl get nodes -l."""


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
