"""Where the nodes of a ``GPUNodePool`` come from: a union, one member for each provider type."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gravswell_operator.api.common import LABEL_KEYS, ApiModel, DnsLabel, DnsName, LabelValue, QualifiedName
from gravswell_operator.api.rules import Rule


class StaticProvider(ApiModel):
    """Nodes that exist already."""

    match_labels: Annotated[dict[str, LabelValue], Field(min_length=1, max_length=64), LABEL_KEYS]
    """The nodes that carry all of these labels belong to the pool."""


class NodeClassReference(ApiModel):
    """The object that says how Karpenter's cloud provider makes a node: its image, network and identity."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.group == oldSelf.group && self.kind == oldSelf.kind",
            "the group and the kind of nodeClassRef are immutable, as Karpenter's are; make a new GPUNodePool",
        ),
    )

    group: DnsName
    """API group of the node class, such as karpenter.k8s.aws."""
    kind: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=63)]
    """Kind of the node class, such as EC2NodeClass."""
    name: DnsName
    """Name of the node class; it has no namespace."""


class InstanceLabels(ApiModel):
    """The labels by which Karpenter's cloud provider tells its machines apart."""

    accelerator_type: QualifiedName
    """Its value is the name of a machine's GPUs; the pool asks for accelerator.type."""
    accelerator_count: QualifiedName
    """Its value is the number of a machine's GPUs; the pool asks for accelerator.count."""
    vcpus: QualifiedName | None = None
    """Its value is the number of a machine's vCPUs; needed where the pool asks for vcpus."""


class Requirement(ApiModel):
    """What a machine's label must be besides, such as its zone or whether it may be taken away."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            "values belong to the operators In and NotIn, which need one at least",
            lambda requirement: (requirement.operator in ("In", "NotIn")) == bool(requirement.values),
            ".values",
        ),
    )

    key: QualifiedName
    """The label's key, such as topology.kubernetes.io/zone or karpenter.sh/capacity-type."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label's value is compared with the values."""
    values: Annotated[
        tuple[LabelValue, ...], Field(max_length=64, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    """The values that the label may have, or may not have."""


INSTANCE_LABELS = {
    "karpenter.k8s.aws": InstanceLabels(
        accelerator_type="karpenter.k8s.aws/instance-gpu-name",
        accelerator_count="karpenter.k8s.aws/instance-gpu-count",
        vcpus="karpenter.k8s.aws/instance-cpu",
    ),
    "eks.amazonaws.com": InstanceLabels(
        accelerator_type="eks.amazonaws.com/instance-gpu-name",
        accelerator_count="eks.amazonaws.com/instance-gpu-count",
        vcpus="eks.amazonaws.com/instance-cpu",
    ),
    "karpenter.azure.com": InstanceLabels(
        accelerator_type="karpenter.azure.com/sku-gpu-name",
        accelerator_count="karpenter.azure.com/sku-gpu-count",
        vcpus="karpenter.azure.com/sku-cpu",
    ),
}
"""What the known cloud providers of Karpenter call these facts, by the API group of their node classes."""


class KarpenterProvider(ApiModel):
    """Nodes that Karpenter makes and removes."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"has(self.instanceLabels) || self.nodeClassRef.group in {sorted(INSTANCE_LABELS)}",
            "instanceLabels is needed: which labels say the type and the number of a machine's GPUs is known only for "
            f"node classes of {', '.join(sorted(INSTANCE_LABELS))}",
            lambda karpenter: karpenter.labels is not None,
            ".instanceLabels",
        ),
    )

    node_class_ref: NodeClassReference
    """The node class from which the pool's nodes are made; who runs Karpenter makes it."""
    instance_labels: InstanceLabels | None = None
    """The labels by which machines with the pool's GPUs are found; absent: those of the node class's cloud."""
    requirements: Annotated[
        tuple[Requirement, ...], Field(max_length=24, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    """What the pool's machines must be besides their GPUs and vCPUs: zones, capacity types, families."""

    @property
    def labels(self) -> InstanceLabels | None:
        """The labels by which machines are found; None where nobody says them."""
        return self.instance_labels or INSTANCE_LABELS.get(self.node_class_ref.group)


ParameterValue = Annotated[str, Field(max_length=1024)]

_GKE_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_ZONE = r"^[a-z]+-[a-z]+[0-9]+-[a-z]$"


class GKEProvider(ApiModel):
    """A node pool of a cluster of Google Kubernetes Engine: the operator makes, sizes and deletes it."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.zone) || self.location.matches('^[a-z]+-[a-z]+[0-9]+-[a-z]$')",
            "the location is a region: zone is needed, the one in which the pool's machines are",
            lambda gke: gke.zone is not None or re.fullmatch(_ZONE, gke.location) is not None,
            ".zone",
        ),
        Rule(
            "self == oldSelf",
            "a node pool's machines and place cannot be changed; make a new GPUNodePool",
        ),
    )

    project: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9.:]*[a-z0-9])?$", max_length=63)]
    """The id of the project that the cluster is in."""
    location: Annotated[str, Field(pattern=r"^[a-z]+-[a-z]+[0-9]+(-[a-z])?$", max_length=32)]
    """Where the cluster is: a zone, such as us-east4-b, or a region, such as us-east4."""
    cluster: Annotated[str, Field(pattern=_GKE_NAME, max_length=40)]
    """Name of the cluster: the one that the operator runs in."""
    zone: Annotated[str, Field(pattern=_ZONE, max_length=32)] | None = None
    """The zone of the pool's machines; absent: the location. GPUs differ from zone to zone, so that a pool has one."""
    machine_type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=63)] | None = None
    """Machine type, such as n1-standard-16 or g2-standard-24; absent: the one with the pool's vcpus and GPUs."""
    disk_size_gb: Annotated[int, Field(ge=10, le=65536)] | None = Field(default=None, alias="diskSizeGB")
    """Size of each machine's boot disk in GB; absent: what GKE takes, 100."""
    disk_type: Literal["pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced"] | None = None
    """Type of the boot disks; absent: what GKE takes for the machine."""
    spot: bool = False
    """Machines that cost less and that Google may take away at any time."""
    service_account: Annotated[str, Field(pattern=r"^[a-z0-9.@-]+$", max_length=128)] | None = None
    """Google's service account of the machines, by its address; absent: the project's default one."""


