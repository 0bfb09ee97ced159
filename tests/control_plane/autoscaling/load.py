"""A model that waits and clients that keep it busy; and what Prometheus is told in place of a gateway and of GPUs."""

import http.client
import http.server
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

from gravswell_operator import names
from gravswell_operator.devcluster import ControlPlane

from ...serving.agent.versions import WIDTH
from ..operating import api_of

CLIENTS = 12
SECONDS = 0.02
DELAYED = f"""
import time

import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            time.sleep({SECONDS})
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]))
        return answers
"""
"""A model that takes so long for each request and computes nothing: who waits for it waits on a fast machine too."""
_BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, WIDTH], "datatype": "FP32", "data": [1.0] * WIDTH}]})


@contextmanager
def clients(addresses: Callable[[], list[str]], model: str) -> Iterator[None]:
    """Some clients, each with one request in flight, spread over ``addresses``, which is asked now and then."""
    stop = threading.Event()
    known = addresses()

    def look() -> None:
        nonlocal known
        while not stop.wait(1):
            known = addresses() or known

    def ask(number: int) -> None:
        while not stop.is_set():
            host = known[number % len(known)]
            connection = http.client.HTTPConnection(host, 8000, timeout=30)
            try:
                for _ in range(20):
                    connection.request("POST", f"/v2/models/{model}/infer", _BODY)
                    connection.getresponse().read()
                    if stop.is_set():
                        return
            except (OSError, http.client.HTTPException):
                stop.wait(0.2)  # that replica goes, or comes: the others are asked on
            finally:
                connection.close()

    threads = [threading.Thread(target=look), *(threading.Thread(target=ask, args=(n,)) for n in range(CLIENTS))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # closing it waits for whoever is being answered


class _Exposition(ABC):
    """A server of a metric, in Prometheus' text format."""

    def __init__(self) -> None:
        exposition = self

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 10  # for who connects and asks nothing

            def do_GET(self) -> None:
                body = "".join(f"{line}\n" for line in exposition.lines()).encode()
                with suppress(ConnectionError):  # a Prometheus that ends, or no longer waits
                    self.send_response(200)
                    self.send_header("Content-Type", "text/plain; version=0.0.4")
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Every scrape would be a line."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    @abstractmethod
    def lines(self) -> list[str]:
        """The samples of this moment."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class Gateway(_Exposition):
    """Stands for what clients come through: it shows Prometheus how many requests wait. Nothing goes through it."""

    waiting = 0

    def lines(self) -> list[str]:
        return [f"gateway_requests_waiting {self.waiting}"]


class SimulatedDuty(_Exposition):
    """Says of the GPUs of every replica what Triton says of real ones, in its words: they are all equally busy.

    A Triton that sees no GPU has no such metric. The labels are those that the chart's PodMonitor would give it.
    """

    duty = 0.0
    """From 0 to 1."""

    def __init__(self, cluster: ControlPlane) -> None:
        super().__init__()
        self._cluster = cluster

    def lines(self) -> list[str]:
        pods = api_of(self._cluster).list("pods", "", f"{names.LABEL_ROLE}={names.ROLE_TRITON}")
        labels = ('namespace="{namespace}",pod="{name}",gpu_uuid="simulated"'.format(**pod["metadata"]) for pod in pods)
        return [f"nv_gpu_utilization{{{of_pod}}} {self.duty}" for of_pod in labels]
