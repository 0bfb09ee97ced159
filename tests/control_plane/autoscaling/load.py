"""Clients that keep a server busy, and a gateway that counts who waits in front of it."""

import http.client
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...serving.agent.versions import WIDTH

CLIENTS = 12
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
                for _ in range(200):
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


class Gateway:
    """Stands for what clients come through: it shows Prometheus how many requests wait. Nothing goes through it."""

    def __init__(self) -> None:
        self.waiting = 0
        gateway = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(f"gateway_requests_waiting {gateway.waiting}\n".encode())

            def log_message(self, *_: object) -> None:
                """Every scrape would be a line."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> "Gateway":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
