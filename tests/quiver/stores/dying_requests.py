"""Exports to a real bucket server that end at a chosen request; run by ``test_request_deaths.py``.

``python -m quiver.stores.dying_requests URL SERVER MODEL.onnx all|some``: at URL is a repository whose entry ``m`` has
a version, and the environment says how to reach SERVER, ``http://host:port``. A process forked for each end exports
through a proxy, its files in several parts. At the chosen request the proxy kills it, before the server has the request
or once it has answered; or cuts the connection there, the former once or for good. Then another looks at what is there,
goes on, and leaves one version. Prints how many ended in each way; whatever is wrong ends the run with its traceback.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import onnxruntime  # noqa: F401 - before the forks

from gravswell import quiver as qv
from gravswell.errors import UnavailableError
from gravswell.quiver import exporters  # noqa: F401 - likewise
from gravswell.quiver.stores import BucketStore, amazon, azure, burial, claims, google, objects, open_store

from ..faults import found_in, remains
from ..forking import fork, in_a_process
from .proxy import GOOGLES_OWN, HEAD, Proxy

KILLED, ANSWERED, CUT, LOST, CUT_FOR_GOOD = "killed before", "killed after", "cut once", "answer lost", "cut for good"
SOME = {KILLED: 7, ANSWERED: 7, CUT: 3, LOST: 3, CUT_FOR_GOOD: 2}
"""How many requests of an export are chosen for each end, spread over it, where not every one is."""

PART = 1000
"""Bytes of a part of a file, in place of 8 MiB and more."""


@dataclass
class Order:
    """What is to happen at request ``at``, counted from 0, of the process ``pid``."""

    at: int
    how: str
    pid: int = 0


class Deadly(Proxy):
    """A proxy that carries out an order."""

    def __init__(self, target: str) -> None:
        self.order = Order(sys.maxsize, CUT)
        self.count = 0
        self._here = threading.local()
        self._answer: socket.socket | None = None
        super().__init__(target)

    def begin(self, order: Order) -> None:
        """From now on."""
        self.order, self.count, self._answer = order, 0, None

    def _serve(self, client: socket.socket) -> None:
        self._here.client = client
        super()._serve(client)

    def _watch(self, data: bytes) -> bytes:
        heads = (found[0].decode("latin-1") for found in HEAD.finditer(data))
        new = sum(not GOOGLES_OWN.match(head) for head in heads)
        pending = super()._watch(data)
        with self._lock:
            first, self.count = self.count, self.count + new
        self._here.hit = bool(new) and first <= self.order.at < first + new
        return pending

    def _may_pass(self, count: int) -> bool:
        order, hit = self.order, getattr(self._here, "hit", False)
        if hit and order.how in (ANSWERED, LOST):
            self._answer = self._here.client
        elif hit and order.how == KILLED:
            os.kill(order.pid, signal.SIGKILL)
        stopped = order.how == CUT_FOR_GOOD and self.count > order.at
        return not stopped and not (hit and order.how in (KILLED, CUT))

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if client is self._answer:
                    self._answer = None
                    if self.order.how == ANSWERED:
                        os.kill(self.order.pid, signal.SIGKILL)
                    break
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)


def stand_between(server: str, orders: Connection) -> None:
    """Be the proxy, in a process of its own: for each order say when it holds, and later how many requests it saw."""
    proxy = Deadly(server)
    orders.send(proxy.endpoint)
    with suppress(EOFError):
        while True:
            proxy.begin(orders.recv())
            orders.send(None)
            orders.recv()
            orders.send(proxy.count)


@contextmanager
def between(server: str) -> Iterator[tuple[dict[str, str], Connection]]:
    """What of the environment leads to the proxy in place of the server, and where it takes orders."""
    ours, theirs = Pipe()
    pid = fork(lambda: (ours.close(), stand_between(server, theirs)))
    theirs.close()
    try:
        proxy = ours.recv()
        yield {name: value.replace(server, proxy) for name, value in os.environ.items() if server in value}, ours
    finally:
        ours.close()
        os.waitpid(pid, 0)


def export(url: str, way: dict[str, str], model: Path, ready: Connection, how: str) -> None:
    """Export a version, that way, as soon as we are told to."""
    os.environ.update(way)
    google._PART = amazon._PART = azure._PART = PART
    ready.recv()
    if how == CUT_FOR_GOOD:
        objects.PATIENCE = timedelta(seconds=0.3)
    with suppress(*([UnavailableError] if how == CUT_FOR_GOOD else [])):
        qv.ModelRepository.open(url).models["m"].export_version(model)


def look(url: str, model: Path, how: str, code: int) -> None:
    """What is there is what was, or with the new version; the next exports take away what a dead one left."""
    claims.EXPIRY = burial.EXPIRY = burial.TOMBSTONES_STAY = timedelta(0)
    found = found_in(url)["m"]
    assert 1 <= len(found) <= 2, found
    if how in (CUT, LOST):
        assert code == 0, "a connection that is cut once is not noticed"
        assert len(found) == 2, found
    entry = qv.ModelRepository.open(url).models["m"]
    made = tuple(int(entry.export_version(model).split("/")[-2]) for _ in range(2))
    assert found_in(url)["m"] == (*found, *made)
    store = open_store(url)
    assert isinstance(store, BucketStore)
    left = remains(url, [info.key.removeprefix("r/") for info in store.objects.list("r/")])
    assert not left, left
    for number in (*found, *made[:-1]):
        entry.remove_version(number)


def end(url: str, way: dict[str, str], orders: Connection, model: Path, order: Order) -> tuple[int, bool]:
    """Let an export end so, and return how many requests there were, and whether it was killed."""
    ready, go = Pipe()
    order.pid = fork(lambda: export(url, way, model, ready, order.how))
    orders.send(order)
    orders.recv()
    go.send(None)
    code = os.waitstatus_to_exitcode(os.waitpid(order.pid, 0)[1])
    orders.send(None)
    count: int = orders.recv()
    if code not in (0, -signal.SIGKILL) or in_a_process(lambda: look(url, model, order.how, code)) != 0:
        sys.exit(f"{order.how} at request {order.at} of {count}: see above")
    return count, code != 0


def main(url: str, server: str, model: str, which: str) -> None:
    """Every end, or some of each kind."""
    with between(server) as (way, orders):
        count, _ = end(url, way, orders, Path(model), Order(sys.maxsize, CUT))
        for how, some in SOME.items():
            chosen = range(count) if which == "all" else sorted({k * (count - 1) // (some - 1) for k in range(some)})
            ends = [end(url, way, orders, Path(model), Order(at, how)) for at in chosen]
            print(sum(killed or how not in (KILLED, ANSWERED) for _, killed in ends), how)


if __name__ == "__main__":
    main(*sys.argv[1:])
