"""The operator as a process on a control plane, under the chart's own role, and what tests do in one namespace.

Folders whose tests change more than a namespace have a control plane of their own: their conftests make its fixtures of
those here.
"""

import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from gravswell_operator.cluster.lease import LEASE_NAME, LEASE_NAMESPACE
from gravswell_operator.devcluster import ControlPlane, LocalNode, ensure_binaries
from gravswell_operator.devcluster.kubeconfig import write_token_kubeconfig
from gravswell_operator.devcluster.processes import Child

from ..exposition import scrape, total
from .api import Api

ROOT = Path(__file__).parents[2]
SYSTEM = "gravswell-system"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:gravswell"
"""Whom the operator is to the API server."""
POLL_SECONDS = 0.2
WAIT_SECONDS = 90
API = "gravswell.dev/v1alpha1"


def wait_until(fact: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    """What ``fact`` returns, as soon as that is true; its last answer is in the failure."""
    until = time.monotonic() + seconds
    while True:
        answer = fact()
        if answer:
            return answer
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds} s; last: {answer!r}")
        time.sleep(POLL_SECONDS)


def conditions(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The conditions of an object, by type."""
    return {c["type"]: c for c in (body.get("status") or {}).get("conditions") or ()}


class OperatorProcess:
    """``gravswell operator run`` with a ServiceAccount's kubeconfig."""

    program: tuple[str, ...] = ("-m", "gravswell")
    """What Python runs."""

    def __init__(self, kubeconfig: Path, log: Path, *arguments: str) -> None:
        self._kubeconfig, self.log, self._arguments = kubeconfig, log, arguments
        self._child: Child | None = None
        self._begin = 0
        """Where the log of the one that runs begins: those before it wrote the same file."""

    def start(self, *, wait: bool = True) -> None:
        arguments = ["operator", "run", "--kubeconfig", self._kubeconfig, "--network-policies", *self._arguments]
        self._begin = self.log.stat().st_size if self.log.exists() else 0
        self._child = Child("operator", [sys.executable, *self.program, *arguments], log=self.log)
        if wait:
            wait_until(self.is_ready)

    def is_ready(self) -> bool:
        assert self._child is not None
        assert self._child.process.poll() is None, self.log.read_text()[-2000:]
        return self._says_ready()

    def _says_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    @property
    def address(self) -> str:
        """Where it answers, ``HOST:PORT``, by its own word: the system gives it a port. Raises OSError before."""
        with self.log.open("rb") as log:
            log.seek(self._begin)
            told = re.search(r"health on http://(\S+)\n", log.read().decode(errors="replace"))
        if told is None:
            raise ConnectionRefusedError("the operator does not listen yet")
        return told[1]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the metric's samples that have these labels among theirs."""
        return total(scrape(self.address), name, **labels)

    def has_looked(self, kind: str, *optional: str) -> bool:
        """Whether it has reconciled all objects of ``kind`` since it became ready: what they say is told anew.

        ``optional``: the kinds that may be absent which this takes. It lists them when it is ready already.
        """
        # A watch begins when what was listed is taken in, and whom that concerns is in the queue.
        begun = all(self.metric("gravswell_api_requests_total", verb="watch", kind=other) for other in optional)
        return begun and self.metric("gravswell_queue_length", kind=kind) == 0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self._child is not None
        self._child.process.send_signal(number)
        return self._child.process.wait(timeout=WAIT_SECONDS)

    def restart(self) -> None:
        assert self.stop() == 0, self.log.read_text()[-2000:]
        self.start()


def rendered(tmp_path_factory: pytest.TempPathFactory, *flags: str) -> list[dict[str, Any]]:
    """The documents that the chart makes in ``SYSTEM``, by these flags of ``helm template``."""
    helm = ensure_binaries(names=["helm"])["helm"]
    chart = str(ROOT / "charts/gravswell")
    written = subprocess.run(
        [helm, "template", "gravswell", chart, "--namespace", SYSTEM, "--skip-tests", *flags],
        env={"HOME": str(tmp_path_factory.mktemp("helm")), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    return [document for document in yaml.safe_load_all(written) if document]


def install(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory, *values: str) -> Path:
    """Apply the definitions and the chart's roles, as the chart writes them; return the operator's kubeconfig.

    ``values`` are further values of the chart, as ``--set`` takes them.
    """
    flags = [f"--set={value}" for value in values]
    wanted = [d for d in rendered(tmp_path_factory, *flags) if d["kind"] != "Deployment"]
    system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all([system, *wanted]))
    names = [d["metadata"]["name"] for d in wanted if d["kind"] == "CustomResourceDefinition"]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in names))
    # The API server knows of roles a moment after it has stored them, and refuses what is asked before.
    everywhere, lease = ("list", "models.gravswell.dev", "--all-namespaces"), ("update", f"leases/{LEASE_NAME}")
    wait_until(lambda: may(cluster, ACCOUNT, *everywhere) and may(cluster, ACCOUNT, *lease, "-n", LEASE_NAMESPACE))
    account = next(d["metadata"]["name"] for d in wanted if d["kind"] == "ServiceAccount")
    token = cluster.kubectl("create", "token", account, "-n", SYSTEM, "--duration=12h").strip()
    path = tmp_path_factory.mktemp("operator") / "kubeconfig"
    write_token_kubeconfig(path, server=cluster.server_url, authority=cluster.pki / "ca.crt", token=token)
    return path


