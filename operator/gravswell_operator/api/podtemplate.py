"""What a user may add to the pods of an ``InferenceServer``, and what not."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gravswell_operator.api.common import (
    Annotations,
    ApiModel,
    DnsName,
    Labels,
    LabelValue,
    LocalReference,
    QualifiedName,
)
from gravswell_operator.api.rules import Rule

OPERATORS_LABELS = ("gravswell.dev/", "app.kubernetes.io/")
"""Prefixes of the labels by which the operator finds its objects; nobody else sets them on pods."""

SECURITY_ANNOTATIONS = "container.apparmor.security.beta.kubernetes.io/"
"""Prefix of the annotations by which a pod asks for another AppArmor profile: a security context by another name."""

OPERATORS_ENV = ("POD_IP",)
"""Variables of Triton's container that the operator sets."""

DEVICES_ENV = "NVIDIA_VISIBLE_DEVICES"
"""By its value, and past the scheduler, NVIDIA's container runtime shows a container GPUs of the node."""


class EnvVar(ApiModel):
    """One variable of Triton's environment."""

    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=253),
        Rule(
            f"!(self in [{', '.join(map(repr, OPERATORS_ENV))}])",
            f"the operator itself sets {', '.join(OPERATORS_ENV)}; choose another name",
            lambda name: name not in OPERATORS_ENV,
        ),
        # The kubelet lets it win over what the device plugin says, so it would show the GPUs of other pods.
        Rule(
            f"self != '{DEVICES_ENV}'",
            f"{DEVICES_ENV} would show Triton GPUs that it was not given; ask for GPUs with gpus and nodePoolRef",
            lambda name: name != DEVICES_ENV,
        ),
    ]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=32768)] = ""
    """Value of the variable."""


class Toleration(ApiModel):
    """A taint of nodes that the pods accept."""

    key: QualifiedName | None = None
    """The taint's key; absent: every key, with the operator Exists."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Exists: whatever the taint's value is. Equal: the value must be the same."""
    value: LabelValue | None = None
    """The taint's value, with the operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; absent: all."""
    toleration_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """With the effect NoExecute: seconds that a pod stays on a node that got the taint; absent: for ever."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.key) || self.operator == 'Exists'",
            "a toleration without a key tolerates every taint and needs the operator Exists",
            lambda toleration: toleration.key is not None or toleration.operator == "Exists",
        ),
        Rule(
            "!has(self.value) || self.operator == 'Equal'",
            "value says nothing beside the operator Exists; leave it out",
            lambda toleration: toleration.value is None or toleration.operator == "Equal",
            ".value",
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds needs the effect NoExecute",
            lambda toleration: toleration.toleration_seconds is None or toleration.effect == "NoExecute",
            ".tolerationSeconds",
        ),
    )


class TopologySpread(ApiModel):
    """How evenly the server's replicas spread over one kind of place."""

    topology_key: QualifiedName
    """Label of the nodes that tells places apart, such as topology.kubernetes.io/zone."""
    max_skew: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many replicas one place may have more than another."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = "ScheduleAnyway"
    """DoNotSchedule: a replica waits for a place that fits. ScheduleAnyway: the best place is taken."""


class PodTemplate(ApiModel):
    """What may be added to the pods: metadata, scheduling, pull secrets and environment.

    No volumes, security context or account."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.labels) || !self.labels.exists(key, "
            + " || ".join(f"key.startsWith('{prefix}')" for prefix in OPERATORS_LABELS)
            + ")",
            f"labels must not begin with {' or '.join(OPERATORS_LABELS)}: by these the operator finds its pods",
            lambda template: not any(key.startswith(OPERATORS_LABELS) for key in template.labels),
            ".labels",
        ),
        Rule(
            f"!has(self.annotations) || !self.annotations.exists(key, key.startsWith('{SECURITY_ANNOTATIONS}'))",
            f"annotations must not begin with {SECURITY_ANNOTATIONS}: the operator sets the pods' security context",
            lambda template: not any(key.startswith(SECURITY_ANNOTATIONS) for key in template.annotations),
            ".annotations",
        ),
    )

    labels: Labels = Field(default_factory=dict)
    """Further labels of the pods."""
    annotations: Annotations = Field(default_factory=dict)
    """Further annotations of the pods, but for those that would change their security context. Where the repository
    names a ServiceAccount, the operator's own, which keep its identity from Triton, go before these."""
    node_selector: Labels = Field(default_factory=dict)
    """Further labels that a node must carry."""
    tolerations: Annotated[
        tuple[Toleration, ...], Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    """Further taints that the pods accept; those of the node pool are accepted anyway."""
    topology_spread_constraints: Annotated[
        tuple[TopologySpread, ...],
        Field(
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["topologyKey"],
            },
        ),
    ] = ()
    """How the server's replicas spread over nodes and zones."""
    priority_class_name: DnsName | None = None
    """PriorityClass of the pods."""
    image_pull_secrets: Annotated[
        tuple[LocalReference, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """Secrets of this namespace with which the pods' images are pulled, beside those of the installation. Where the
    repository names a ServiceAccount, they stand in place of that one's own."""
    env: Annotated[
        tuple[EnvVar, ...],
        Field(
            max_length=64,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """Further variables of Triton's environment."""
