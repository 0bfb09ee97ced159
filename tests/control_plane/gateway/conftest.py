"""Routes and their weights on a real API server with the Gateway API's own definitions, under the chart's own role.

Simulated are the pods, which run on kwok nodes and have addresses there, what their agents say of them, and what a
Gateway's controller says of a route: no request is sent. ``test_weights`` has a Gateway and Tritons that are real, on a
control plane of its own.

``cluster``      a control plane of these tests' own
``operator``     the running operator
``gateway_api``  installs the Gateway API's definitions, once, or takes them away
``server``       four replicas behind a Gateway, and what happens to them
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gravswell.serving.contracts import DESIRED_KEY, Desired
from gravswell_operator.devcluster import ControlPlane
from gravswell_operator.devcluster.gatewayapi import install_gateway_api, remove_gateway_api
from gravswell_operator.devcluster.kwok import KwokNodes

from ..operating import OperatorProcess, control_plane, operator_of_cluster
from ..reconciling.conftest import World

GATE = {"name": "gate"}
GATEWAY = {
    "http": {"parentRefs": [GATE], "hostnames": ["models.example.com"]},
    "grpc": {"parentRefs": [GATE], "hostnames": ["grpc.example.com"]},
}
STEPS = [
    {"replicas": 1, "pause": "Manual", "weight": "10%"},
    {"replicas": "50%", "pause": "Manual", "weight": "30%"},
]
CANARY = {"strategy": "Canary", "canary": {"steps": STEPS, "progressDeadline": "1h"}}
REST = {"server": 1}
ROUTES = ("httproute", "grpcroute")
REPLICAS = 4

cluster = control_plane("gateway")


@pytest.fixture(scope="session")
def nodes(cluster: ControlPlane) -> Iterator[None]:
    with KwokNodes(cluster, count=2):
        # What is in a folder is for the local node alone, and a server of simulated pods reads none.
        cluster.kubectl("label", "node", "-l", "type=kwok", "gravswell.dev/local-node=true", "--overwrite")
        cluster.kubectl("taint", "node", "-l", "type=kwok", "kwok.x-k8s.io/node-")
        yield


operator = operator_of_cluster("nodes")


@pytest.fixture
def gateway_api(cluster: ControlPlane) -> Iterator[Callable[[bool], None]]:
    """Whether the definitions are there: they are, when the test begins and after it."""
    install_gateway_api(cluster)

    def there(wanted: bool) -> None:
        (install_gateway_api if wanted else remove_gateway_api)(cluster)

    yield there
    install_gateway_api(cluster)


def weighed(new: int) -> dict[str, int]:
    return {"server-old": 100 - new, "server-new": new}


class Server(World):
    """Four replicas behind a Gateway."""

    def begin(self, *, gateway: dict[str, Any] | None = GATEWAY) -> None:
        """Version 1 serves on all of them."""
        self.make_repository()
        service = {"service": {"gateway": gateway}} if gateway else {}
        self.make_server(replicas=REPLICAS, **service)
        self.make_model(rollout=CANARY)
        self.publish(1)
        self.until(lambda: len(self.ready_pods()) == REPLICAS)
        self.rolled_out()
        self.until(lambda: self.told is not None)
        self.obey()
        self.condition("model", "digits", status="True")

    def ready_pods(self) -> list[str]:
        return [
            pod["metadata"]["name"]
            for pod in self.objects("pods", selector="app.kubernetes.io/name=triton")
            if "deletionTimestamp" not in pod["metadata"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
        ]

    @property
    def told(self) -> Any:
        """What the agents are told of the one entry; None before they are."""
        text = (self.get("configmap", "server-desired") or {}).get("data", {}).get(DESIRED_KEY)
        models = Desired.model_validate_json(text).models if text else ()
        return models[0] if models else None

    def new(self) -> list[str]:
        """The pods that are told version 2."""
        return [pod for pod in self.pods() if self.told.on(pod).version == 2]

    def obey(self) -> None:
        """As the agents: each replica serves what it is told."""
        for pod in self.pods():
            self.report(pod, self.told.on(pod).version)

    def status(self) -> dict[str, Any]:
        return (self.get("model", "digits") or {})["status"].get("rollout", {})

    def routes(self) -> list[dict[str, int]]:
        """The weights by Service, of each route that is there."""
        found = [self.get(kind, "server") for kind in ROUTES]
        return [
            {backend["name"]: backend["weight"] for backend in route["spec"]["rules"][0]["backendRefs"]}
            for route in found
            if route is not None
        ]

    def begin_canary(self) -> None:
        """Version 2 serves on one of them, with the weight of the first step."""
        self.begin()
        self.until_routes(REST)
        self.publish(1, 2)
        self.until_routes(weighed(0))
        self.until(lambda: len(self.new()) == 1)
        self.obey()
        self.until_routes(weighed(10))

    def until_routes(self, weights: dict[str, int]) -> None:
        """Wait until both routes say so, and let the Gateway take them."""
        self.until(lambda: self.routes() == [weights, weights])
        self.take()

    def take(self, refusal: str = "") -> None:
        """As the Gateway's controller: it takes the routes as they are now, or says why not."""
        for kind in ROUTES:
            body = self.get(kind, "server")
            assert body is not None
            held = {"Accepted": ("False" if refusal else "True", refusal), "ResolvedRefs": ("True", "")}
            conditions = [
                {
                    "type": type_,
                    "status": status,
                    "reason": "NoMatchingParent" if refusal else type_,
                    "message": message,
                    "observedGeneration": body["metadata"]["generation"],
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
                for type_, (status, message) in held.items()
            ]
            reference = {**GATE, "group": "gateway.networking.k8s.io", "kind": "Gateway"}
            parents = [{"parentRef": reference, "controllerName": "example.com/gate", "conditions": conditions}]
            self.patch(kind, "server", {"status": {"parents": parents}}, subresource="status")

    def endpoints(self, service: str) -> dict[str, str]:
        """The ready pods of a Service, by what anybody reads who sends requests there, with their addresses."""
        slices = self.objects("endpointslices", selector=f"kubernetes.io/service-name={service}")
        found = [endpoint for one in slices for endpoint in one.get("endpoints") or ()]
        return {e["targetRef"]["name"]: e["addresses"][0] for e in found if e["conditions"]["ready"]}

    def sides(self) -> list[str]:
        """The Services of a canary that are there."""
        return [name for name in ("server-old", "server-new") if self.get("service", name) is not None]


@pytest.fixture
def server(
    cluster: ControlPlane, namespace: str, operator: OperatorProcess, gateway_api: Callable[[bool], None]
) -> Iterator[Server]:
    made = Server(cluster, namespace)
    yield made
    for kind in ("isrv", "mdl", "mr"):
        made.delete(kind)
