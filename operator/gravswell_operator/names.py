"""Every name that the operator gives: labels, annotations, children, ports, images. Pure."""

from gravswell.serving import contracts
from gravswell.serving.triton import flags

FIELD_MANAGER = "gravswell-operator"
"""Field manager of everything that the operator applies."""
HANDOVER_MANAGER = "gravswell-autoscaling"
"""Holds a Deployment's replicas between the operator, which lets go of them, and an autoscaler, which takes them."""

MANAGED_BY = "gravswell"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_ROLE = "app.kubernetes.io/name"
LABEL_SERVER = "gravswell.dev/server"
LABEL_REPOSITORY = "gravswell.dev/repository"
LABEL_POOL = "gravswell.dev/pool"
LABEL_LOCAL_NODE = "gravswell.dev/local-node"
"""On the development cluster's local node, the only one that sees the folders of ``file://`` repositories."""
ANNOTATION_DIGEST = "gravswell.dev/desired-digest"
"""Digest of what the operator last wanted of a child, beside the fields themselves."""
OWNER_LABELS = {"InferenceServer": LABEL_SERVER, "ModelRepository": LABEL_REPOSITORY, "GPUNodePool": LABEL_POOL}
"""For each kind that has children, the label by which a child names it."""

LABEL_RANK = "apps.kubernetes.io/pod-index"
"""Kubernetes' own, on the pods of a StatefulSet: their number, which is their rank."""
LABEL_REVISION = "controller-revision-hash"
"""Kubernetes' own: which of its templates a StatefulSet made the pod from."""
GATE = "gravswell.dev/all-ranks-ready"
"""Readiness gate of the pods of a group of ranks, and the condition by which the operator opens it."""

LABEL_SERVICE = "kubernetes.io/service-name"
"""Kubernetes' own, on an EndpointSlice: the Service that it is of."""
LABEL_SLICE_MANAGER = "endpointslice.kubernetes.io/managed-by"
"""Kubernetes' own: who keeps an EndpointSlice. Its controllers leave those of others alone."""
SLICE_MANAGER = "gravswell.dev"

ROLE_TRITON = "triton"
ROLE_LISTER = "lister"
ROLE_DEVICE_PLUGIN = "device-plugin"

PORT_HTTP, PORT_GRPC, PORT_METRICS = flags.HTTP_PORT, flags.GRPC_PORT, flags.METRICS_PORT
PORT_AGENT = 8090

TRITON_IMAGE = "nvcr.io/nvidia/tritonserver"
DEVICE_PLUGIN_IMAGE = "nvcr.io/nvidia/k8s-device-plugin:v0.17.1"
DRIVERS_NAMESPACE = "gravswell-drivers"
"""Default namespace of the device plugins: apart, because it must allow privileged pods."""


def headless(server: str) -> str:
    """The Service through which clients see every replica."""
    return f"{server}-headless"


def old_replicas(server: str) -> str:
    """The Service of the replicas that serve the old version, while a Gateway's routes tell them from the others."""
    return f"{server}-old"


def new_replicas(server: str) -> str:
    """The Service of the replicas that serve the new version, meanwhile."""
    return f"{server}-new"


def endpoints(service: str, family: str) -> str:
    """The EndpointSlice of one of these Services, for the addresses of a family: IPv4 or IPv6."""
    return f"{service}-{family.lower()}"


def rank_pod(server: str, rank: int) -> str:
    """The pod of a rank: a StatefulSet names them so."""
    return f"{server}-{rank}"


def rank_address(server: str, namespace: str, rank: int) -> str:
    """Where clients inside the cluster reach a rank's HTTP port."""
    return f"{rank_pod(server, rank)}.{headless(server)}.{namespace}.svc:{PORT_HTTP}"


def keda_autoscaler(server: str) -> str:
    """The HorizontalPodAutoscaler that KEDA makes for the server's ScaledObject; it copies that one's labels."""
    return f"keda-hpa-{server}"


def desired_configmap(server: str) -> str:
    """What the server's agents shall load."""
    return f"{server}-desired"


def report_configmap(server: str) -> str:
    """What the server's agents say, or the first part of it."""
    return f"{server}-report"


def report_configmaps(server: str, parts: int) -> list[str]:
    """What the server's agents say, in so many parts."""
    return [contracts.report_configmap(report_configmap(server), part) for part in range(parts)]


def agent_account(server: str) -> str:
    """ServiceAccount, Role and RoleBinding of the server's agents."""
    return f"{server}-agent"


def lister(repository: str) -> str:
    """Deployment, ServiceAccount, Role and RoleBinding of what lists the repository."""
    return f"{repository}-lister"


def listing_configmap(repository: str) -> str:
    """What the repository holds."""
    return f"{repository}-listing"


def device_plugin(pool: str) -> str:
    """DaemonSet of the pool's device plugin."""
    return f"{pool}-device-plugin"


def server_selector(server: str) -> dict[str, str]:
    """The labels by which a server's pods are found; never changed, a Deployment's selector is immutable."""
    return {LABEL_ROLE: ROLE_TRITON, LABEL_SERVER: server}


def lister_selector(repository: str) -> dict[str, str]:
    """The labels by which a repository's lister is found; never changed, as those of servers."""
    return {LABEL_ROLE: ROLE_LISTER, LABEL_REPOSITORY: repository}


def selector_text(labels: dict[str, str]) -> str:
    """``labels`` as a label selector's text."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def address(server: str, namespace: str) -> str:
    """Where clients inside the cluster reach the server's gRPC port."""
    return f"{server}.{namespace}.svc:{PORT_GRPC}"


def http_address(server: str, namespace: str) -> str:
    """Where clients inside the cluster that balance themselves, as the library's do, reach every replica's HTTP."""
    return f"{headless(server)}.{namespace}.svc:{PORT_HTTP}"
