"""A real Prometheus (Debian's package) that scrapes the pods of servers as the chart's PodMonitor has it."""

import json
import shutil
import threading
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from gravswell_operator import names
from gravswell_operator.devcluster import ControlPlane
from gravswell_operator.devcluster.controlplane import HOST, free_ports
from gravswell_operator.devcluster.debian import unpacked
from gravswell_operator.devcluster.processes import Servers

from ..operating import api_of


def binary() -> Path:
    """Prometheus' program: the machine's own, or out of Debian's package, which is kept in the cache."""
    if found := shutil.which("prometheus"):
        return Path(found)
    return unpacked("prometheus") / "usr/bin/prometheus"


class Prometheus(Servers):
    """Scrapes every two seconds: the pods of servers, and what the tests name besides."""

    def __init__(self, cluster: ControlPlane, folder: Path, *targets: str) -> None:
        super().__init__(cluster.logs)
        self._cluster, self._folder, self._targets = cluster, folder, targets
        self._stop = threading.Event()
        self._discovery = threading.Thread(target=self._discover)
        (port,) = free_ports(1)
        self.address = f"{HOST}:{port}"

    def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config()))
        child = self._spawn(
            "prometheus",
            [
                binary(),
                f"--config.file={config}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address={self.address}",
                "--log.level=warn",
            ],
            log="prometheus.log",
        )
        self._wait(child, self._ready)
        self._discovery.start()

    def stop(self) -> None:
        """Stop looking for pods, and Prometheus."""
        self._stop.set()
        if self._discovery.ident is not None:
            self._discovery.join(60)
        super().stop()

    def _discover(self) -> None:
        """Debian's Prometheus cannot ask an API server for pods: do what the chart's PodMonitor would have it do."""
        while not self._stop.wait(1):
            pods = api_of(self._cluster).list("pods", "", f"{names.LABEL_ROLE}={names.ROLE_TRITON}")
            found = [target for pod in pods if (target := _target(pod)) is not None]
            new = self._folder / "pods.json.new"
            new.write_text(json.dumps(found))
            new.replace(self._folder / "pods.json")

    def _config(self) -> dict[str, object]:
        pods = {"files": [str(self._folder / "pods.json")], "refresh_interval": "1s"}
        return {
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s"},
            "scrape_configs": [
                {"job_name": "servers", "file_sd_configs": [pods]},
                {"job_name": "others", "static_configs": [{"targets": list(self._targets)}]},
            ],
        }

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def query(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """The samples of an instant query: labels and value of each."""
        url = f"http://{self.address}/api/v1/query?{urlencode({'query': promql})}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            found = json.loads(answer.read())
        return [(sample["metric"], float(sample["value"][1])) for sample in found["data"]["result"]]


def _target(pod: dict[str, Any]) -> dict[str, Any] | None:
    """A pod that has an address, with the labels that the chart's PodMonitor gives its metrics."""
    address, metadata = pod["status"].get("podIP"), pod["metadata"]
    if not address:
        return None
    labels = {
        "namespace": metadata["namespace"],
        "pod": metadata["name"],
        "server": metadata["labels"][names.LABEL_SERVER],
    }
    return {"targets": [f"{address}:{names.PORT_METRICS}"], "labels": labels}