def may(cluster: ControlPlane, user: str, *what: str) -> bool:
    """Whether ``user`` may do it, by the API server's present word; ``what`` is as for ``kubectl auth can-i``."""
    return cluster.kubectl("auth", "can-i", *what, f"--as={user}", check=False).strip() == "yes"


Scope = Literal["session", "module"]


def control_plane(folder: str, scope: Scope = "session") -> Any:
    """A fixture, to be called ``cluster``: a control plane of these tests' own, in a temporary ``folder``."""

    @pytest.fixture(scope=scope)
    def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
        with ControlPlane(tmp_path_factory.mktemp(folder)) as running:
            yield running

    return cluster


def node_of_cluster() -> Any:
    """A fixture, to be called ``local_node``: the node of ``cluster`` whose pods are real.

    One for each ``cluster``: a fixture of the whole session is made once, with the cluster of whoever asks first.
    """

    @pytest.fixture(scope="session")
    def local_node(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
        with LocalNode(cluster, tmp_path_factory.mktemp("local-node")) as node:
            yield node

    return local_node


def operator_of_cluster(*after: str, scope: Scope = "session") -> Any:
    """A fixture, to be called ``operator``: it runs on ``cluster``, once the fixtures ``after`` are there."""

    @pytest.fixture(scope=scope)
    def operator(
        request: pytest.FixtureRequest, cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[OperatorProcess]:
        for name in after:
            request.getfixturevalue(name)
        with running_operator(install(cluster, tmp_path_factory)) as process:
            yield process

    return operator


@contextmanager
def running_operator(kubeconfig: Path, *arguments: str) -> Iterator[OperatorProcess]:
    """The operator with ``kubeconfig`` and ``arguments``; it must end cleanly, and have had no fault of its own."""
    process = OperatorProcess(kubeconfig, kubeconfig.with_name("operator.log"), *arguments)
    process.start()
    yield process
    assert process.stop() == 0
    log = process.log.read_text()
    assert "a fault of the operator" not in log, log


@cache
def api_of(cluster: ControlPlane) -> Api:
    """One connection for all tests of a control plane."""
    return Api(cluster)


class Namespace:
    """One namespace, as its users see it."""

    def __init__(self, cluster: ControlPlane, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.pool = f"pool-{namespace}"
        self._api = api_of(cluster)

    def kubectl(self, *arguments: str, **options: Any) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, **options)

    def apply(self, kind: str, name: str, **spec: Any) -> None:
        self.create(API, kind, name, spec=spec)

    def create(self, api_version: str, kind: str, name: str, **content: Any) -> None:
        """Make or change an object of any kind."""
        body = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **content}
        self._api.apply(self.namespace, body)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        return self._api.get(kind, self.namespace, name)

    def objects(self, *kinds: str, selector: str = "") -> list[dict[str, Any]]:
        names = ",".join(kinds).split(",")
        return [body for name in names for body in self._api.list(name, self.namespace, selector)]

    until = staticmethod(wait_until)

    def patch(self, kind: str, name: str, change: dict[str, Any], *, subresource: str = "") -> None:
        self._api.patch(kind, self.namespace, name, change, subresource=subresource)

    def delete(self, kind: str, name: str = "") -> None:
        """Ask that an object goes, or all of its kind."""
        self._api.delete(kind, self.namespace, name)

    def condition(self, kind: str, name: str, type_: str = "Ready", **expected: str) -> dict[str, Any]:
        """The condition, once it answers the object's latest spec and has the expected status and reason."""

        def found() -> dict[str, Any] | None:
            body = self.get(kind, name)
            condition = conditions(body).get(type_) if body is not None else None
            if body is None or condition is None or condition["observedGeneration"] != body["metadata"]["generation"]:
                return None
            return condition if all(condition[key] == value for key, value in expected.items()) else None

        try:
            return wait_until(found)  # type: ignore[no-any-return]
        except AssertionError:
            raise AssertionError(f"{kind} {name}: {type_} is never {expected}; {self.get(kind, name)}") from None

    def pods(self, server: str = "server") -> list[str]:
        """The names of the server's pods that are not going."""
        pods = self.objects("pods", selector=f"gravswell.dev/server={server}")
        return sorted(p["metadata"]["name"] for p in pods if "deletionTimestamp" not in p["metadata"])
