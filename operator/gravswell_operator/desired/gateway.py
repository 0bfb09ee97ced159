"""What leads a Gateway's requests to a server: its routes and, while a canary has weights, a Service for the old and
one for the new replicas. Pure.

These two have no selector: a label on pods that says what they serve would need the right to change any pod of the
cluster. Their EndpointSlices are the operator's own, and a pod that goes while no operator runs stays in them. So
routes name these Services only during a canary, and the plain one of the server at rest.
"""

from collections.abc import Sequence

from gravswell_operator import names
from gravswell_operator.api import InferenceServer
from gravswell_operator.api.gateway import Route
from gravswell_operator.desired.objects import Manifest, child
from gravswell_operator.desired.weights import Split
from gravswell_operator.state import PodState

PORTS = (("http", names.PORT_HTTP), ("grpc", names.PORT_GRPC))

Backends = tuple[tuple[str, int], ...]
"""Services, and the weight of each."""


def children(server: InferenceServer, split: Split | None, pods: Sequence[PodState], *, apart: bool) -> list[Manifest]:
    """Everything between a Gateway and the server's ``pods``; the routes last.

    ``apart``: the two Services are needed without a ``split``, too: a Gateway may not have seen yet that no route names
    them any more. Each then leads to every pod, so that no request fails wherever it is sent.
    """
    if server.spec.service.gateway is None:
        return []
    made = []
    if split is not None or apart:
        made += _side(server, names.old_replicas(server.metadata.name), [p for p in pods if _is_old(p, split)], pods)
        made += _side(server, names.new_replicas(server.metadata.name), [p for p in pods if _is_new(p, split)], pods)
    return [*made, *_routes(server, backends(server, split, pods))]


def _is_old(pod: PodState, split: Split | None) -> bool:
    return split is None or pod.name not in split.new


def _is_new(pod: PodState, split: Split | None) -> bool:
    return split is None or pod.name in split.new


def backends(server: InferenceServer, split: Split | None, pods: Sequence[PodState]) -> Backends:
    """The Services that the server's routes send requests to."""
    name = server.metadata.name
    if split is None:
        return ((name, 1),)
    old, new = split.weights(pods)
    return (names.old_replicas(name), old), (names.new_replicas(name), new)


def _side(
    server: InferenceServer, service: str, pods: Sequence[PodState], all_pods: Sequence[PodState]
) -> list[Manifest]:
    """A Service and where it leads: a slice for each family of addresses that some pod of the server has.

    One is enough: it takes a thousand addresses, and a server has a hundred replicas at most.
    """
    ports = [{"name": name, "port": port, "targetPort": name, "protocol": "TCP"} for name, port in PORTS]
    made = [child(server, "v1", "Service", service, role=names.ROLE_TRITON, spec={"type": "ClusterIP", "ports": ports})]
    for family in sorted({_family(pod) for pod in all_pods if pod.address}):
        there = sorted((p for p in pods if p.address and not p.finished), key=lambda pod: pod.name)
        labels = {names.LABEL_SERVICE: service, names.LABEL_SLICE_MANAGER: names.SLICE_MANAGER}
        made.append(
            child(
                server,
                "discovery.k8s.io/v1",
                "EndpointSlice",
                names.endpoints(service, family),
                role=names.ROLE_TRITON,
                labelled=labels,
                addressType=family,
                endpoints=[_endpoint(server, pod) for pod in there if _family(pod) == family],
                ports=[{"name": name, "port": port, "protocol": "TCP"} for name, port in PORTS],
            )
        )
    return made


def _family(pod: PodState) -> str:
    return "IPv6" if ":" in pod.address else "IPv4"


def _endpoint(server: InferenceServer, pod: PodState) -> Manifest:
    return {
        "addresses": [pod.address],
        "conditions": {
            "ready": pod.ready and not pod.terminating,
            "serving": pod.ready,
            "terminating": pod.terminating,
        },
        "targetRef": {"kind": "Pod", "name": pod.name, "namespace": server.metadata.namespace},
    }


def _routes(server: InferenceServer, to: Backends) -> list[Manifest]:
    gateway = server.spec.service.gateway
    assert gateway is not None
    made = []
    asked = (("HTTPRoute", names.PORT_HTTP, gateway.http), ("GRPCRoute", names.PORT_GRPC, gateway.grpc))
    for kind, port, route in asked:
        if route is not None:
            made.append(_route(server, kind, route, [{"name": n, "port": port, "weight": w} for n, w in to]))
    return made


def _route(server: InferenceServer, kind: str, route: Route, to: list[Manifest]) -> Manifest:
    spec: Manifest = {"parentRefs": [parent.to_dict() for parent in route.parent_refs]}
    if route.hostnames:
        spec["hostnames"] = list(route.hostnames)
    spec["rules"] = [{"backendRefs": to}]
    group = "gateway.networking.k8s.io/v1"
    return child(server, group, kind, server.metadata.name, role=names.ROLE_TRITON, spec=spec)
