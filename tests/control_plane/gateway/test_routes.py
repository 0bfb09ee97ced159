"""Canaries by weight on a real API server: what the Gateway API's own definitions admit, and what controllers leave."""

import pytest

from gravswell.errors import GravswellError

from ...commands import run
from ..operating import install
from ..reconciling.test_operator_rights import granted, used
from .conftest import GATEWAY, REPLICAS, REST, weighed

__all__ = ["run"]

GROUPS = ("gateway.networking.k8s.io", "discovery.k8s.io")


def test_a_canary_by_weights_from_its_begin_to_its_promotion(server, operator, cluster, run):
    server.begin()
    server.until_routes(REST)
    server.condition("inferenceserver", "server", "RoutesAccepted", status="True", reason="RoutesTaken")
    assert server.sides() == []
    hosts = [server.get(kind, "server")["spec"]["hostnames"] for kind in ("httproute", "grpcroute")]
    assert hosts == [["models.example.com"], ["grpc.example.com"]]

    server.publish(1, 2)
    server.until(lambda: server.routes() == [weighed(0)] * 2)
    assert server.new() == [], "nobody is told before the Gateway leaves it out"
    server.take()
    server.until(lambda: len(server.new()) == 1)
    (picked,) = server.new()
    assert len(server.endpoints("server-old")) == REPLICAS
    server.obey()
    server.until_routes(weighed(10))
    addresses = {
        p["metadata"]["name"]: p["status"]["podIP"]
        for p in server.objects("pods")
        if p["metadata"]["name"] in server.pods()
    }
    assert server.endpoints("server-new") == {picked: addresses.pop(picked)}
    assert server.endpoints("server-old") == addresses
    server.until(lambda: (server.status()["state"], server.status().get("weight")) == ("Paused", 10))
    assert "1/4 Paused, weight 10%" in server.kubectl("get", "mdl")
    options = ("-n", server.namespace, "--kubeconfig", cluster.kubeconfig)
    assert "1 → 2" in run("top", *options, "--once").out
    (seen,) = run("top", *options, "-o", "json").data["servers"]
    assert [(change["model"], change["weight"]) for change in seen["rollouts"]] == [("digits", 10)]
    assert "10% of the requests through the Gateway" in run("rollout", "status", "digits", *options).out

    before = {kind: server.get(kind, "server")["metadata"]["resourceVersion"] for kind in ("httproute", "grpcroute")}
    slices = {s["metadata"]["name"]: s["metadata"]["resourceVersion"] for s in server.objects("endpointslices")}
    operator.restart()
    server.until(lambda: operator.has_looked("InferenceServer", "HTTPRoute", "GRPCRoute", "EndpointSlice"))
    server.condition("inferenceserver", "server", "RoutesAccepted", status="True")
    assert {kind: server.get(kind, "server")["metadata"]["resourceVersion"] for kind in before} == before
    now = {s["metadata"]["name"]: s["metadata"]["resourceVersion"] for s in server.objects("endpointslices")}
    assert now == slices, "Kubernetes' own controller leaves them alone, and so does an operator that starts anew"

    promoted = {**server.get("model", "digits")["spec"]["rollout"], "promote": 2}
    server.make_model(rollout=promoted)
    server.until(lambda: len(server.new()) == REPLICAS)
    server.until(lambda: server.routes() == [REST, REST])
    assert server.sides() == ["server-old", "server-new"], "the Gateway may not have seen it yet"
    assert len(server.endpoints("server-new")) == REPLICAS
    server.take()
    server.until(lambda: server.sides() == [])
    server.until(lambda: not [s for s in server.objects("endpointslices") if s["metadata"]["name"].endswith("-ipv4")])
    server.obey()
    server.until(lambda: server.status()["state"] == "Complete")
    assert "weight" not in server.status()


def test_the_way_back_begins_at_the_gateway(server):
    server.begin_canary()
    server.until(lambda: server.status()["state"] == "Paused")
    (bad,) = server.new()
    server.make_model(rollout={**server.get("model", "digits")["spec"]["rollout"], "abort": 2})
    server.until(lambda: server.new() == [])
    assert server.routes() == [weighed(0)] * 2, "before the agents are told"
    assert bad not in server.endpoints("server-old")
    server.condition("model", "digits", status="False", reason="RolledBack")
    server.take()
    server.obey()
    server.until_routes(REST)
    server.until(lambda: server.sides() == [])


def test_a_pod_that_goes_leaves_its_side_and_the_next_one_takes_its_turn(server):
    server.begin_canary()
    (first,) = server.new()
    server.delete("pod", first)
    server.until(lambda: first not in {**server.endpoints("server-old"), **server.endpoints("server-new")})
    server.until(lambda: len(server.ready_pods()) == REPLICAS and first not in server.pods())
    server.until(lambda: len(server.new()) == 1)
    server.obey()
    server.until_routes(weighed(10))
    server.until(lambda: list(server.endpoints("server-new")) == server.new())


