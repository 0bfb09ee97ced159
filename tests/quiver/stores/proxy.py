"""A network that is watched, and fails on demand: a TCP proxy that cuts connections once so many bytes went up."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

HOST = "127.0.0.1"

HEAD = re.compile(rb"(?:GET|PUT|POST|HEAD|DELETE) \S+ HTTP/1\.1\r\n.*?\r\n\r\n", re.DOTALL)

GOOGLES_OWN = re.compile(r"GET /storage/v1/b/[^/?\s]+[? ]")
"""For its tracing Google's library asks for the bucket itself: in a thread of its own, whenever that comes to run."""


class Proxy:
    """Passes bytes to ``target`` until ``left`` of them are used up; None passes all. Cuts without a farewell."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (str(parts.hostname), parts.port or 80)
        self._listener = socket.create_server((HOST, 0))
        self.endpoint = f"http://{HOST}:{self._listener.getsockname()[1]}"
        self.left: int | None = None
        self.cuts = 0
        self.damages = 0
        """So many pieces of large bodies that go up arrive with a bit turned."""
        self.heads: list[str] = []
        """The request line and the headers of every request that came whole."""
        self.heals = False
        """Whether all passes again after the first cut."""
        self._lock = threading.Lock()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Whoever comes from now on is refused."""
        self._listener.shutdown(socket.SHUT_RDWR)  # closed alone, it would go on for who waits in it, and take one more
        self._listener.close()
        self._accepting.join(60)
        assert not self._accepting.is_alive()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._back, args=(server, client), daemon=True)
            back.start()
            pending, body = b"", 0
            while data := client.recv(65536):
                body = body + len(data) if self.damages and not HEAD.search(pending + data) else 0
                pending = self._watch(pending + data)
                if not self._may_pass(len(data)):
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, no goodbye
                    break
                server.sendall(self._damaged(data, body))
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            back.join()

    def _watch(self, data: bytes) -> bytes:
        """Note the requests in it, and return what may be the beginning of the next."""
        end = 0
        for found in HEAD.finditer(data):
            with self._lock:
                self.heads.append(found[0].decode("latin-1"))
            end = found.end()
        return data[max(end, len(data) - 16384) :]

    def _damaged(self, data: bytes, body: int) -> bytes:
        """``body``: how much has come since the last head. What ends a large one may be no data."""
        with self._lock:
            if not self.damages or body < 60_000 or len(data) < 1000:
                return data
            self.damages -= 1
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]

    def _may_pass(self, count: int) -> bool:
        with self._lock:
            if self.left is None:
                return True
            self.left -= count
            if self.left >= 0:
                return True
            self.cuts += 1
            self.left = None if self.heals else -1
            return False

    @staticmethod
    def _back(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)  # a server ends idle connections, and its client must hear of it


@contextmanager
def proxied(target: str) -> Iterator[Proxy]:
    """A proxy before ``target`` while the with-statement lasts."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
