"""The operator with faults around it: behind a proxy that spoils answers, on servers that are killed, beside a rival.

``cluster``      a control plane of these tests' own, with kwok's simulated nodes: its servers are killed too
``proxy``        the operator's way to it
``operator``     the operator, started again whenever it has ended, as its Deployment has it
``busy``         the namespace of a busy time; ``undisturbed`` is what is there in the end without a fault
``world``        a namespace of the test's own
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gravswell_operator.devcluster import ControlPlane

from ..operating import OperatorProcess, api_of, control_plane, install, wait_until
from ..reconciling.conftest import World, nodes
from .busy import NAMESPACE, Busy, State
from .proxy import Proxy

__all__ = ["nodes"]

PAUSE = 0.2
"""Seconds between what users do."""
QUIET_SECONDS = 1.5
"""Without a request that changes anything, and without work: what is done by then is all that there is to do."""


cluster = control_plane("faults")


@pytest.fixture(scope="session")
def kubeconfig(cluster: ControlPlane, nodes: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's own, under the chart's role."""
    return install(cluster, tmp_path_factory)


@pytest.fixture(scope="session")
def proxy(cluster: ControlPlane) -> Iterator[Proxy]:
    with Proxy(cluster) as running:
        yield running


class Supervised(OperatorProcess):
    """The operator, started again whenever it has ended: by a fault around it, or by the test."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        super().__init__(kubeconfig, log)
        self.ends: list[int] = []
        """How it ended each time."""
        self._over = threading.Event()
        self._changed = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        self._over.clear()
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._thread.start()  # which starts it: a process ends with the thread that made it
        wait_until(self.is_ready)

    def end(self) -> None:
        with self._changed:  # or another one would be started after all
            self._over.set()
            assert self._child is not None
            self._child.process.send_signal(signal.SIGTERM)
        assert self._thread is not None
        self._thread.join(60)
        assert not self._thread.is_alive()

    def is_ready(self) -> bool:
        """Whether one runs that says so: it may end at any moment, and is started again."""
        with self._changed:
            return self._child is not None and self._child.running and self._says_ready()

    @property
    def running(self) -> bool:
        """Whether it has not ended, or was started again."""
        with self._changed:
            return self._child is not None and self._child.running

    def steady(self) -> Callable[[], None]:
        """What fails where it has ended by itself since now."""
        before = len(self.ends)

        def check() -> None:
            assert len(self.ends) == before, self.log.read_text()[-2000:]

        return check

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it; the next one is started at once."""
        with self._changed:
            assert self._child is not None
            self._child.process.send_signal(number)

    def restart(self) -> None:
        before = len(self.ends)
        self.kill(signal.SIGTERM)
        wait_until(lambda: len(self.ends) > before and self.is_ready())

    def _supervise(self) -> None:
        while True:
            with self._changed:
                if self._over.is_set():
                    return
                self.start(wait=False)
            assert self._child is not None
            ended = self._child.process.wait()
            if not self._over.is_set():
                self.ends.append(ended)


@pytest.fixture(scope="session")
def operator(kubeconfig: Path, proxy: Proxy) -> Iterator[Supervised]:
    it = Supervised(proxy.kubeconfig(kubeconfig, kubeconfig.with_name("by-proxy")), kubeconfig.with_name("log"))
    it.begin()
    yield it
    it.end()
    log = it.log.read_text()
    assert "a fault of the operator" not in log, log
    assert "Traceback" not in log, log


@dataclass(frozen=True)
class Undisturbed:
    """How the busy time ends without a fault, and what the operator asked of the API server for it."""

    state: State
    requests: int
    writes: int


@pytest.fixture(scope="session")
def busy_namespace(cluster: ControlPlane) -> Busy:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    api_of(cluster).apply("", body)
    return Busy(cluster)


@pytest.fixture(scope="session")
def undisturbed(busy_namespace: Busy, operator: Supervised, proxy: Proxy) -> Undisturbed:
    before, steady = len(proxy.seen), operator.steady()
    busy_namespace.work(PAUSE)
    state = busy_namespace.settled(steady)
    asked = [seen.asked for seen in proxy.seen[before:]]
    busy_namespace.clear()
    return Undisturbed(state, len(asked), sum(a.writes for a in asked))


@pytest.fixture
def busy(busy_namespace: Busy, undisturbed: Undisturbed, proxy: Proxy) -> Iterator[Busy]:
    yield busy_namespace
    proxy.mend()
    busy_namespace.clear()


@pytest.fixture
def world(cluster: ControlPlane, namespace: str, operator: Supervised, proxy: Proxy) -> Iterator[World]:
    made = World(cluster, namespace)
    yield made
    proxy.release()
    proxy.mend()
    made.delete("gpunodepool", made.pool)
    for kind in ("isrv", "mdl", "mr"):
        made.delete(kind)


@pytest.fixture
def quiet(operator: Supervised, proxy: Proxy) -> Callable[[], None]:
    """``quiet()`` returns when the operator has nothing to do, and has not changed anything for a while."""

    def rests() -> bool:
        before = len(proxy.seen)
        time.sleep(QUIET_SECONDS)
        if not operator.is_ready() or operator.metric("gravswell_queue_length"):
            return False
        return not any(s.asked.writes and s.asked.plural != "leases" for s in proxy.seen[before:])

    return lambda: wait_until(rests)
