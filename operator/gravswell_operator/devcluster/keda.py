"""The real KEDA beside a control plane: its operator, and the API ``external.metrics.k8s.io`` that it serves.

Of its scalers only those that ask nobody else's cloud (see :mod:`.kedasource`).
"""

import os
import ssl

from gravswell_operator.devcluster.aggregation import register
from gravswell_operator.devcluster.binaries import KEDA, ensure_binaries
from gravswell_operator.devcluster.certificates import Authority
from gravswell_operator.devcluster.controlplane import HOST, ControlPlane
from gravswell_operator.devcluster.gobuild import module_folder
from gravswell_operator.devcluster.processes import Servers, answers, wait_until

NAMESPACE = "keda"
SERVICE = "keda-metrics-apiserver"
_DEFINITIONS = "config/crd/bases"
_GROUPS = ("keda.sh", "eventing.keda.sh")


def install_definitions(control_plane: ControlPlane) -> None:
    """Apply KEDA's definitions, as its chart would."""
    folder = module_folder(KEDA) / _DEFINITIONS
    control_plane.kubectl("apply", "--server-side", "-f", str(folder))
    wanted = {tuple(file.stem.split("_")) for file in folder.glob("*.yaml")}

    def known() -> bool:  # kubectl wait fails on a definition that has no condition at all yet
        groups = {
            group: control_plane.kubectl("get", "--raw", f"/apis/{group}/v1alpha1", check=False) for group in _GROUPS
        }
        return all(f'"name":"{plural}"' in groups[group] for group, plural in wanted)

    wait_until(known, what="the API server's knowledge of KEDA's kinds", timeout=60)


class Keda(Servers):
    """KEDA's two processes, as administrators of the control plane. Its definitions must be there.

    The adapter's own metrics are on every interface, for KEDA has no setting for that.
    """

    def __init__(self, control_plane: ControlPlane) -> None:
        super().__init__(control_plane.logs)
        self._control_plane = control_plane

    def _start(self) -> None:
        binaries = ensure_binaries(names=["keda-operator", "keda-adapter"])
        plane = self._control_plane
        authority = Authority(plane.directory / "keda")
        authority.issue("tls", "keda", hosts=[HOST, "localhost", f"{SERVICE}.{NAMESPACE}.svc"])
        health, metrics, secure, own = (self._free_port(HOST) for _ in range(4))
        environment = {
            **os.environ,
            "KUBECONFIG": str(plane.kubeconfig),
            "WATCH_NAMESPACE": "",
            "POD_NAMESPACE": NAMESPACE,
            "KEDA_CLUSTER_OBJECT_NAMESPACE": NAMESPACE,
        }
        operator = self._spawn(
            "keda-operator",
            [
                binaries["keda-operator"],
                "--enable-prometheus-metrics=false",
                f"--health-probe-bind-address={HOST}:{health}",
                f"--metrics-service-bind-address={HOST}:{metrics}",
                f"--cert-dir={authority.directory}",
                "--ca-dir=",
                "--kube-api-qps=200",
                "--kube-api-burst=400",
            ],
            log="keda-operator.log",
            environment=environment,
        )
        adapter = self._spawn(
            "keda-adapter",
            [
                binaries["keda-adapter"],
                f"--bind-address={HOST}",
                f"--secure-port={secure}",
                f"--port={own}",
                f"--metrics-service-address={HOST}:{metrics}",
                f"--cert-dir={authority.directory}",
                f"--tls-cert-file={authority.directory / 'tls.crt'}",
                f"--tls-private-key-file={authority.directory / 'tls.key'}",
                *(f"--{what}-kubeconfig={plane.kubeconfig}" for what in ("lister", "authentication", "authorization")),
            ],
            log="keda-adapter.log",
            environment=environment,
        )
        self._wait(operator, lambda: answers(f"http://{HOST}:{health}/readyz"))
        trusting = ssl.create_default_context(cafile=str(authority.certificate))
        self._wait(adapter, lambda: answers(f"https://{HOST}:{secure}/readyz", trusting))
        register(plane, "v1beta1.external.metrics.k8s.io", f"{SERVICE}.{NAMESPACE}", secure, authority.certificate)
