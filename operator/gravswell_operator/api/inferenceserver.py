"""``InferenceServer``: replicas of Triton that serve models of one repository."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gravswell_operator.api.autoscaling import MAX_REPLICAS, Autoscaling, AutoscalingStatus
from gravswell_operator.api.common import (
    MAX_GPUS,
    Annotations,
    ApiModel,
    ClusterReference,
    Column,
    DnsName,
    ImageReference,
    LocalReference,
    Names,
    Quantity,
    Resource,
    Scale,
    Status,
    name_rule,
)
from gravswell_operator.api.gateway import Gateway
from gravswell_operator.api.podtemplate import PodTemplate
from gravswell_operator.api.rules import Rule, matching
from gravswell_operator.api.startup import StartupStatus

RELEASE_PATTERN = "[0-9]{2}[.](0[1-9]|1[0-2])"
"""A Triton release: year and month, such as 24.08. They compare as text."""

OLDEST_RELEASE = "24.08"
"""The first release whose model control, shared memory, log and trace APIs can all be restricted."""

OLD_IMAGE_PATTERN = "(^|/)tritonserver:(([01][0-9]|2[0-3])[.][0-9]{2}|24[.]0[1-7])($|[-@])"
"""Images that say of themselves that they are older than that."""


class NodePorts(ApiModel):
    """Ports that every node opens for the Service; what is absent, the cluster chooses."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.http) || !has(self.grpc) || self.http != self.grpc",
            "http and grpc need a node's port each; choose two",
            lambda ports: ports.http is None or ports.http != ports.grpc,
        ),
    )

    http: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port of HTTP on every node, within the range that the cluster keeps for that, usually 30000 to 32767."""
    grpc: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port of gRPC on every node, within that range too."""


class ServiceSpec(ApiModel):
    """How clients reach the server."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.type != 'ClusterIP' || !has(self.nodePorts)",
            "nodePorts says nothing of a Service of type ClusterIP; set type to NodePort, or leave it out",
            lambda service: service.type != "ClusterIP" or service.node_ports is None,
            ".nodePorts",
        ),
    )

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Type of the Service <name>; <name>-headless is always there beside it, for clients that balance themselves."""
    annotations: Annotations = Field(default_factory=dict)
    """Annotations of the Service, for a cloud's load balancer."""
    node_ports: NodePorts | None = None
    """With the type NodePort or LoadBalancer: which ports the nodes open for HTTP and gRPC, where clients must know
    them beforehand; absent: the cluster chooses."""
    gateway: Gateway | None = None
    """For clients outside of the cluster that come through a Gateway: routes of the Gateway API to all replicas. By
    these a canary of a Model gets a share of the requests (weight). The condition RoutesAccepted says whether a Gateway
    takes them. Absent: no route is made."""


class ClaimCache(ApiModel):
    """A PersistentVolumeClaim of the server's namespace."""

    claim_name: DnsName
    """Name of the claim: ReadWriteMany for replicas on several nodes. Servers and repositories may share one, for
    versions lie there by digest."""
    size_limit: Quantity | None = None
    """How large the cache may become, such as 200Gi; absent: as large as the volume. What no server wants any more
    makes room for what is new."""


class Cache(ApiModel):
    """Where verified versions outlive the pods: the type, and the field of that name with a small first letter.

    It must be a volume that a new pod finds again, which no volume of the pod's own is; and hostPath, which nodes have,
    is forbidden by the restricted Pod Security Standard, which these pods keep."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.type != 'PersistentVolumeClaim' || has(self.persistentVolumeClaim)",
            "a cache of type PersistentVolumeClaim needs the field persistentVolumeClaim, with the claim's name",
            lambda cache: cache.type != "PersistentVolumeClaim" or cache.persistent_volume_claim is not None,
        ),
    )

    type: Literal["PersistentVolumeClaim"]
    """PersistentVolumeClaim: a claim that exists in the server's namespace."""
    persistent_volume_claim: ClaimCache | None = None
    """For the type PersistentVolumeClaim: which one."""


