"""NetworkPolicies, where the installation wants them: what neighbours may connect to, of servers and of listers."""

from gravswell_operator import names
from gravswell_operator.api import InferenceServer, ModelRepository
from gravswell_operator.desired.objects import Manifest, Options, child


def server_policy(server: InferenceServer, options: Options) -> list[Manifest]:
    """Inference is open to everybody; metrics and the agent's report are for the namespaces that scrape.

    Nothing else is listened on. Triton's control APIs are on the ports of inference, and closed there by their key. The
    kubelet's probes are no neighbour's and always pass. What pods may connect to is left alone: buckets are anywhere.
    """
    if options.network_policies is None:
        return []
    rules: list[Manifest] = [{"ports": _ports(names.PORT_HTTP, names.PORT_GRPC)}]
    if scrapers := dict(options.network_policies):
        source = {"namespaceSelector": {"matchLabels": scrapers}}
        rules.append({"from": [source], "ports": _ports(names.PORT_METRICS, names.PORT_AGENT)})
    selector = names.server_selector(server.metadata.name)
    return [_policy(server, server.metadata.name, names.ROLE_TRITON, selector, rules)]


def lister_policy(repository: ModelRepository, options: Options) -> list[Manifest]:
    """Nobody has anything to ask of a lister."""
    if options.network_policies is None:
        return []
    name = repository.metadata.name
    return [_policy(repository, names.lister(name), names.ROLE_LISTER, names.lister_selector(name), [])]


def _ports(*numbers: int) -> list[Manifest]:
    return [{"port": number, "protocol": "TCP"} for number in numbers]


def _policy(
    parent: InferenceServer | ModelRepository, name: str, role: str, selector: dict[str, str], rules: list[Manifest]
) -> Manifest:
    spec: Manifest = {"podSelector": {"matchLabels": selector}, "policyTypes": ["Ingress"]}
    if rules:  # the API server drops an empty list, so it must not be wanted either
        spec["ingress"] = rules
    return child(parent, "networking.k8s.io/v1", "NetworkPolicy", name, role=role, spec=spec)
