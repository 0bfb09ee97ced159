"""The kinds that the operator reads or writes: where they are in the API, and what is kept of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gravswell.kube import resources as kube
from gravswell_operator import api, names, state
from gravswell_operator.api.common import GROUP, VERSION, Resource

MANAGED_SELECTOR = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"


@dataclass(frozen=True)
class ResourceType(kube.Resource):
    """A kind that is watched.

    ``view`` makes the typed state that is kept of an object; ``raw`` keeps its own words beside it, for drift.
    ``selector`` limits what is watched, by label.
    """

    selector: str = ""
    raw: bool = False
    view: Callable[[Mapping[str, Any]], Any] | None = None

    __hash__ = kube.Resource.__hash__


def _own(model: type[Resource]) -> ResourceType:
    kind = model.NAMES
    return ResourceType(
        kind.kind,
        kind.plural,
        GROUP,
        VERSION,
        namespaced=kind.scope == "Namespaced",
        view=model.model_validate,
    )


def _child(
    kind: str,
    plural: str,
    group: str = "",
    version: str = "v1",
    view: Callable[[Mapping[str, Any]], Any] | None = None,
) -> ResourceType:
    return ResourceType(kind, plural, group, version, selector=MANAGED_SELECTOR, raw=True, view=view)


GPU_NODE_POOL = _own(api.GPUNodePool)
MODEL_REPOSITORY = _own(api.ModelRepository)
INFERENCE_SERVER = _own(api.InferenceServer)
MODEL = _own(api.Model)
OWN = (GPU_NODE_POOL, MODEL_REPOSITORY, INFERENCE_SERVER, MODEL)

NODE = ResourceType("Node", "nodes", namespaced=False, view=state.node)
POD = ResourceType("Pod", "pods", selector=MANAGED_SELECTOR, view=state.pod)
DEPLOYMENT = _child("Deployment", "deployments", "apps", view=state.deployment)
STATEFUL_SET = _child("StatefulSet", "statefulsets", "apps", view=state.statefulset)
DAEMON_SET = _child("DaemonSet", "daemonsets", "apps", view=state.daemonset)
CONFIG_MAP = _child("ConfigMap", "configmaps", view=state.configmap)
SERVICE = _child("Service", "services")
SERVICE_ACCOUNT = _child("ServiceAccount", "serviceaccounts")
ROLE = _child("Role", "roles", "rbac.authorization.k8s.io")
ROLE_BINDING = _child("RoleBinding", "rolebindings", "rbac.authorization.k8s.io")
DISRUPTION_BUDGET = _child("PodDisruptionBudget", "poddisruptionbudgets", "policy")
NETWORK_POLICY = _child("NetworkPolicy", "networkpolicies", "networking.k8s.io")
AUTOSCALER = _child("HorizontalPodAutoscaler", "horizontalpodautoscalers", "autoscaling", "v2", state.autoscaler)
CHILDREN = (
    DEPLOYMENT,
    STATEFUL_SET,
    DAEMON_SET,
    CONFIG_MAP,
    SERVICE,
    SERVICE_ACCOUNT,
    ROLE,
    ROLE_BINDING,
    DISRUPTION_BUDGET,
    AUTOSCALER,
    NETWORK_POLICY,
)
FOLLOWED = (NODE, POD, *CHILDREN)
WATCHED = (*OWN, *FOLLOWED)

KARPENTER_NODE_POOL = ResourceType(
    "NodePool",
    "nodepools",
    "karpenter.sh",
    namespaced=False,
    selector=MANAGED_SELECTOR,
    raw=True,
    view=state.maker,
)
NODE_CLAIM = ResourceType(
    "NodeClaim", "nodeclaims", "karpenter.sh", namespaced=False, selector=names.LABEL_POOL, view=state.machine
)
CLUSTER_POLICY = ResourceType(
    "ClusterPolicy", "clusterpolicies", "nvidia.com", namespaced=False, view=state.cluster_policy
)
SCALED_OBJECT = _child("ScaledObject", "scaledobjects", "keda.sh", "v1alpha1", state.scaled_object)
HTTP_ROUTE = _child("HTTPRoute", "httproutes", "gateway.networking.k8s.io", view=state.route)
GRPC_ROUTE = _child("GRPCRoute", "grpcroutes", "gateway.networking.k8s.io", view=state.route)
ENDPOINT_SLICE = ResourceType(
    "EndpointSlice",
    "endpointslices",
    "discovery.k8s.io",
    # Kubernetes makes some for our Services and gives them our labels: those are not looked at.
    selector=f"{names.LABEL_SLICE_MANAGER}={names.SLICE_MANAGER}",
    raw=True,
)
ROUTES = (HTTP_ROUTE, GRPC_ROUTE)
OPTIONAL = (KARPENTER_NODE_POOL, NODE_CLAIM, CLUSTER_POLICY, SCALED_OBJECT, *ROUTES, ENDPOINT_SLICE)
"""Kinds that may be absent, and come and go while we run: their definitions are others', or the right to them is only
given where they are used."""

EVENT = kube.Resource("Event", "events", "events.k8s.io")

_BY_KIND = {kind.kind: kind for kind in (*WATCHED, *OPTIONAL)}


def of(manifest: Mapping[str, Any]) -> ResourceType:
    """The kind of an object that the operator made."""
    return _BY_KIND[manifest["kind"]]
