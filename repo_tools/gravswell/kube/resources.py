"""Kinds of the API, and where their objects are."""

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True)
class Resource:
    """One kind of the API. ``group`` is empty for the core kinds."""

    kind: str
    plural: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of the collection, of one object, or of an object's subresource."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)

    def __str__(self) -> str:
        return self.kind

    def __hash__(self) -> int:
        return hash((self.group, self.plural))


@dataclass(frozen=True)
class Selection:
    """Objects of a kind: of one namespace or of all, and of these the ones that the selectors allow.

    ``name`` selects one object by its name, in the only form in which a Role with ``resourceNames`` allows a list or a
    watch. ``labels`` and ``fields`` are selectors as the API takes them: ``a=b,c!=d``.
    """

    resource: Resource
    namespace: str | None = None
    name: str | None = None
    labels: str = ""
    fields: str = ""

    @property
    def query(self) -> dict[str, str]:
        """The parameters of a request for them."""
        by_name = f"metadata.name={self.name}" if self.name is not None else ""
        fields = ",".join(part for part in (by_name, self.fields) if part)
        chosen = {"labelSelector": self.labels, "fieldSelector": fields}
        return {key: value for key, value in chosen.items() if value}

    def __str__(self) -> str:
        return label(self.resource, self.namespace, self.name)


def label(resource: Resource, namespace: str | None, name: str | None) -> str:
    """How messages name an object; without ``name``, all of them."""
    where = f"{namespace}/" if namespace else ""
    return f"{resource.kind} {where}{name or '(all)'}"


NAMESPACE = Resource("Namespace", "namespaces", namespaced=False)
NODE = Resource("Node", "nodes", namespaced=False)
POD = Resource("Pod", "pods")
CONFIG_MAP = Resource("ConfigMap", "configmaps")
SECRET = Resource("Secret", "secrets")
SERVICE_ACCOUNT = Resource("ServiceAccount", "serviceaccounts")
PERSISTENT_VOLUME = Resource("PersistentVolume", "persistentvolumes", namespaced=False)
PERSISTENT_VOLUME_CLAIM = Resource("PersistentVolumeClaim", "persistentvolumeclaims")
LEASE = Resource("Lease", "leases", "coordination.k8s.io")
