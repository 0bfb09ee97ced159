"""What gravswell and these tests leave in a cluster, and how all of it goes, as the chart's README says."""

from gravswell_operator.api.crd import crds
from gravswell_operator.cluster.resources import MANAGED_SELECTOR

from .operating import NAMESPACE, Cluster

SYSTEM = "gravswell-system"
STORAGE = "gravswell-test-storage"
DRIVERS = "gravswell-drivers"
VOLUME = "gravswell-test-models"


def left(cluster: Cluster) -> list[str]:
    """Everything in the cluster that is gravswell's or the tests' by its name, but for what a namespace takes along."""
    everywhere = "namespaces,persistentvolumes,customresourcedefinitions,clusterroles,clusterrolebindings"
    found = cluster.kubectl("get", everywhere, "--output=name").split()
    found += cluster.kubectl("get", "roles,rolebindings,leases", "--namespace=kube-system", "--output=name").split()
    return [name for name in found if "gravswell" in name]


def managed(cluster: Cluster) -> list[str]:
    """What the operator, and what it made, have made in the tests' namespace, of every kind that the cluster lists."""
    kinds = cluster.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").split()
    selector = f"--selector={MANAGED_SELECTOR}"
    return cluster.kubectl("get", ",".join(kinds), f"--namespace={NAMESPACE}", selector, "--output=name").split()


def delete_objects(cluster: Cluster) -> None:
    """Delete every object of gravswell's kinds: the tests', and those of no namespace."""
    # By their names: for the category kubectl believes what it has cached, which may be older than the definitions.
    kinds = ",".join(body["metadata"]["name"] for body in crds())
    cluster.kubectl("delete", kinds, "--all", f"--namespace={NAMESPACE}", "--timeout=100s")


def remove(cluster: Cluster) -> None:
    """Take everything away, whatever of it is there; return when it is gone.

    An object that does not go, or an operator that does not, is told; the rest is taken away all the same.
    """
    kubectl = cluster.kubectl
    kinds = [body["metadata"]["name"] for body in crds()]
    try:
        if {f"customresourcedefinition.apiextensions.k8s.io/{kind}" for kind in kinds}.issubset(left(cluster)):
            delete_objects(cluster)
    finally:
        try:
            cluster.helm("uninstall", "gravswell", "-n", SYSTEM, "--ignore-not-found", "--wait", "--timeout=120s")
        finally:
            kubectl("delete", "crd", "--selector=app.kubernetes.io/part-of=gravswell", "--wait=false")
            kubectl("delete", "lease", "gravswell-operator", "--namespace=kube-system", "--ignore-not-found")
            kubectl("delete", "namespace", DRIVERS, SYSTEM, STORAGE, NAMESPACE, "--ignore-not-found", "--wait=false")
            kubectl("delete", "persistentvolume", VOLUME, "--ignore-not-found", "--wait=false")
            cluster.until(lambda: not left(cluster))
