"""Namespaces that forbid pods such as ours, each by other means."""

import yaml

from gravswell.errors import GravswellError

from .operating import NAMESPACE, Cluster, named

REFUSALS = {
    "quota": ("exceeded quota: forbids", "raise the ResourceQuota"),
    "limits": ("maximum memory usage per Container is 512Mi", "raise the namespace's LimitRange"),
    "policy": ("images come from registry.example", "mend what refuses them"),
}
"""What forbids, the API server's words, and the way out that the status has."""

_OBJECTS = {
    "quota": ("ResourceQuota", {"hard": {"limits.memory": "1Gi"}}),
    "limits": ("LimitRange", {"limits": [{"type": "Container", "max": {"memory": "512Mi"}}]}),
}
_POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: NAMESPACE}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  validations:
    - expression: object.spec.containers.all(c, c.image.startsWith("registry.example/"))
      message: images come from registry.example
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: NAMESPACE}
spec:
  policyName: NAMESPACE
  validationActions: [Deny]
  matchResources:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: NAMESPACE}}
"""


def namespace(what: str) -> str:
    """The one that forbids by these means."""
    return f"{NAMESPACE}-{what}"


def make(cluster: Cluster) -> None:
    """Make them all; return when they forbid."""
    policy = namespace("policy")
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": policy}})
    cluster.apply(*yaml.safe_load_all(_POLICY.replace("NAMESPACE", policy)))
    # It is in force a moment later. Where a Pod Security Standard is enforced, that is what refuses the probe.
    cluster.until(lambda: REFUSALS["policy"][0] in _refusal(cluster, policy))
    for what in REFUSALS:
        cluster.namespace(namespace(what))
    for what, (kind, spec) in _OBJECTS.items():
        cluster.apply(named("v1", kind, "forbids", namespace(what), spec=spec))


def remove(cluster: Cluster) -> None:
    """Let them go, with all that is in them, and the policy."""
    names = [f"namespace/{namespace(what)}" for what in REFUSALS]
    names += [f"validatingadmissionpolicy{kind}/{namespace('policy')}" for kind in ("", "binding")]
    cluster.kubectl("delete", *names, "--ignore-not-found", "--wait=false")


def _refusal(cluster: Cluster, place: str) -> str:
    """What the API server says to a pod there; empty where it would take it."""
    try:
        cluster.kubectl("run", "probe", "--image=elsewhere/image:1", "-n", place, "--dry-run=server")
    except GravswellError as error:
        return str(error)
    return ""
