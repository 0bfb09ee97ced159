"""A network that fails on demand: a TCP proxy that cuts every connection once so many bytes went up through it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

HOST = "127.0.0.1"


class Proxy:
    """Passes bytes to ``target`` until ``left`` of them are used up; None passes all. Cuts without a farewell."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (str(parts.hostname), parts.port or 80)
        self._listener = socket.create_server((HOST, 0))
        self.endpoint = f"http://{HOST}:{self._listener.getsockname()[1]}"
        self.left: int | None = None
        self.cuts = 0
        self.heals = False
        """Whether all passes again after the first cut."""
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._back, args=(server, client), daemon=True)
            back.start()
            while data := client.recv(65536):
                if not self._may_pass(len(data)):
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, no goodbye
                    break
                server.sendall(data)
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            back.join()

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
