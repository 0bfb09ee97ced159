"""A real Prometheus (Debian's package) that scrapes the pods of servers by the chart's PodMonitor."""

import json
import logging
import re
import shutil
import threading
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from gravswell_operator.devcluster import ControlPlane
from gravswell_operator.devcluster.controlplane import HOST
from gravswell_operator.devcluster.debian import unpacked
from gravswell_operator.devcluster.processes import Servers

from ..operating import api_of
from .podmonitor import scrape_configs, targets

log = logging.getLogger(__name__)


def binary(name: str = "prometheus") -> Path:
    """A program of Prometheus': the machine's own, or out of Debian's package, which is kept in the cache."""
    if found := shutil.which(name):
        return Path(found)
    return unpacked("prometheus") / "usr/bin" / name


class Prometheus(Servers):
    """Scrapes what a PodMonitor says, and every two seconds the addresses that the tests name besides."""

    def __init__(self, cluster: ControlPlane, folder: Path, monitor: dict[str, Any], *others: str) -> None:
        super().__init__(cluster.logs)
        self._cluster, self._folder, self._monitor, self._others = cluster, folder, monitor, others
        self._pods = folder / "pods.json"
        self._stop = threading.Event()
        self._discovery = threading.Thread(target=self._discover)
        self.address = ""
        """Where it answers, ``HOST:PORT``, once it has started: the system gives it a port."""

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
                f"--web.listen-address={HOST}:0",
            ],
            log="prometheus.log",
        )
        self._wait(child, lambda: self._ready(child.log))
        self._discovery.start()

    def stop(self) -> None:
        """Stop looking for pods, and Prometheus."""
        self._stop.set()
        if self._discovery.ident is not None:
            self._discovery.join(60)
        super().stop()

    def _discover(self) -> None:
        """Find the pods in its stead: Debian's is built without what asks an API server."""
        while not self._stop.wait(1):
            try:
                found = targets(api_of(self._cluster).list("pods", ""))
                new = self._pods.with_suffix(".new")
                new.write_text(json.dumps(found))
                new.replace(self._pods)
            except Exception:  # without this thread nothing would ever be scraped again, and nobody would say why
                log.exception("the pods were not found for Prometheus; again in a second")

    def _config(self) -> dict[str, object]:
        others = {"job_name": "others", "static_configs": [{"targets": list(self._others)}]}
        return {
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s"},
            "scrape_configs": [*scrape_configs(self._monitor, self._pods), others],
        }

    def _ready(self, log: Path) -> bool:
        listens = re.search(r'msg="Listening on".* address=(\S+)', log.read_text())
        if listens is None:
            return False
        self.address = listens[1]
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
