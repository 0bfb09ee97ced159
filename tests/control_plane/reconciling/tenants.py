"""A tenant who may write our kinds in one namespace and nothing else, and a neighbour.

``tenant``       his namespace, for a test
``neighbour``    somebody else's, for a module, with all that a tenant could want
"""

import uuid

import pytest

from gravswell.errors import GravswellError
from gravswell.serving.contracts import DESIRED_KEY

from ..api import Api
from ..operating import API
from .conftest import World

TENANT = "tenant"
KINDS_MADE = (
    "deployments,statefulsets,services,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets,"
    "horizontalpodautoscalers,networkpolicies"
)


class Tenant(World):
    """The tenant's namespace. What he applies, the API server takes as from him."""

    def __init__(self, cluster, namespace):
        super().__init__(cluster, namespace)
        self.himself = Api(cluster, user=TENANT)

    def apply(self, kind, name, **spec):
        self.himself.apply(self.namespace, thing(kind, name, **spec))

    def refused(self, body, namespace=None):
        """The API server's words, where it refuses what the tenant applies."""
        with pytest.raises(GravswellError) as refusal:
            self.himself.admit(namespace or self.namespace, body)
        return str(refusal.value)

    def stored(self, body):
        """The spec that would be stored, for a client that does not ask for strict validation."""
        return self.himself.admit(self.namespace, body, strict=False)["spec"]


def thing(kind, name="thief", api_version=API, **spec):
    given = {key: value for key, value in spec.items() if value is not None}
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": given}


def server(**spec):
    """An InferenceServer as it could be applied."""
    return thing(
        "InferenceServer",
        **{"repositoryRef": {"name": "models"}, "tag": "24.08", "vcpus": "100m", "replicas": 1, **spec},
    )


@pytest.fixture
def tenant(cluster, namespace, operator):
    made = Tenant(cluster, namespace)
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "gravswell-edit"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": TENANT}
    made.create("rbac.authorization.k8s.io/v1", "RoleBinding", "tenant", roleRef=role, subjects=[subject])
    made.until(lambda: _is_admitted(made))
    yield made
    for kind in ("isrv", "mdl", "mr"):
        made.delete(kind)


def _is_admitted(tenant):
    """The API server knows of a binding a moment after it is stored."""
    try:
        return tenant.himself.admit(tenant.namespace, server())
    except GravswellError:
        return None


@pytest.fixture(scope="module")
def neighbour(cluster, operator):
    """Somebody else's namespace: a repository with its Secret, a server, a Model."""
    world = World(cluster, f"neighbour-{uuid.uuid4().hex[:8]}")
    cluster.kubectl("create", "namespace", world.namespace)
    world.create("v1", "Secret", "keys", stringData={"AWS_SECRET_ACCESS_KEY": "theirs"})
    world.create("v1", "ServiceAccount", "reader")
    world.make_repository("theirs", credentialsSecretRef={"name": "keys"})
    world.make_server("theirs", repositoryRef={"name": "theirs"})
    world.make_model("theirs", serverRef={"name": "theirs"})
    world.publish(1, repository="theirs")
    world.until(lambda: (world.get("model", "theirs").get("status") or {}).get("desiredVersion") == 1)
    world.condition("inferenceserver", "theirs", "Progressing", reason="RolledOut")
    world.until(lambda: '"version":1' in world.get("configmap", "theirs-desired")["data"].get(DESIRED_KEY, ""))
    yield world
    cluster.kubectl("delete", "namespace", world.namespace, "--wait=false")


def written(world):
    """The operator's objects there, and what it wrote into each."""
    found = world.objects(KINDS_MADE, selector="app.kubernetes.io/managed-by=gravswell")
    return {
        (o["kind"], o["metadata"]["name"]): (
            o["metadata"]["uid"],
            o["metadata"]["labels"],
            o.get("spec"),
            o.get("data"),
        )
        for o in found
    }