def test_definitions_that_come_and_go(server, gateway_api):
    gateway_api(False)
    server.begin()
    found = server.condition("inferenceserver", "server", "RoutesAccepted", status="False", reason="GatewayMissing")
    assert "does not know httproutes.gateway.networking.k8s.io/v1: install the Gateway API" in found["message"]
    server.condition("inferenceserver", "server", status="True", reason="Serving")
    server.publish(1, 2)
    missing = server.condition("model", "digits", status="False", reason="GatewayMissing")
    assert missing["message"].endswith("; version 1 stays meanwhile")
    assert server.status()["state"] == "Waiting"
    assert server.new() == []
    gateway_api(True)
    server.until_routes(REST)
    server.condition("inferenceserver", "server", "RoutesAccepted", status="True")
    server.condition("model", "digits", status="True")
    server.until_routes(weighed(0))


def test_what_a_gateway_refuses_reaches_the_conditions(server):
    server.begin()
    server.until(lambda: server.routes() == [REST, REST])
    server.take("no listener allows it")
    found = server.condition("inferenceserver", "server", "RoutesAccepted", status="False", reason="RouteRefused")
    assert "HTTPRoute server: Accepted is False: no listener allows it" in found["message"]


def test_a_server_that_is_deleted_in_a_canary_leaves_nothing(server):
    server.begin()
    server.until_routes(REST)
    server.publish(1, 2)
    server.until_routes(weighed(0))
    server.until(lambda: len(server.new()) == 1)
    server.delete("isrv", "server")
    kinds = ("httproutes", "grpcroutes", "services", "endpointslices")
    server.until(lambda: not [body["metadata"]["name"] for body in server.objects(*kinds)])


def test_a_gateway_that_is_taken_out_of_the_spec_leaves_nothing(server):
    server.begin()
    server.until_routes(REST)
    server.patch("inferenceserver", "server", {"spec": {"service": {"gateway": None}}})
    server.until(lambda: server.routes() == [])


def test_what_a_gateway_api_refuses_is_refused_before(server):
    server.make_repository()
    nowhere = {"http": {**GATEWAY["http"], "parentRefs": []}}
    with pytest.raises(GravswellError, match=r"spec\.service\.gateway\.http\.parentRefs"):
        server.make_server(service={"gateway": nowhere})
    with pytest.raises(GravswellError, match="gateway needs http, grpc or both"):
        server.make_server(service={"gateway": {}})


def test_every_field_of_the_routes_is_explained(server):
    text = server.kubectl("explain", "inferenceserver.spec.service.gateway", "--recursive")
    assert "an HTTPRoute of the server's name" in " ".join(
        server.kubectl("explain", "isrv.spec.service.gateway").split()
    )
    assert "sectionName" in text
    assert "through the server's Gateway" in " ".join(
        server.kubectl("explain", "mdl.spec.rollout.canary.steps").split()
    )


def test_every_right_on_routes_and_endpoints_is_used_and_none_is_missing(server, operator, cluster):
    server.begin()
    server.until_routes(REST)
    server.publish(1, 2)
    server.until_routes(weighed(0))
    server.until(lambda: len(server.new()) == 1)
    server.make_model(rollout={**server.get("model", "digits")["spec"]["rollout"], "abort": 2})
    server.until_routes(REST)
    server.until(lambda: server.sides() == [])
    server.patch("inferenceserver", "server", {"spec": {"service": {"gateway": None}}})
    places = {
        f"{group}/{plural}"
        for group, plural in zip(
            ("discovery.k8s.io", *GROUPS[:1] * 2), ("endpointslices", "httproutes", "grpcroutes"), strict=True
        )
    }
    server.until(lambda: {("delete", place) for place in places} <= used(operator).keys())
    asked = used(operator)
    assert not [request for request, codes in asked.items() if "403" in codes and request[1] in places]
    rights = {(verb, where) for verb, where in granted(cluster) if where.split("/")[0] in GROUPS}
    assert {where for _, where in rights} == places
    # An apply creates, and looks at what it may not overwrite.
    assert rights <= asked.keys() | {(verb, place) for verb in ("create", "get") for place in places}


def test_without_the_right_it_says_so_and_touches_nothing(server, operator, cluster, tmp_path_factory):
    """As after the chart's gateway.enabled was switched off."""
    server.begin()
    server.until_routes(REST)
    before = server.get("httproute", "server")["metadata"]["resourceVersion"]
    install(cluster, tmp_path_factory, "gateway.enabled=false")
    operator.restart()
    try:
        found = server.condition("inferenceserver", "server", "RoutesAccepted", status="False", reason="Forbidden")
        assert "gateway.enabled of its chart" in found["message"]
        server.condition("inferenceserver", "server", status="True", reason="Serving")
        server.publish(1, 2)
        server.condition("model", "digits", status="False", reason="Forbidden")
        assert server.get("httproute", "server")["metadata"]["resourceVersion"] == before
    finally:
        install(cluster, tmp_path_factory)
        operator.restart()
    server.condition("inferenceserver", "server", "RoutesAccepted", status="True")
