"""KServe beside a control plane: its manager, built from its own module, with its definitions, settings and webhooks.

In Standard mode (its Deployments, not Knative's), and to its advantage with nothing but a Deployment and a Service for
each InferenceService: no Ingress, no HorizontalPodAutoscaler. Its webhooks are on every interface, for it has no
setting for that.
"""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml
from simulated_cluster import NAMESPACE

from gravswell.cache import cache_dir, locked
from gravswell_operator.cluster.resources import ResourceType
from gravswell_operator.devcluster import ControlPlane
from gravswell_operator.devcluster.certificates import Authority
from gravswell_operator.devcluster.controlplane import HOST
from gravswell_operator.devcluster.gobuild import Module, module_folder
from gravswell_operator.devcluster.processes import Servers, answers

KSERVE = Module("kserve", "github.com/kserve/kserve", "v0.20.0")
OWN_NAMESPACE = "kserve"
GROUP, VERSION = "serving.kserve.io", "v1beta1"
INFERENCE_SERVICE = ResourceType("InferenceService", "inferenceservices", GROUP, VERSION)
RUNTIME = "kserve-tritonserver"
BUILD_SECONDS = 3600.0

Manifest = dict[str, Any]


def manager() -> Path:
    """KServe's manager, built once, with the dependencies that its own ``go.mod`` names: some minutes and 5 GB."""
    target = cache_dir() / "bin" / KSERVE.key / "kserve-manager"
    with locked(target):
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            staged = target.with_suffix(".new")
            build = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", staged, "./cmd/manager"]
            environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""}
            subprocess.run(build, cwd=module_folder(KSERVE), env=environment, check=True, timeout=BUILD_SECONDS)
            staged.replace(target)
    return target


def install_definitions(cluster: ControlPlane) -> None:
    """KServe's definitions and settings, and its runtime that serves ONNX with Triton."""
    config = module_folder(KSERVE) / "config"
    cluster.kubectl("apply", "--server-side", "-k", str(config / "crd"))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
    cluster.kubectl("create", "namespace", OWN_NAMESPACE)
    settings = yaml.safe_load((config / "configmap/inferenceservice.yaml").read_text())
    data = settings["data"]
    del data["_example"]
    data["deploy"] = json.dumps({"defaultDeploymentMode": "Standard"})
    data["ingress"] = json.dumps(json.loads(data["ingress"]) | {"disableIngressCreation": True})
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(settings))
    cluster.kubectl("apply", "--server-side", "-f", str(config / f"runtimes/{RUNTIME}.yaml"))


class KServe(Servers):
    """KServe's manager, an administrator of ``cluster``, which has its definitions; and its webhooks for services and
    pods."""

    def __init__(self, cluster: ControlPlane) -> None:
        super().__init__(cluster.logs)
        self._cluster = cluster

    def _start(self) -> None:
        binary = manager()
        scratch = self._cluster.directory / "kserve"
        authority = Authority(scratch / "k8s-webhook-server/serving-certs")  # where it looks, below TMPDIR
        authority.issue("tls", "kserve", hosts=[HOST, "localhost"])
        webhooks, health = (self._free_port(HOST) for _ in range(2))
        child = self._spawn(
            "kserve",
            [binary, f"--webhook-port={webhooks}", f"--health-probe-addr={HOST}:{health}", "--metrics-addr=0"],
            log="kserve.log",
            environment={
                **os.environ,
                "KUBECONFIG": str(self._cluster.kubeconfig),
                "POD_NAMESPACE": OWN_NAMESPACE,
                "TMPDIR": str(scratch),
            },
        )
        self._wait(child, lambda: answers(f"http://{HOST}:{health}/readyz"))
        text = (module_folder(KSERVE) / "config/webhook/manifests.yaml").read_text()
        bundle = base64.b64encode(authority.certificate.read_bytes()).decode()
        for document in yaml.safe_load_all(text):
            if document is None or document["metadata"]["name"] != f"inferenceservice.{GROUP}":
                continue
            for webhook in document["webhooks"]:
                path = webhook["clientConfig"]["service"]["path"]
                webhook["clientConfig"] = {"url": f"https://{HOST}:{webhooks}{path}", "caBundle": bundle}
            self._cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(document))

    @property
    def pid(self) -> int:
        """Its process."""
        return self._children[0].pid


def service(name: str) -> Manifest:
    """An InferenceService of one replica on the CPU, with ONNX on Triton, for a simulated node."""
    little = {"cpu": "1m", "memory": "1Mi"}
    model = {
        "modelFormat": {"name": "onnx"},
        "runtime": RUNTIME,
        "storageUri": "pvc://models/repository",
        "resources": {"requests": little, "limits": little},
    }
    toleration = {"key": "kwok.x-k8s.io/node", "operator": "Exists"}
    predictor = {"minReplicas": 1, "model": model, "tolerations": [toleration], "nodeSelector": {"type": "kwok"}}
    metadata = {"name": name, "namespace": NAMESPACE, "annotations": {f"{GROUP}/autoscalerClass": "none"}}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": predictor},
    }


def objects_of(cluster: ControlPlane, name: str) -> list[Manifest]:
    """What KServe made for one InferenceService, without its owner, to be applied by somebody else."""
    label = f"{GROUP}/inferenceservice={name}"
    found = cluster.kubectl("get", "deployments,services", "-n", NAMESPACE, "-l", label, "-o", "json")
    return [
        {
            "apiVersion": item["apiVersion"],
            "kind": item["kind"],
            "metadata": {key: item["metadata"][key] for key in ("name", "namespace", "labels", "annotations")},
            "spec": {key: value for key, value in item["spec"].items() if key not in ("clusterIP", "clusterIPs")},
        }
        for item in json.loads(found)["items"]
    ]
