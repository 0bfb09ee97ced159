"""What lies between a Gateway and the pods, as tables: routes, and the two Services of a canary with weights."""

import pytest

from gravswell_operator.api import InferenceServer
from gravswell_operator.desired.gateway import backends, children
from gravswell_operator.desired.weights import Split
from gravswell_operator.state import PodState

GATE = {"name": "gate", "namespace": "infra", "sectionName": "web"}
BOTH = {
    "http": {"parentRefs": [GATE], "hostnames": ["models.example.com"]},
    "grpc": {"parentRefs": [{"name": "gate", "sectionName": "grpc"}]},
}
NEW = Split(frozenset("b"), 10)


def server(gateway=BOTH, name="digits"):
    spec = {"repositoryRef": {"name": "models"}, "tag": "24.08", "replicas": 2, "service": {"gateway": gateway}}
    metadata = {"name": name, "namespace": "team", "uid": "1234"}
    return InferenceServer.model_validate({"metadata": metadata, "spec": spec})


def pod(name, address="10.0.0.1", *, ready=True, **state):
    state = {"terminating": False, "finished": False, "problem": None, **state}
    return PodState(name, ready=ready, address=address, **state)


def made(split=None, pods=(), *, apart=False, **how):
    return {(m["kind"], m["metadata"]["name"]): m for m in children(server(**how), split, pods, apart=apart)}


def endpoints(manifests, name):
    found = manifests["EndpointSlice", name]["endpoints"]
    return {e["targetRef"]["name"]: (*e["addresses"], *e["conditions"].values()) for e in found}


def test_at_rest_there_are_routes_to_the_server_and_nothing_else():
    manifests = made(pods=[pod("a")])
    assert list(manifests) == [("HTTPRoute", "digits"), ("GRPCRoute", "digits")]
    http, grpc = manifests.values()
    assert http["apiVersion"] == grpc["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert http["spec"] == {
        "parentRefs": [GATE],
        "hostnames": ["models.example.com"],
        "rules": [{"backendRefs": [{"name": "digits", "port": 8000, "weight": 1}]}],
    }
    assert grpc["spec"] == {
        "parentRefs": [{"name": "gate", "sectionName": "grpc"}],
        "rules": [{"backendRefs": [{"name": "digits", "port": 8001, "weight": 1}]}],
    }
    assert http["metadata"]["ownerReferences"][0]["uid"] == "1234"


def test_only_the_routes_that_are_asked_for():
    assert list(made(gateway={"grpc": BOTH["grpc"]})) == [("GRPCRoute", "digits")]
    assert made(NEW, [pod("a"), pod("b")], gateway=None) == {}


def test_a_canary_has_two_services_and_its_weights():
    manifests = made(NEW, [pod("a"), pod("b", "10.0.0.2")])
    assert [name for kind, name in manifests if kind == "Service"] == ["digits-old", "digits-new"]
    assert "selector" not in manifests["Service", "digits-new"]["spec"]
    assert endpoints(manifests, "digits-old-ipv4") == {"a": ("10.0.0.1", True, True, False)}
    assert endpoints(manifests, "digits-new-ipv4") == {"b": ("10.0.0.2", True, True, False)}
    labels = manifests["EndpointSlice", "digits-new-ipv4"]["metadata"]["labels"]
    assert labels["kubernetes.io/service-name"] == "digits-new"
    assert labels["endpointslice.kubernetes.io/managed-by"] == "gravswell.dev"
    assert labels["gravswell.dev/server"] == "digits"
    for kind, port in (("HTTPRoute", 8000), ("GRPCRoute", 8001)):
        (rule,) = manifests[kind, "digits"]["spec"]["rules"]
        assert rule["backendRefs"] == [
            {"name": "digits-old", "port": port, "weight": 90},
            {"name": "digits-new", "port": port, "weight": 10},
        ]
    assert [kind for kind, _ in manifests][-2:] == ["HTTPRoute", "GRPCRoute"], "after what they name"


