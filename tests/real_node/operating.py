"""What tests do with a cluster as its users: kubectl, helm, objects, conditions, logs."""

import json
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from gravswell_operator.devcluster import ControlPlane
from gravswell_operator.devcluster.kubectl import Kubectl
from gravswell_operator.devcluster.realnode import RealNode

from ..quiver.stores.emulators import GCS

ROOT = Path(__file__).parents[2]
NAMESPACE = "gravswell-test"
"""Where the tests' objects are. Theirs alone: it goes with all that is in it."""
REGISTRY = "ghcr.io/gravswell"
"""Of the images' names, as the chart has them."""
BUCKET_IMAGE = f"docker.io/fsouza/fake-gcs-server:{GCS.module.version.removeprefix('v')}"
"""As clusters pull it that reach a registry; the real node has the program of that version under that name."""
WAIT_SECONDS = 120
POLL_SECONDS = 0.5
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def named(api: str, kind: str, name: str, namespace: str = NAMESPACE, **fields: Any) -> dict[str, Any]:
    """An object of a namespace, with its other fields."""
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": namespace}, **fields}


class Cluster:
    """A cluster by a kubectl that reaches it, and helm.

    Both get a kubeconfig of their own in ``folder``, with that context alone and the tests' namespace as its default;
    helm gets ``environment`` besides. The cluster has the project's images, or can pull them from ``registry``.
    """

    def __init__(
        self, kubectl: Kubectl, helm: Path, folder: Path, environment: Mapping[str, str], registry: str = REGISTRY
    ) -> None:
        self.image, self.triton_repository = f"{registry}/gravswell:0.1.0", f"{registry}/tritonserver-cpu"
        self.kubeconfig = folder / "kubeconfig-of-tests"
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(kubectl("config", "view", "--minify", "--flatten", "--raw"))
        self.kubectl = Kubectl(kubectl.path, self.kubeconfig, cache=folder / "kubectl-cache")
        self.kubectl("config", "set-context", "--current", f"--namespace={NAMESPACE}")
        self._helm, self._environment = helm, {**environment, "KUBECONFIG": str(self.kubeconfig)}

    def network(self) -> AbstractContextManager[None]:
        """What this thread must be in to reach the cluster."""
        return nullcontext()

    def helm(self, *arguments: str, timeout: float = 400, check: bool = True) -> str:
        """What helm printed."""
        done = subprocess.run(
            [self._helm, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, f"{done.stdout}{done.stderr}\n{self.describe()}"
        return done.stdout + done.stderr

    def apply(self, *documents: dict[str, Any]) -> None:
        self.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(documents))

    def namespace(self, name: str) -> None:
        """A namespace that enforces the *restricted* standard."""
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})

    def get(self, kind: str, name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json"))
        return found

    def until(self, fact: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
        """What ``fact`` returns, as soon as that is true; with the state of the cluster where it does not become so."""
        end = time.monotonic() + seconds
        while not (answer := fact()):
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s; last: {answer!r}\n{self.describe()}")
            time.sleep(POLL_SECONDS)
        return answer

    def until_condition(self, kind: str, name: str, type_: str = "Ready", **expected: str) -> dict[str, Any]:
        """The condition once it answers the object's latest spec and says ``expected`` (``status="True"``)."""
        wanted = expected or {"status": "True"}

        def fact() -> dict[str, Any] | None:
            body = self.get(kind, name)
            for condition in body.get("status", {}).get("conditions", []):
                if condition["type"] == type_ and condition.get("observedGeneration") == body["metadata"]["generation"]:
                    return condition if wanted.items() <= condition.items() else None
            return None

        found: dict[str, Any] = self.until(fact)
        return found

    def until_message(self, kind: str, name: str, word: str, namespace: str = NAMESPACE) -> str:
        """The message of a condition that has ``word`` in it, once there is one."""

        def fact() -> str:
            found = self.get(kind, name, namespace).get("status", {}).get("conditions", [])
            return next((c["message"] for c in found if word in c.get("message", "")), "")

        message: str = self.until(fact)
        return message

    def endpoints(self, service: str, namespace: str = NAMESPACE) -> set[str]:
        """The names of the ready pods behind a Service."""
        slices = self.kubectl.items("endpointslices", "-n", namespace, "-l", f"kubernetes.io/service-name={service}")
        return {
            endpoint["targetRef"]["name"]
            for one in slices
            for endpoint in one.get("endpoints") or ()
            if endpoint["conditions"].get("ready")
        }

    def running(self, namespace: str) -> list[dict[str, Any]]:
        """The namespace's pods that run, without those that are going."""
        pods = self.kubectl.items("pods", "-n", namespace)
        return [p for p in pods if p["status"]["phase"] == "Running" and "deletionTimestamp" not in p["metadata"]]

    def restarted(self, pod: dict[str, Any]) -> bool:
        """Whether each container of a pod has restarted since it was read, and is ready again."""
        before = {c["name"]: c["restartCount"] for c in pod["status"]["containerStatuses"]}
        now = self.get("pod", pod["metadata"]["name"], pod["metadata"]["namespace"])["status"]["containerStatuses"]
        return all(c["ready"] and c["restartCount"] > before[c["name"]] for c in now)

    def run_in_pod(
        self,
        name: str,
        image: str,
        *command: str,
        seconds: float = WAIT_SECONDS,
        files: Mapping[str, bytes] = MappingProxyType({}),
    ) -> str:
        """The output of a command that runs to its end in a pod of its own; ``files`` as for :meth:`pod`."""
        self.pod(name, image, *command, files=files)
        return self.finished(name, seconds)

    def pod(
        self,
        name: str,
        image: str,
        *command: str,
        namespace: str = NAMESPACE,
        files: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        """Start a pod that the *restricted* standard admits, with a read-only root file system, and not again.

        ``files``, by their paths, are in its folder ``/files``; less than 1 MiB in all.
        """
        container: dict[str, Any] = {
            "name": "main",
            "image": image,
            "command": list(command),
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        }
        security = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
        spec: dict[str, Any] = {
            "containers": [container],
            "restartPolicy": "Never",
            "securityContext": security,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 5,
        }
        if files:
            keys = {path: path.replace("/", "--") for path in files}
            data = {keys[path]: b64encode(content).decode() for path, content in files.items()}
            self.apply(named("v1", "ConfigMap", name, namespace, binaryData=data))
            items = [{"key": key, "path": path} for path, key in keys.items()]
            spec["volumes"] = [{"name": "files", "configMap": {"name": name, "items": items}}]
            container["volumeMounts"] = [{"name": "files", "mountPath": "/files", "readOnly": True}]
        self.apply(named("v1", "Pod", name, namespace, spec=spec))

    def finished(self, name: str, seconds: float = WAIT_SECONDS) -> str:
        """The log of a pod that has succeeded."""
        phase = self.until(lambda: p if (p := self.get("pod", name)["status"]["phase"]) in ENDED else "", seconds)
        log = self.kubectl("logs", name)
        assert phase == "Succeeded", log
        return log

    def describe(self) -> str:
        """What an engineer would look at first: pods, our objects, events."""
        parts = [
            self.kubectl("get", "pods", "--all-namespaces", "-o", "wide", check=False),
            self.kubectl("get", "gravswell", "--all-namespaces", check=False),
            self.kubectl("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp", check=False)[-6000:],
            self.kubectl("logs", "-n", "gravswell-system", "deployment/gravswell", "--tail=40", check=False),
        ]
        return "\n".join(parts)


class RealCluster(Cluster):
    """A control plane and its one real node; helm sees nothing of this machine's user."""

    def __init__(self, plane: ControlPlane, node: RealNode, helm: Path, folder: Path) -> None:
        environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
        super().__init__(plane.kubectl, helm, folder, environment)
        self.plane, self.node = plane, node

    def network(self) -> AbstractContextManager[None]:
        """The node's own network: nothing else reaches the cluster."""
        return self.node.machine.network()

    def start_dns(self) -> None:
        """Apply the cluster's DNS server and wait until it answers."""
        self.kubectl("apply", "--server-side", "-f", str(Path(__file__).with_name("dns.yaml")))
        self.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s", timeout=150)


ENDED = ("Succeeded", "Failed")
