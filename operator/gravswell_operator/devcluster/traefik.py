"""Traefik as a controller of Gateways beside a control plane: what comes to a Gateway goes through its own router.

It is the program that :mod:`.traefiksource` leaves of it. The definitions of the Gateway API must be there.
"""

import json
from collections.abc import Sequence
from types import MappingProxyType

from gravswell_operator.devcluster.binaries import ensure_binaries
from gravswell_operator.devcluster.controlplane import HOST, ControlPlane
from gravswell_operator.devcluster.processes import Servers, answers

CLASS = "traefik"
"""The name of its GatewayClass."""
_CONTROLLER = "traefik.io/gateway-controller"


class Traefik(Servers):
    """One Traefik, as an administrator of the control plane.

    Args:
        control_plane: a started one.
        listeners: the names of a Gateway's listeners; each is on a port of its own.
    """

    def __init__(self, control_plane: ControlPlane, listeners: Sequence[str]) -> None:
        super().__init__(control_plane.logs, stop_timeout=0.0)  # it would wait for clients that keep a connection
        self._control_plane = control_plane
        self._listeners = tuple(listeners)
        self.addresses: MappingProxyType[str, str] = MappingProxyType({})
        """Where it serves each listener, ``HOST:PORT``."""

    def make_gateway(self, namespace: str, name: str) -> None:
        """Make a Gateway with all the listeners, for routes of every namespace, and wait until it is served."""
        listeners = [
            {
                "name": listener,
                "port": int(address.rpartition(":")[2]),
                "protocol": "HTTP",
                "allowedRoutes": {"namespaces": {"from": "All"}},
            }
            for listener, address in self.addresses.items()
        ]
        gateway = {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"gatewayClassName": CLASS, "listeners": listeners},
        }
        kubectl = self._control_plane.kubectl
        kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(gateway))
        kubectl("wait", "-n", namespace, "--for=condition=Programmed", "--timeout=60s", f"gateway/{name}")

    def _start(self) -> None:
        program = ensure_binaries(names=["traefik"])["traefik"]
        ping, *ports = (self._free_port(HOST) for _ in (None, *self._listeners))
        self.addresses = MappingProxyType(
            {name: f"{HOST}:{port}" for name, port in zip(self._listeners, ports, strict=True)}
        )
        child = self._spawn(
            "traefik",
            [program, f"{HOST}:{ping}", *self.addresses.values()],
            log="traefik.log",
            environment={"KUBECONFIG": str(self._control_plane.kubeconfig)},
        )
        self._wait(child, lambda: answers(f"http://{HOST}:{ping}/ping"))
        known = {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": CLASS},
            "spec": {"controllerName": _CONTROLLER},
        }
        self._control_plane.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(known))
