"""The Gateway API's definitions, as its releases install them: kinds alone, and nobody who acts on them."""

from gravswell_operator.devcluster.controlplane import ControlPlane
from gravswell_operator.devcluster.gobuild import Module, module_folder
from gravswell_operator.devcluster.processes import wait_until

GATEWAY_API = Module("gateway-api", "sigs.k8s.io/gateway-api", "v1.6.1")
GROUP = "gateway.networking.k8s.io"
_CHANNEL = "config/crd/standard"
_PLURALS = (
    *("gatewayclasses", "gateways", "httproutes", "grpcroutes", "referencegrants"),
    *("tlsroutes", "backendtlspolicies"),  # Traefik begins with nothing before it has seen these, too
)


def install_gateway_api(control_plane: ControlPlane) -> None:
    """Apply the definitions that routes to Services need, of the standard channel, and wait until they are served."""
    folder = module_folder(GATEWAY_API) / _CHANNEL
    files = [f"--filename={folder / f'{GROUP}_{plural}.yaml'}" for plural in _PLURALS]
    control_plane.kubectl("apply", "--server-side", *files)

    def known() -> bool:  # kubectl wait fails on a definition that has no condition at all yet
        served = control_plane.kubectl("get", "--raw", f"/apis/{GROUP}/v1", check=False)
        return all(f'"name":"{plural}"' in served for plural in _PLURALS)

    wait_until(known, what="the API server's knowledge of the Gateway API", timeout=60)


def remove_gateway_api(control_plane: ControlPlane) -> None:
    """Take the definitions away again, and with them every object of these kinds."""
    names = [f"{plural}.{GROUP}" for plural in _PLURALS]
    control_plane.kubectl("delete", "customresourcedefinitions", *names, "--ignore-not-found", "--wait=true")
