"""The control plane that these tests run on: real, on loopback, one for each pytest process.

``cluster``      a :class:`ControlPlane` for the whole session (one for each xdist worker)
``namespace``    the name of a namespace made for the test and deleted after it
``kubectl``      ``kubectl(*args, stdin=None, check=True) -> str`` as administrator
``local_node``   the node ``gravswell-local`` with real pods, for the rest of the session
``pods``         makes pods for the local node in the test's namespace and waits for what becomes of them
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from gravswell_operator.devcluster import ControlPlane, LocalNode

from .operating import POLL_SECONDS, api_of, control_plane, node_of_cluster, wait_until

OUR_IMAGE = "ghcr.io/gravswell/gravswell:test"


class Kubectl(Protocol):
    def __call__(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str: ...


cluster = control_plane("control-plane")


@pytest.fixture
def kubectl(cluster: ControlPlane) -> Kubectl:
    return cluster.kubectl


@pytest.fixture
def namespace(cluster: ControlPlane) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    api = api_of(cluster)
    api.apply("", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    api.delete("namespace", "", name)


local_node = node_of_cluster()


class Pods:
    """Pods of one namespace, pinned to the local node."""

    def __init__(self, cluster: ControlPlane, namespace: str) -> None:
        self._kubectl, self._api = cluster.kubectl, api_of(cluster)
        self.namespace = namespace
        until_default_account(cluster, namespace)

    def create(self, name: str, *containers: dict[str, Any], **spec: Any) -> None:
        """Create pod ``name``; a container needs no name (``main``) and no image (ours)."""
        filled = [{"name": "main", "image": OUR_IMAGE, **container} for container in containers]
        document = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": spec.pop("labels", {})},
            "spec": {
                "nodeSelector": {"gravswell.dev/local-node": "true"},
                "terminationGracePeriodSeconds": 5,
                "containers": filled,
                **spec,
            },
        }
        self.apply(document)

    def apply(self, *documents: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self._kubectl("apply", "-n", self.namespace, "-f", "-", stdin=json.dumps(listed))

    def get(self, name: str) -> dict[str, Any]:
        found = self._api.get("pod", self.namespace, name)
        assert found is not None, f"there is no pod {name}"
        return found

    def until(self, name: str, holds: Callable[[dict[str, Any]], Any], *, seconds: float = 90) -> dict[str, Any]:
        """Return the pod once ``holds`` of its document; fails with its status after ``seconds``."""
        end = time.monotonic() + seconds
        while True:
            pod = self.get(name)
            if holds(pod):
                return pod
            if time.monotonic() > end:
                raise AssertionError(f"after {seconds} s: {json.dumps(pod['status'], indent=1)}")
            time.sleep(POLL_SECONDS)

    def until_phase(self, name: str, phase: str) -> dict[str, Any]:
        return self.until(name, lambda pod: pod["status"]["phase"] == phase)

    def until_ready(self, name: str) -> dict[str, Any]:
        return self.until(name, is_ready)

    def logs(self, name: str, *flags: str) -> str:
        return self._kubectl("logs", name, "-n", self.namespace, *flags)

    def events(self, name: str) -> list[dict[str, Any]]:
        items = self._api.list("events", self.namespace)
        return [event for event in items if event["involvedObject"].get("name") == name]

    def until_event(self, name: str, reason: str, *, seconds: float = 60) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for event in self.events(name):
                if event["reason"] == reason:
                    return event
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"no event {reason} for {name}: {[e['reason'] for e in self.events(name)]}")


def until_default_account(cluster: ControlPlane, namespace: str) -> None:
    """Wait for the account that a controller makes in a new namespace: without it no pod can be made, and no token."""
    wait_until(lambda: api_of(cluster).get("serviceaccount", namespace, "default"))


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


@pytest.fixture
def pods(cluster: ControlPlane, namespace: str, local_node: LocalNode) -> Pods:
    return Pods(cluster, namespace)
