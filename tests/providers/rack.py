"""The provider of ``docs/providers.md``, installed as a package, and a controller of a rack for it to talk to."""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

DOCS = Path(__file__).parents[2] / "docs/providers.md"
CAPACITY = 4


def install(folder: Path) -> Path:
    """Put the text of the documentation into ``folder``, as pip would a package; the folder is then a search path."""
    text = DOCS.read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "rack.py" in block)
    (points,) = re.findall(r'\[project\.entry-points\."gravswell\.providers"\]\n(.*?)```', text, re.DOTALL)
    (folder / "rack.py").write_text(code)
    metadata = folder / "rack-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rack\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[gravswell.providers]\n" + points.replace('"', ""))
    return folder


class RackServer:
    """The controller: so many machines that each answer takes two calls, and not more than :data:`CAPACITY`.

    As a context manager; ``address`` is what pools are told. ``on_nodes`` is called with the name of a group, the
    labels of its nodes, and how many there are by now.
    """

    def __init__(self, on_nodes: Callable[[str, dict[str, str], int], None] = lambda *_: None) -> None:
        self.groups: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self._on_nodes = on_nodes
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(*outer.put(self.path.rpartition("/")[2], asked))

            def do_DELETE(self) -> None:
                self._answer(*outer.delete(self.path.rpartition("/")[2]))

            def _answer(self, status: int, words: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(words)))
                self.end_headers()
                self.wfile.write(words.encode())

            def log_message(self, *_: object) -> None:
                """Nothing: the test's output is for what fails."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def put(self, name: str, asked: dict[str, Any]) -> tuple[int, str]:
        """200, 202 or 409, as the documentation says."""
        with self._lock:
            self.calls.append("PUT")
            if asked["nodes"] > CAPACITY:
                return 409, f"{CAPACITY} machines are all there are"
            if self.groups.get(name) == asked:
                self._on_nodes(name, asked["labels"], asked["nodes"])
                return 200, ""
            self.groups[name] = asked
            return 202, f"{asked['nodes']} machines start"

    def delete(self, name: str) -> tuple[int, str]:
        """202 or 404."""
        with self._lock:
            self.calls.append("DELETE")
            found = self.groups.get(name)
            if found is None:
                return 404, ""
            if found["nodes"]:
                self.groups[name] = {**found, "nodes": 0}
                self._on_nodes(name, found["labels"], 0)
                return 202, "its machines drain"
            del self.groups[name]
            return 202, "its last machine goes"
