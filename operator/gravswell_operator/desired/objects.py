"""What every child has in common: labels, owner reference, digest; and how a pod of ours is locked down."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gravswell.logs import LogFormat
from gravswell_operator import names
from gravswell_operator.api import GPUNodePool, InferenceServer, ModelRepository
from gravswell_operator.api.common import API_VERSION
from gravswell_operator.api.podtemplate import DEVICES_ENV

Manifest = dict[str, Any]
"""A Kubernetes object as it is sent to the API server."""

KEY_FOLDER = "/run/gravswell"
KEY_FILE = f"{KEY_FOLDER}/key"
MODELS_FOLDER = "/run/gravswell-models"
"""Unlike any path of a ``file://`` repository: the development cluster's node has no mounts and takes the one for the
other where the names are the same."""
CACHE_FOLDER = "/run/gravswell-cache"
SCRATCH_FOLDER = "/run/gravswell-scratch"
REPOSITORY_FOLDER = "/repository"
CREDENTIALS_FOLDER = "/run/gravswell-credentials"
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105  a folder's name, not a secret
USER_ID = 1000
"""Triton's image has this user; named here because *restricted* pod security wants a number."""


@dataclass(frozen=True)
class Options:
    """What the operator was started with and its children need."""

    image: str
    """The gravswell image: agents and listers."""
    drivers_namespace: str = names.DRIVERS_NAMESPACE
    triton_image: str = names.TRITON_IMAGE
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets with which agents and listers pull ``image``, by name: each namespace has its own, or none."""
    agent_log_format: LogFormat = LogFormat.TEXT
    """How agents and listers log."""
    network_policies: tuple[tuple[str, str], ...] | None = None
    """Labels of the namespaces that may read metrics, where NetworkPolicies are made; empty: none may."""
    prometheus: str = ""
    """Where KEDA asks for Triton's metrics: the URL of a Prometheus; empty: the installation names none."""


Parent = GPUNodePool | ModelRepository | InferenceServer


def labels(parent: Parent, role: str) -> dict[str, str]:
    """The labels of everything that belongs to ``parent``."""
    return {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_ROLE: role,
        names.OWNER_LABELS[parent.NAMES.kind]: parent.metadata.name,
    }


def owner_reference(parent: Parent) -> Manifest:
    """Makes the garbage collector delete the child with ``parent``.

    Without ``blockOwnerDeletion``: that would need the right to update the finalizers of users' objects.
    """
    metadata = parent.metadata
    return {
        "apiVersion": API_VERSION,
        "kind": parent.NAMES.kind,
        "name": metadata.name,
        "uid": metadata.uid,
        "controller": True,
    }


def child(
    parent: Parent,
    api_version: str,
    kind: str,
    name: str,
    *,
    role: str,
    namespace: str | None = None,
    labelled: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    owned: bool = True,
    **content: Any,
) -> Manifest:
    """An object that belongs to ``parent``, with ``content`` as its top-level fields, stamped with its digest.

    ``labelled`` are labels beside those by which the operator finds it. One that is not ``owned`` stays when ``parent``
    goes. Without a namespace it is of the whole cluster.
    """
    metadata: Manifest = {"name": name}
    if place := namespace if namespace is not None else parent.metadata.namespace:
        metadata["namespace"] = place
    metadata["labels"] = {**labels(parent, role), **(labelled or {})}
    if owned:
        metadata["ownerReferences"] = [owner_reference(parent)]
    if annotations:
        metadata["annotations"] = dict(annotations)
    return stamp({"apiVersion": api_version, "kind": kind, "metadata": metadata, **content})


def digest(manifest: Mapping[str, Any]) -> str:
    """Short digest of an object's content."""
    text = orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:16]


def stamp(manifest: Manifest) -> Manifest:
    """``manifest`` with its own digest as an annotation."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), names.ANNOTATION_DIGEST: digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def pod_security() -> Manifest:
    """A pod's security context that the *restricted* standard takes."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """A container's security context that the *restricted* standard takes."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def own_container_security() -> Manifest:
    """The same for an image that writes to nothing but its mounts, as ours does."""
    return {**container_security(), "readOnlyRootFilesystem": True}


def scratch_env() -> Manifest:
    """Where temporary files go: the root file system is read only."""
    return {"name": "TMPDIR", "value": SCRATCH_FOLDER}


def scratch_mount() -> Manifest:
    """The mount of :func:`scratch_volume`."""
    return {"name": "scratch", "mountPath": SCRATCH_FOLDER}


def scratch_volume() -> Manifest:
    """What storage clients may need for themselves; models never go through it."""
    return {"name": "scratch", "emptyDir": {"sizeLimit": "64Mi"}}


def field_env(name: str, path: str) -> Manifest:
    """A variable from the downward API."""
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def no_gpus_env() -> Manifest:
    """Keeps the node's GPUs from a container that asks for none.

    Where NVIDIA's runtime is the node's default, an image that sets ``all``, as Triton's does, would see every one.
    Never beside a request for GPUs: the device plugin says which they are, and the kubelet would let this one win.
    """
    return {"name": DEVICES_ENV, "value": "void"}


def token_volume() -> Manifest:
    """The ServiceAccount's token as a volume, so that only the containers that mount it have it."""
    return {
        "name": "token",
        "projected": {
            "defaultMode": 0o440,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                {
                    "configMap": {
                        "name": "kube-root-ca.crt",
                        "items": [{"key": "ca.crt", "path": "ca.crt"}],
                    }
                },
                {
                    "downwardAPI": {
                        "items": [
                            {
                                "path": "namespace",
                                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                            }
                        ]
                    }
                },
            ],
        },
    }


def http_probe(
    path: str, port: str | int, *, period: int, timeout: int, failures: int, success: int | None = None
) -> Manifest:
    """An HTTP probe; ``period`` and ``timeout`` are in seconds."""
    probe = {
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }
    return probe if success is None else {**probe, "successThreshold": success}


def account(parent: Parent, name: str, options: Options, *, role: str) -> Manifest:
    """A ServiceAccount whose token no pod gets unasked, and whose pods may pull our image."""
    pull: Manifest = {}
    if options.image_pull_secrets:
        pull["imagePullSecrets"] = [{"name": secret} for secret in options.image_pull_secrets]
    return child(parent, "v1", "ServiceAccount", name, role=role, automountServiceAccountToken=False, **pull)


def configmap_access(
    parent: Parent,
    name: str,
    accounts: Sequence[str],
    *,
    role: str,
    read: Sequence[str] = (),
    write: Sequence[str] = (),
) -> list[Manifest]:
    """A Role for the named ConfigMaps and nothing else, bound to the ServiceAccounts ``accounts``.

    ``read`` may be got, listed and watched (by name); ``write`` may be got and patched.
    """
    rules = []
    if read:
        rules.append(_configmap_rule(read, ["get", "list", "watch"]))
    if write:
        rules.append(_configmap_rule(write, ["get", "patch"]))
    namespace = parent.metadata.namespace
    subjects = [{"kind": "ServiceAccount", "name": account, "namespace": namespace} for account in accounts]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    group = "rbac.authorization.k8s.io/v1"
    return [
        child(parent, group, "Role", name, role=role, rules=rules),
        child(parent, group, "RoleBinding", name, role=role, roleRef=reference, subjects=subjects),
    ]


def _configmap_rule(resource_names: Sequence[str], verbs: list[str]) -> Manifest:
    return {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": list(resource_names), "verbs": verbs}
