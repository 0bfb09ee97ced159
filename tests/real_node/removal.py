"""What gravswell and these tests leave in a cluster, and how all of it goes, as the chart's README says."""

from gravswell_operator.api.crd import crds

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


def remove(cluster: Cluster) -> None:
    """Take everything away, whatever of it is there; return when it is gone.

    An object that does not go, or an operator that does not, is told; the rest is taken away all the same.
    """
    kubectl = cluster.kubectl
    kinds = [body["metadata"]["name"] for body in crds()]
    try:
        if {f"customresourcedefinition.apiextensions.k8s.io/{kind}" for kind in kinds}.issubset(left(cluster)):
            kubectl("delete", ",".join(kinds), "--all", f"--namespace={NAMESPACE}", "--timeout=100s")
    finally:
        try:
            cluster.helm("uninstall", "gravswell", "-n", SYSTEM, "--ignore-not-found", "--wait", "--timeout=120s")
        finally:
            kubectl("delete", "crd", "--selector=app.kubernetes.io/part-of=gravswell", "--wait=false")
            kubectl("delete", "lease", "gravswell-operator", "--namespace=kube-system", "--ignore-not-found")
            kubectl("delete", "namespace", DRIVERS, SYSTEM, STORAGE, NAMESPACE, "--ignore-not-found", "--wait=false")
            kubectl("delete", "persistentvolume", VOLUME, "--ignore-not-found", "--wait=false")
            cluster.until(lambda: not left(cluster))
