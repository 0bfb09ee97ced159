"""What a cloud has beside a pod, or at its own address, to say who the pod is: made here, on loopback."""

import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlencode

from .emulators import HOST


@dataclass(frozen=True)
class Asked:
    """A request: its path without the query, its headers with names in lower case, and its fields.

    Those are of the query, or of the form that was posted.
    """

    path: str
    headers: dict[str, str]
    fields: dict[str, str]


class Endpoint:
    """Answers by path, without its query: JSON, or text; with another ``status`` than 200, all paths alike.

    With ``behind``, the URL of a server, what is posted goes there as a form, and its answer comes back.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, object] = {}
        self.status = 200
        self.refusal: object = ""
        """What is said with another status than 200."""
        self.behind = ""
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"] or 0)).decode())

            def _answer(self, form: str) -> None:
                path, _, query = self.path.partition("?")
                fields = dict(parse_qsl(form or query))
                outer.asked.append(Asked(path, {name.lower(): value for name, value in self.headers.items()}, fields))
                status, answer = outer.status, outer.answers.get(path, "") if outer.status == 200 else outer.refusal
                if outer.behind and self.command == "POST" and status == 200:
                    status, answer = _posted(outer.behind + path, fields)
                body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Metadata-Flavor", "Google")
                self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer((HOST, 0), Handler)
        self.address = f"{HOST}:{self.server.server_port}"
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)


def _posted(url: str, fields: dict[str, str]) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, urlencode(fields).encode(), timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Endpoint]:
    """An endpoint while the with-statement lasts; of HTTPS with a ``context``."""
    made = Endpoint(context)
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join(10)
