"""``InferenceServer``: replicas of Triton that serve models of one repository."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from gravswell_operator.api.common import (
    ApiModel,
    ClusterReference,
    Column,
    DnsName,
    Labels,
    LocalReference,
    Names,
    Quantity,
    Resource,
    Rule,
    Scale,
    Status,
)

TAG_PATTERN = r"^[0-9]{2}\.(0[1-9]|1[0-2])$"
"""A Triton release: year and month, such as 24.08."""


class Autoscaling(ApiModel):
    """Replicas by load, through a HorizontalPodAutoscaler on the Deployment."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("self.minReplicas <= self.maxReplicas", "minReplicas must not be above maxReplicas"),
    )

    min_replicas: Annotated[int, Field(ge=1, le=1000)]
    """Fewest replicas."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)]
    """Most replicas."""
    target_cpu_utilization: Annotated[int, Field(ge=1, le=100)] = Field(default=70)
    """Average CPU use in percent of the request that the autoscaler aims at."""


class ServiceSpec(ApiModel):
    """How clients reach the server."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Type of the Service <name>; <name>-headless is always there beside it, for clients that balance themselves."""
    annotations: Annotated[dict[str, str], Field(max_length=64)] = Field(default_factory=dict)
    """Annotations of the Service, for a cloud's load balancer."""


class EnvVar(ApiModel):
    """One variable of Triton's environment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=253)]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=32768)] = ""
    """Value of the variable."""


FreeForm = Annotated[
    dict[str, Any], Field(json_schema_extra={"type": "object", "x-kubernetes-preserve-unknown-fields": True})
]
"""An object of the core API that is passed through and checked where it is used."""


class PodTemplate(ApiModel):
    """What may be added to the pods: metadata, scheduling and environment; no volumes, security context or account."""

    labels: Labels = Field(default_factory=dict)
    """Further labels."""
    annotations: Annotated[dict[str, str], Field(max_length=64)] = Field(default_factory=dict)
    """Further annotations."""
    node_selector: Labels = Field(default_factory=dict)
    """Further labels that a node must carry."""
    tolerations: Annotated[
        tuple[FreeForm, ...], Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    """Further tolerations, as in a pod."""
    topology_spread_constraints: Annotated[
        tuple[FreeForm, ...], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    """How replicas spread, as in a pod."""
    priority_class_name: DnsName | None = None
    """PriorityClass of the pods."""
    env: Annotated[
        tuple[EnvVar, ...],
        Field(
            max_length=64,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """Further variables of Triton's environment."""


class InferenceServerSpec(ApiModel):
    """What shall be served, by what, on what."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.replicas) != has(self.autoscaling)",
            "exactly one of replicas and autoscaling must be set",
        ),
        Rule("has(self.image) != has(self.tag)", "exactly one of image and tag must be set"),
        Rule(
            "!has(self.tag) || !self.tag.matches('^[0-9]{2}[.](0[1-9]|1[0-2])$') || self.tag >= '24.08'",
            "tag must be 24.08 or newer: older Tritons cannot close their control APIs to clients",
            ".tag",
        ),
        Rule(
            "!has(self.gpus) || self.gpus == 0 || has(self.nodePoolRef)",
            "a server with gpus needs nodePoolRef, the GPUNodePool that it runs on",
            ".nodePoolRef",
        ),
    )

    repository_ref: LocalReference
    """The ModelRepository whose models are served."""
    node_pool_ref: ClusterReference | None = None
    """The GPUNodePool whose nodes the replicas run on; needed when gpus is above 0."""
    tag: (
        Annotated[
            str,
            Field(
                max_length=5,
                json_schema_extra={
                    "x-kubernetes-validations": [
                        {
                            "rule": "self.matches('^[0-9]{2}[.](0[1-9]|1[0-2])$')",
                            "message": "tag must be a Triton release, year and month, such as 24.08; for another image "
                            "set image",
                        }
                    ]
                },
            ),
        ]
        | None
    ) = None
    """Triton release, such as 24.08; the image is NVIDIA's of that release."""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """A Triton image of your own, 24.08 or newer, in place of tag."""
    gpus: Annotated[int, Field(ge=0, le=16)] = 0
    """GPUs of each replica; 0 serves on the CPU."""
    vcpus: Quantity = "1"
    """CPUs of each replica's Triton, such as 4 or 1500m."""
    memory: Quantity = "2Gi"
    """Memory of each replica's Triton, such as 8Gi."""
    model_storage: Quantity = "10Gi"
    """Disk for the models that each replica holds."""
    replicas: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Fixed number of replicas."""
    autoscaling: Autoscaling | None = None
    """Replicas by load, in place of replicas."""
    models: Literal["Declared", "All"] = "Declared"
    """Declared: the Models that name this server. All: every entry of the repository at its latest version, and
    Models override."""
    service: ServiceSpec = ServiceSpec()
    """How clients reach the server."""
    pod_template: PodTemplate = PodTemplate()
    """What may be added to the pods."""
    suspend: bool = False
    """True: the operator leaves the server and what belongs to it as they are."""


class LoadedModel(ApiModel):
    """One model, over all replicas."""

    name: Annotated[str, Field(max_length=255)]
    """Name of the entry."""
    version: int
    """Version that is wanted."""
    replicas: int = 0
    """Replicas that serve exactly this version."""


class InferenceServerStatus(Status):
    """What is served."""

    replicas: int = 0
    """Pods that exist."""
    ready_replicas: int = 0
    """Pods that take traffic."""
    selector: str = ""
    """Label selector of the pods, as text, for /scale."""
    address: str = ""
    """Where clients inside the cluster reach gRPC: HOST:8001."""
    models: Annotated[
        tuple[LoadedModel, ...],
        Field(
            max_length=100,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """The first 100 models by name, and how many replicas serve them."""
    simulated_gpus: bool = Field(default=False, alias="simulatedGPUs")
    """True where replicas run on a development node whose GPUs are simulated."""


class InferenceServer(Resource):
    """Replicas of Triton Inference Server that serve models of one repository."""

    NAMES: ClassVar[Names] = Names(
        kind="InferenceServer",
        plural="inferenceservers",
        short=("isrv",),
        scope="Namespaced",
        scale=Scale(".spec.replicas", ".status.replicas", ".status.selector"),
        columns=(
            Column("Repository", ".spec.repositoryRef.name"),
            Column("GPUs", ".spec.gpus", "integer"),
            Column("Replicas", ".status.replicas", "integer"),
            Column("Ready Replicas", ".status.readyReplicas", "integer"),
            Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            Column("Reason", ".status.conditions[?(@.type=='Ready')].reason", wide=True),
            Column("Address", ".status.address", wide=True),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    )

    spec: InferenceServerSpec
    status: InferenceServerStatus = InferenceServerStatus()
