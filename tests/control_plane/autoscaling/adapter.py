"""The real prometheus-adapter, which serves ``custom.metrics.k8s.io`` by the rules that users give to its chart."""

import ssl
from pathlib import Path
from typing import Any

import yaml

from gravswell_operator.devcluster import ControlPlane, ensure_binaries
from gravswell_operator.devcluster.aggregation import register
from gravswell_operator.devcluster.certificates import Authority
from gravswell_operator.devcluster.controlplane import HOST
from gravswell_operator.devcluster.processes import Servers, answers

from ..operating import ROOT

VALUES = ROOT / "charts/gravswell/prometheus-adapter.yaml"
API = "v1beta1.custom.metrics.k8s.io"
"""``VERSION.GROUP``, as its chart registers it."""
_PLACE = "prometheus-adapter.monitoring"


def configuration(values: Path = VALUES) -> dict[str, Any]:
    """What prometheus-adapter's chart makes of these values."""
    (given,) = yaml.safe_load(values.read_text()).items()
    assert given[0] == "rules"
    assert given[1].keys() == {"default", "custom"}
    assert given[1]["default"] is False
    return {"rules": given[1]["custom"]}


class PrometheusAdapter(Servers):
    """At ``port`` beside a control plane, as an administrator of it; it reads one Prometheus, ``HOST:PORT``."""

    def __init__(self, cluster: ControlPlane, folder: Path, prometheus: str, port: int) -> None:
        super().__init__(cluster.logs)
        self._cluster, self._folder, self._prometheus, self._port = cluster, folder, prometheus, port

    def _start(self) -> None:
        program = ensure_binaries(names=["prometheus-adapter"])["prometheus-adapter"]
        config = self._folder / "config.yaml"
        config.write_text(yaml.safe_dump(configuration()))
        authority = Authority(self._folder / "pki")
        authority.issue("tls", "prometheus-adapter", hosts=[HOST, "localhost", f"{_PLACE}.svc"])
        child = self._spawn(
            "prometheus-adapter",
            [
                program,
                f"--bind-address={HOST}",
                f"--secure-port={self._port}",
                f"--tls-cert-file={authority.directory / 'tls.crt'}",
                f"--tls-private-key-file={authority.directory / 'tls.key'}",
                f"--prometheus-url=http://{self._prometheus}/",
                "--metrics-relist-interval=1m",  # as its chart has it
                f"--config={config}",
                *(
                    f"--{what}-kubeconfig={self._cluster.kubeconfig}"
                    for what in ("lister", "authentication", "authorization")
                ),
            ],
            log="prometheus-adapter.log",
        )
        trusting = ssl.create_default_context(cafile=str(authority.certificate))
        self._wait(child, lambda: answers(f"https://{HOST}:{self._port}/readyz", trusting))
        register(self._cluster, API, _PLACE, self._port, authority.certificate)

    def stop(self) -> None:
        """End it, and that it is asked: of an API that nobody serves every namespace waits to know what is in it."""
        try:
            self._cluster.kubectl("delete", "apiservice", API, "--ignore-not-found")
        finally:
            super().stop()