class CustomProvider(ApiModel):
    """Nodes that a provider of others' makes, which is installed beside the operator."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.name == oldSelf.name",
            "a pool keeps the provider that made its nodes; make a new GPUNodePool",
            field_path=".name",
        ),
    )

    name: DnsLabel
    """The provider's name: that of its entry point in the group gravswell.providers."""
    parameters: Annotated[dict[str, ParameterValue], Field(max_length=64)] = Field(default_factory=dict)
    """What the provider is told, by names of its own; its documentation has them. No secrets: whoever may see the pool
    reads them."""


def _member(kind: str, field: str, needs: str) -> tuple[Rule, ...]:
    """The rules of one member of the union: there with its type, and with no other."""
    return (
        Rule(
            f"self.type != '{kind}' || has(self.{field})",
            f"a provider of type {kind} needs the field {field}, with {needs}",
            lambda provider: provider.type != kind or getattr(provider, field) is not None,
        ),
        Rule(
            f"self.type == '{kind}' || !has(self.{field})",
            f"the field {field} belongs to a provider of type {kind}; take it away, or change the type",
            lambda provider: provider.type == kind or getattr(provider, field) is None,
            f".{field}",
        ),
    )


class Provider(ApiModel):
    """Where the nodes come from: the type, and the field of that name in lower case."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        *_member("Static", "static", "the labels of its nodes"),
        *_member("Karpenter", "karpenter", "the node class of its nodes"),
        *_member("GKE", "gke", "the project, the location and the name of the cluster"),
        *_member("Custom", "custom", "the name of the provider"),
        Rule(
            "self.type == oldSelf.type",
            "the provider's type is immutable; make a new GPUNodePool",
            field_path=".type",
        ),
    )

    type: Literal["Static", "Karpenter", "GKE", "Custom"]
    """Static: nodes that exist already, found by their labels. Karpenter: nodes that Karpenter makes and removes.
    GKE: a node pool of the cluster, which the operator makes by Google's Container API. Custom: whatever a provider
    makes that was installed beside the operator."""
    static: StaticProvider | None = None
    """For the type Static: which nodes."""
    karpenter: KarpenterProvider | None = None
    """For the type Karpenter: from which node class."""
    gke: GKEProvider | None = None
    """For the type GKE: in which cluster, and what machines."""
    custom: CustomProvider | None = None
    """For the type Custom: which provider, and what it is told."""

    @property
    def key(self) -> str:
        """By which the operator knows the provider: the type, or a custom one's own name."""
        return self.custom.name if self.custom is not None else self.type