class InferenceServerSpec(ApiModel):
    """What shall be served, by what, on what."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.replicas), has(self.autoscaling), has(self.ranks)].exists_one(given, given)",
            "set exactly one of replicas, autoscaling and ranks",
            lambda spec: [spec.replicas, spec.autoscaling, spec.ranks].count(None) == 2,
        ),
        # Each partition is for one number of ranks, so another number could only come with other models at that moment,
        # and what clients hold of the partition, the ranks' names too, would be wrong with it.
        Rule(
            "has(self.ranks) == has(oldSelf.ranks) && (!has(self.ranks) || self.ranks == oldSelf.ranks)",
            "ranks is immutable; make a second server for the other number of ranks, and delete this one when no "
            "client asks it any more",
            field_path=".ranks",
        ),
        Rule(
            "!has(self.ranks) || self.models == 'Declared'",
            "a server with ranks serves the partitions that Models name: leave models out",
            lambda spec: spec.ranks is None or spec.models == "Declared",
            ".models",
        ),
        Rule(
            "!has(self.ranks) || (self.service.type == 'ClusterIP' && !has(self.service.gateway))",
            "a server with ranks has no Service in front of it: each rank serves another part, and clients ask all of "
            "them by their own names; leave service out",
            lambda spec: spec.ranks is None or (spec.service.type == "ClusterIP" and spec.service.gateway is None),
            ".service",
        ),
        Rule(
            "has(self.image) != has(self.tag)",
            "set exactly one of tag, a Triton release such as 24.08, and image",
            lambda spec: (spec.image is None) != (spec.tag is None),
        ),
        Rule(
            "!has(self.gpus) || self.gpus == 0 || has(self.nodePoolRef)",
            "a server with gpus needs nodePoolRef, the GPUNodePool that it runs on",
            lambda spec: spec.gpus == 0 or spec.node_pool_ref is not None,
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
            Field(max_length=64),
            matching(
                RELEASE_PATTERN,
                "tag must be a Triton release, year and month, such as 24.08; for any other image set image",
            ),
            Rule(
                f"!self.matches('^({RELEASE_PATTERN})$') || self >= '{OLDEST_RELEASE}'",
                f"tag must be {OLDEST_RELEASE} or newer: older Tritons cannot close their control APIs to clients",
                lambda tag: tag >= OLDEST_RELEASE,
            ),
        ]
        | None
    ) = None
    """Triton release, in quotes, such as "24.08": YAML takes it for a number otherwise. The image is NVIDIA's of that
    release."""
    image: (
        Annotated[
            ImageReference,
            Rule(
                f"!self.matches('{OLD_IMAGE_PATTERN}')",
                f"image must hold Triton {OLDEST_RELEASE} or newer: older ones cannot close their control APIs to "
                "clients",
                lambda image: re.search(OLD_IMAGE_PATTERN, image) is None,
            ),
        ]
        | None
    ) = None
    """A Triton image of your own, of release 24.08 or newer, in place of tag. In a private registry it needs
    podTemplate.imagePullSecrets."""
    gpus: Annotated[int, Field(ge=0, le=MAX_GPUS)] = 0
    """GPUs of each replica; 0 serves on the CPU."""
    vcpus: Quantity = "1"
    """CPUs of each replica's Triton, such as 4, 1500m or, in quotes, "1.5"."""
    memory: Quantity = "2Gi"
    """Memory of each replica's Triton, such as 8Gi."""
    model_storage: Quantity = "10Gi"
    """Disk for the models that each replica holds."""
    read_only_root_filesystem: bool = False
    """True: Triton's container cannot write to its image, only to /tmp, of which it gets 1Gi. Not every image takes
    that: what a Python model, its environment or a backend writes elsewhere then fails."""
    cache: Cache | None = None
    """Where what was served is kept for pods to come: they start from there, also while the repository is away. Absent:
    a new pod asks the repository for everything."""
    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] | None = None
    """Fixed number of replicas, at most 100. All of them report into one ConfigMap, which has room for about 2000
    models times replicas; beyond that, spread the models or the load over several servers."""
    autoscaling: Autoscaling | None = None
    """Replicas by load, in place of replicas; kubectl scale is refused meanwhile. The condition Autoscaling says
    whether that works."""
    ranks: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] | None = None
    """In place of replicas: a group of so many pods, each of which serves its part of partitions (gravswell partition)
    that are for as many ranks. They take traffic together or not at all. It cannot be changed."""
    models: Literal["Declared", "All"] = "Declared"
    """Declared: the Models that name this server. All: every entry of the repository at its latest version but those
    that are private members of pipelines, and Models override."""
    service: ServiceSpec = ServiceSpec()
    """How clients reach the server."""
    restricted_apis: Annotated[
        tuple[Literal["model-config", "statistics"], ...],
        Field(alias="restrictedAPIs", max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = ()
    """Triton's APIs that are closed to clients beside those that always are (model-repository, shared-memory, trace,
    logging): model-config and statistics, which tell the names of pipelines' private members. Clients that ask for a
    model's config, such as PyTriton's, and perf_analyzer then fail. Absent: both are open."""
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


class DeviceStatus(ApiModel):
    """One GPU of each replica."""

    device: Annotated[int, Field(ge=0)]
    """Its number, from 0."""
    models: Annotated[
        tuple[Annotated[str, Field(max_length=255)], ...],
        Field(max_length=100, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = ()
    """The first 100 models that were given it; several share it."""


class RankStatus(ApiModel):
    """One rank of a server with ranks."""

    rank: Annotated[int, Field(ge=0)]
    """Its number, from 0."""
    pod: Annotated[str, Field(max_length=253)]
    """Its pod, whose name stays."""
    address: Annotated[str, Field(max_length=512)]
    """Where clients inside the cluster reach its HTTP, while all ranks are in service: HOST:8000."""
    ready: bool
    """It keeps no other out of service: its containers are ready, and it serves its parts of what the group serves."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """What it lacks, in words."""


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
    http_address: str = ""
    """Where clients inside the cluster reach HTTP: HOST:8000. HOST has the addresses of all replicas, and gravswell
    infer and the library's Client balance over them."""
    models: Annotated[
        tuple[LoadedModel, ...],
        Field(
            max_length=100,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """The first 100 models by name, and how many replicas serve them."""
    devices: Annotated[
        tuple[DeviceStatus, ...],
        Field(
            max_length=MAX_GPUS,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["device"]},
        ),
    ] = ()
    """Who was given which GPU of a replica, where some Model asks for devices. Models that do not ask run on every
    one, beside these."""
    ready_ranks: int | None = None
    """Of a server with ranks: how many keep no other out of service. They take traffic when all are ready and
    of the same version."""
    ranks: Annotated[
        tuple[RankStatus, ...],
        Field(
            max_length=MAX_REPLICAS,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["rank"]},
        ),
    ] = ()
    """Of a server with ranks: each of them."""
    autoscaling: AutoscalingStatus | None = None
    """What the autoscaler wants, and what it measured; absent while it has said nothing, or there is none."""
    startup: StartupStatus | None = None
    """Where the time of the last start of a replica went, or goes: the stages, and what the present one waits for."""
    simulated_gpus: bool = Field(default=False, alias="simulatedGPUs")
    """True where replicas run on a development node whose GPUs are simulated."""


class InferenceServer(Resource):
    """Replicas of Triton Inference Server that serve models of one repository."""

    RULES: ClassVar[tuple[Rule, ...]] = (name_rule("an InferenceServer"),)

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
            Column("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Wanted", ".status.autoscaling.desiredReplicas", "integer", wide=True),
            Column("Max", ".spec.autoscaling.maxReplicas", "integer", wide=True),
            Column("Ranks", ".spec.ranks", "integer", wide=True),
            Column("Ready Ranks", ".status.readyRanks", "integer", wide=True),
            Column("Node Pool", ".spec.nodePoolRef.name", wide=True),
            Column("Address", ".status.address", wide=True),
            Column("HTTP Address", ".status.httpAddress", wide=True),
            Column("Startup", ".status.startup.stage", wide=True),
            Column("Startup Seconds", ".status.startup.seconds", "number", wide=True),
            Column("Message", ".status.conditions[?(@.type=='Ready')].message", wide=True),
        ),
        selectable=(".spec.repositoryRef.name", ".spec.nodePoolRef.name"),
    )

    spec: InferenceServerSpec
    status: InferenceServerStatus = InferenceServerStatus()
