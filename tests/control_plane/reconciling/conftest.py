"""The operator as a process on the real control plane, under the chart's own role, with simulated nodes.

The pods run on kwok nodes: they are scheduled, become ready and go, but nothing in them runs. So the tests write into
the listing and report ConfigMaps what a lister and agents would; the documents are the library's own.

``operator``    the running operator; ``restart()``, ``stop()``, ``start()``, ``metric(name)``
``world``       a namespace of the test's own, with ``apply``, ``get``, ``ready``, ``publish``, ``report``...
"""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from gravswell.serving.contracts import (
    LISTING_KEY,
    ListedEntry,
    ListedVersion,
    Listing,
    ModelReport,
    ModelState,
    Report,
)
from gravswell_operator.devcluster import ControlPlane, ensure_binaries
from gravswell_operator.devcluster.kubeconfig import write_token_kubeconfig
from gravswell_operator.devcluster.kwok import KwokNodes
from gravswell_operator.devcluster.processes import Child

ROOT = Path(__file__).parents[3]
SYSTEM = "gravswell-system"
DRIVERS = "gravswell-drivers"
POLL_SECONDS = 0.5
WAIT_SECONDS = 90
API = "gravswell.dev/v1alpha1"
GPUS = 8
"""Of each simulated node."""


def digest(number: int) -> str:
    """The digest of version ``number`` in these tests."""
    return f"{number:064x}"


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

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self._kubeconfig, self.log = kubeconfig, log
        self._child: Child | None = None
        self.address = ""

    def start(self, *, wait: bool = True) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        arguments = ["operator", "run", "--kubeconfig", self._kubeconfig, "--listen", self.address]
        self._child = Child("operator", [sys.executable, "-m", "gravswell", *arguments], log=self.log)
        if wait:
            wait_until(self.is_ready)

    def is_ready(self) -> bool:
        assert self._child is not None
        assert self._child.process.poll() is None, self.log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"http://{self.address}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        found = (float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " "))
        return next(found, 0.0)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self._child is not None
        self._child.process.send_signal(number)
        return self._child.process.wait(timeout=WAIT_SECONDS)

    def restart(self) -> None:
        assert self.stop() == 0, self.log.read_text()[-2000:]
        self.start()


def _node(name: str) -> dict[str, Any]:
    resources = {"cpu": "64", "memory": "256Gi", "pods": "500", "nvidia.com/gpu": str(GPUS)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"type": "kwok", "gravswell.dev/local-node": "true"}},
        "status": {
            "allocatable": resources,
            "capacity": resources,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Simulated"}],
        },
    }


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of these tests' own: their nodes would take the pods that others mean for the local node."""
    with ControlPlane(tmp_path_factory.mktemp("reconciling")) as running:
        yield running


@pytest.fixture(scope="session")
def nodes(cluster: ControlPlane) -> Iterator[None]:
    """Two tainted kwok nodes, and one that takes every pod, also those of ``file://`` repositories."""
    with KwokNodes(cluster, count=2, gpus=GPUS):
        node = _node("plain")
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(node))
        status = json.dumps({"status": node["status"]})
        cluster.kubectl("patch", "node", "plain", "--subresource=status", "--type=merge", "-p", status)
        # The pods of file:// repositories may run on all three.
        cluster.kubectl("label", "node", "-l", "type=kwok", "gravswell.dev/local-node=true", "--overwrite")
        yield