def test_ports_of_a_slice_bear_the_names_of_its_services():
    """By these, whoever reads the slice finds the port of the pods."""
    manifests = made(NEW, [pod("a"), pod("b")])
    service, slice_ = manifests["Service", "digits-new"], manifests["EndpointSlice", "digits-new-ipv4"]
    told = [(port["name"], port["port"]) for port in service["spec"]["ports"]]
    assert told == [(port["name"], port["port"]) for port in slice_["ports"]] == [("http", 8000), ("grpc", 8001)]


def test_what_pods_are_shows_in_their_endpoints():
    pods = [
        pod("b", ready=False),
        pod("a", terminating=True),
        pod("c", finished=True),
        pod("d", address=""),
    ]
    manifests = made(Split(frozenset("b"), 0), pods)
    assert endpoints(manifests, "digits-new-ipv4") == {"b": ("10.0.0.1", False, False, False)}
    assert endpoints(manifests, "digits-old-ipv4") == {"a": ("10.0.0.1", False, True, True)}


@pytest.mark.parametrize("new", ["", "ab"])
def test_an_empty_side_is_there_and_gets_nothing(new):
    pods = [pod("a"), pod("b")]
    split = Split(frozenset(new), 10)
    manifests = made(split, pods)
    empty, full = ("new", "old") if not new else ("old", "new")
    assert endpoints(manifests, f"digits-{empty}-ipv4") == {}
    assert list(endpoints(manifests, f"digits-{full}-ipv4")) == ["a", "b"]
    weights = dict(backends(server(), split, pods))
    assert (weights[f"digits-{empty}"], weights[f"digits-{full}"]) == (0, 100)


def test_services_that_are_still_in_use_lead_to_every_pod():
    """A Gateway that has not seen the new routes yet sends requests to them, whatever became of the replicas."""
    manifests = made(pods=[pod("a"), pod("b")], apart=True)
    for side in ("old", "new"):
        assert list(endpoints(manifests, f"digits-{side}-ipv4")) == ["a", "b"]
    (rule,) = manifests["HTTPRoute", "digits"]["spec"]["rules"]
    assert [backend["name"] for backend in rule["backendRefs"]] == ["digits"]


def test_each_family_of_addresses_has_its_slices():
    manifests = made(NEW, [pod("a", "fd00::1"), pod("b", "fd00::2"), pod("c")])
    slices = {name: m["addressType"] for (kind, name), m in manifests.items() if kind == "EndpointSlice"}
    assert slices == {
        "digits-old-ipv4": "IPv4",
        "digits-old-ipv6": "IPv6",
        "digits-new-ipv4": "IPv4",
        "digits-new-ipv6": "IPv6",
    }
    assert list(endpoints(manifests, "digits-old-ipv6")) == ["a"]
    assert list(endpoints(manifests, "digits-old-ipv4")) == ["c"]
    assert list(endpoints(manifests, "digits-new-ipv6")) == ["b"]


def test_without_an_address_there_is_no_slice():
    assert [kind for kind, _ in made(NEW, [pod("a", "")])] == ["Service", "Service", "HTTPRoute", "GRPCRoute"]


def test_as_many_replicas_as_a_server_can_have_fit_into_a_slice():
    pods = [pod(f"p-{number:03}", f"10.0.{number // 200}.{number % 200 + 1}") for number in range(250)]
    manifests = made(Split(frozenset(p.name for p in pods[:50]), 10), pods)
    old, new = (endpoints(manifests, f"digits-{side}-ipv4") for side in ("old", "new"))
    assert (len(old), len(new)) == (200, 50)
    assert list(old) == sorted(old)


def test_the_same_pods_in_another_order_are_the_same_objects():
    pods = [pod("a"), pod("b", "10.0.0.2"), pod("c", "10.0.0.3")]
    assert made(NEW, pods) == made(NEW, pods[::-1])


def test_the_longest_name_of_a_server_has_room_for_the_endings():
    longest = "a" * 50
    for _, name in made(NEW, [pod("a"), pod("b", "fd00::2")], name=longest):
        assert len(name) <= 63
