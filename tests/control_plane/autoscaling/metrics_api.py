"""Stands for prometheus-adapter: ``custom.metrics.k8s.io`` by the chart's rules for it, from the real Prometheus.

Only what a HorizontalPodAutoscaler asks: one metric of the pods that labels choose. The API server hands the requests
on, as it does to the real one.
"""

import http.server
import json
import re
import ssl
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from gravswell_operator.devcluster import ControlPlane
from gravswell_operator.devcluster.certificates import Authority
from gravswell_operator.devcluster.keda import register

from ..operating import ROOT, api_of
from .prometheus import Prometheus

GROUP = "custom.metrics.k8s.io"
VERSION = "v1beta2"
PLACE = "prometheus-adapter.monitoring"
RULES = ROOT / "charts/gravswell/prometheus-adapter.yaml"
_PATH = re.compile(rf"/apis/{GROUP}/{VERSION}/namespaces/([^/]+)/pods/\*/([^/]+)")


class MetricsApi:
    """The API as a server on loopback, registered with the control plane while it runs."""

    def __init__(self, cluster: ControlPlane, prometheus: Prometheus, folder: Path) -> None:
        self._cluster, self._prometheus = cluster, prometheus
        rules = yaml.safe_load(RULES.read_text())["rules"]["custom"]
        self._queries = {rule["name"]["as"]: rule["metricsQuery"] for rule in rules}
        self._authority = Authority(folder)
        self._authority.issue("tls", "metrics", hosts=["localhost", f"{PLACE}.svc"])
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = api.answer(self.path)
                body = json.dumps(answer if answer is not None else {"kind": "Status", "apiVersion": "v1", "code": 404})
                self.send_response(200 if answer is not None else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                """Every look would be a line."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def start(self) -> None:
        self._thread.start()
        register(self._cluster, f"{VERSION}.{GROUP}", PLACE, self._server.server_port, self._authority.certificate)

    def stop(self) -> None:
        if self._thread.ident is not None:
            self._cluster.kubectl("delete", "apiservice", f"{VERSION}.{GROUP}", "--ignore-not-found")
            self._server.shutdown()
            self._thread.join(10)
        self._server.server_close()

    def answer(self, request: str) -> dict[str, Any] | None:
        """What is answered; None: there is nothing."""
        path, query = unquote(urlsplit(request).path), parse_qs(urlsplit(request).query)
        if path == f"/apis/{GROUP}/{VERSION}":
            known = [
                {
                    "name": f"pods/{n}",
                    "singularName": "",
                    "namespaced": True,
                    "kind": "MetricValueList",
                    "verbs": ["get"],
                }
                for n in self._queries
            ]
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": f"{GROUP}/{VERSION}",
                "resources": known,
            }
        asked = _PATH.fullmatch(path)
        if asked is None or asked[2] not in self._queries:
            return None
        namespace, metric = asked[1], asked[2]
        pods = api_of(self._cluster).list("pods", namespace, query.get("labelSelector", [""])[0])
        names = [pod["metadata"]["name"] for pod in pods]
        matchers = f'namespace="{namespace}",pod=~"{"|".join(names)}"'
        promql = self._queries[metric].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", matchers)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        items = [
            {
                "describedObject": {"kind": "Pod", "namespace": namespace, "name": labels["pod"], "apiVersion": "/v1"},
                "metric": {"name": metric},
                "timestamp": now,
                "value": f"{round(value * 1e6)}u",
            }
            for labels, value in self._prometheus.query(promql)
        ]
        return {"kind": "MetricValueList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": items}