@pytest.fixture(scope="session")
def installed(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The definitions and the chart's roles, as the chart writes them; the operator's kubeconfig."""
    helm = ensure_binaries(names=["helm"])["helm"]
    rendered = subprocess.run(
        [helm, "template", "gravswell", str(ROOT / "charts/gravswell"), "--namespace", SYSTEM],
        env={"HOME": str(tmp_path_factory.mktemp("helm")), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    wanted = [d for d in yaml.safe_load_all(rendered) if d and d["kind"] != "Deployment"]
    system = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all([system, *wanted]))
    names = [d["metadata"]["name"] for d in wanted if d["kind"] == "CustomResourceDefinition"]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in names))
    account = next(d["metadata"]["name"] for d in wanted if d["kind"] == "ServiceAccount")
    token = cluster.kubectl("create", "token", account, "-n", SYSTEM, "--duration=12h").strip()
    path = tmp_path_factory.mktemp("operator") / "kubeconfig"
    write_token_kubeconfig(path, server=cluster.server_url, authority=cluster.pki / "ca.crt", token=token)
    return path


@pytest.fixture(scope="session")
def operator(installed: Path, nodes: None) -> Iterator[OperatorProcess]:
    process = OperatorProcess(installed, installed.with_name("operator.log"))
    process.start()
    yield process
    assert process.stop() == 0
    log = process.log.read_text()
    assert "a fault of the operator" not in log, log


class World:
    """One namespace with everything that a test does in it."""

    def __init__(self, cluster: ControlPlane, namespace: str) -> None:
        self._cluster, self.namespace = cluster, namespace
        self.pool = f"pool-{namespace}"

    def kubectl(self, *arguments: str, **options: Any) -> str:
        return self._cluster.kubectl("-n", self.namespace, *arguments, **options)

    def apply(self, kind: str, name: str, **spec: Any) -> None:
        body = {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        text = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def objects(self, *kinds: str, selector: str = "") -> list[dict[str, Any]]:
        flags = ["-l", selector] if selector else []
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", ",".join(kinds), "-o", "json", *flags))["items"]
        return found

    until = staticmethod(wait_until)

    def patch(self, kind: str, name: str, change: dict[str, Any], *flags: str) -> None:
        self.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(change), *flags)

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

    # What users apply.

    def make_pool(self, **spec: Any) -> None:
        """A pool of the three simulated nodes, of this test alone."""
        defaults = {
            "provider": {"type": "Static", "static": {"matchLabels": {"type": "kwok"}}},
            "accelerator": {"type": "Simulated-GPU", "count": GPUS},
            "taints": [{"key": "kwok.x-k8s.io/node"}],
        }
        self.apply("GPUNodePool", self.pool, **{**defaults, **spec})

    def make_repository(self, name: str = "models", **spec: Any) -> None:
        self.apply("ModelRepository", name, **{"url": "file:///srv/models", **spec})

    def make_server(self, name: str = "server", **spec: Any) -> None:
        defaults: dict[str, Any] = {"repositoryRef": {"name": "models"}, "tag": "24.08", "vcpus": "100m"}
        if "autoscaling" not in spec:
            defaults["replicas"] = 1
        self.apply("InferenceServer", name, **{**defaults, **spec})

    def make_model(self, name: str = "digits", **spec: Any) -> None:
        self.apply("Model", name, **{"serverRef": {"name": "server"}, "entry": "digits", **spec})

    # What the pods would do.

    def publish(self, *numbers: int, repository: str = "models", accessible: bool = True, **other: Any) -> None:
        """As the lister: the entry ``digits`` has these versions."""
        versions = tuple(ListedVersion(number=n, digest=digest(n), size=n) for n in sorted(numbers, reverse=True))
        listing = Listing(
            repository="file:///srv/models",
            observed_at=datetime.now(UTC),
            accessible=accessible,
            entries=(ListedEntry(name="digits", versions=versions),) if versions else (),
            **other,
        )
        self._write(f"{repository}-listing", LISTING_KEY, listing.to_json())

    def pods(self, server: str = "server") -> list[str]:
        """The names of the server's pods that are not going."""
        pods = self.objects("pods", selector=f"gravswell.dev/server={server}")
        return sorted(p["metadata"]["name"] for p in pods if "deletionTimestamp" not in p["metadata"])

    def report(self, pod: str, loaded: int | None, desired: int | None = None, **other: Any) -> None:
        """As the agent of ``pod``: version ``loaded`` of ``digits`` serves, and ``desired`` is wanted."""
        wanted = desired or loaded
        assert wanted is not None
        said = ModelReport(
            name="digits",
            state=other.pop("state", ModelState.SERVING),
            desired_version=wanted,
            desired_digest=digest(wanted),
            loaded_version=loaded,
            loaded_digest=digest(loaded) if loaded is not None else None,
            verified=loaded == wanted,
            **other,
        )
        document = Report(pod=pod, ready=True, triton="2.51.0", simulated_gpus=True, models=(said,))
        self._write("server-report", pod, document.to_json())

    def _write(self, configmap: str, key: str, text: str) -> None:
        wait_until(lambda: self.get("configmap", configmap))
        self.patch("configmap", configmap, {"data": {key: text}})


@pytest.fixture
def world(cluster: ControlPlane, namespace: str, operator: OperatorProcess) -> Iterator[World]:
    made = World(cluster, namespace)
    yield made
    made.kubectl("delete", "gpunodepool", made.pool, "--ignore-not-found", "--wait=false")
    made.kubectl("delete", "isrv,mdl,mr", "--all", "--wait=false")
