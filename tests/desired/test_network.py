"""NetworkPolicies: what neighbours may connect to, of the pods that they are for."""

from gravswell_operator import names
from gravswell_operator.api import InferenceServer, ModelRepository
from gravswell_operator.desired.objects import Options
from gravswell_operator.plan import plan

METADATA = {"namespace": "n"}


def made(policies):
    """Policies and workloads of one repository and one server."""
    url = {"url": "file:///srv/models"}
    repository = ModelRepository.model_validate({"metadata": {"name": "models", **METADATA}, "spec": url})
    spec = {"repositoryRef": {"name": "models"}, "tag": "24.08", "replicas": 1, "models": "All"}
    server = InferenceServer.model_validate({"metadata": {"name": "server", **METADATA}, "spec": spec})
    planned = plan([repository, server], Options(image="ours", network_policies=policies))
    children = [child for objects in planned.objects for child in objects.children]
    return {
        kind: {c["metadata"]["name"]: c["spec"] for c in children if c["kind"] == kind}
        for kind in ("NetworkPolicy", "Deployment")
    }


def test_none_unless_the_installation_wants_them():
    assert made(None)["NetworkPolicy"] == {}


def test_they_are_about_the_pods_and_the_ports_that_there_are():
    kinds = made((("team", "a"), ("kubernetes.io/metadata.name", "monitoring")))
    policies, workloads = kinds["NetworkPolicy"], kinds["Deployment"]
    assert policies.keys() == workloads.keys() == {"server", "models-lister"}
    for name, policy in policies.items():
        assert policy["policyTypes"] == ["Ingress"]
        assert policy["podSelector"] == workloads[name]["selector"]
    inference, watching = policies["server"]["ingress"]
    assert "from" not in inference
    labels = {"team": "a", "kubernetes.io/metadata.name": "monitoring"}
    assert watching["from"] == [{"namespaceSelector": {"matchLabels": labels}}]
    opened = {port["port"] for rule in (inference, watching) for port in rule["ports"]}
    containers = workloads["server"]["template"]["spec"]["containers"]
    assert opened == {port["containerPort"] for container in containers for port in container["ports"]}
    assert {port["port"] for port in inference["ports"]} == {names.PORT_HTTP, names.PORT_GRPC}
    assert "ingress" not in policies["models-lister"]


def test_without_a_scraper_metrics_are_for_nobody():
    (rule,) = made(())["NetworkPolicy"]["server"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == {names.PORT_HTTP, names.PORT_GRPC}
