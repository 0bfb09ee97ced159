"""Canaries by weight from end to end: two real Tritons behind Traefik, and load through it over HTTP and gRPC.

All of it is in a network of the module's own, in which pods have addresses that EndpointSlices take: that takes root.
The tests follow one server through its life, in their order.
"""

import subprocess
import uuid
from ipaddress import IPv4Network

import numpy as np
import pytest
from tritonclient import http
from tritonclient.utils import InferenceServerException

from gravswell.serving.triton.install import ensure_triton
from gravswell_operator.devcluster import ControlPlane, LocalNode, ensure_binaries
from gravswell_operator.devcluster.binaries import CONTROL_PLANE
from gravswell_operator.devcluster.gatewayapi import GATEWAY_API, install_gateway_api
from gravswell_operator.devcluster.gobuild import module_folder
from gravswell_operator.devcluster.realnode import Machine
from gravswell_operator.devcluster.traefik import Traefik

from ...serving.agent.traffic import Traffic
from ...serving.agent.versions import WIDTH, picky_graph, publish
from ..operating import install, running_operator
from ..replicas import seen_over_time
from ..serving.conftest import ENTRY, Place

ADDRESSES = IPv4Network("10.250.0.0/16")
ROUTES = {"http": "httproute", "grpc": "grpcroute"}
"""The kind of route of a protocol."""
NEW_WEIGHT = '{.spec.rules[0].backendRefs[?(@.name=="server-new")].weight}'


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The tests of this module, and all that they start, are in it and in no other."""
    ensure_binaries(names=[*CONTROL_PLANE, "helm", "traefik"])  # from inside, nothing can be downloaded
    module_folder(GATEWAY_API)
    ensure_triton()
    with Machine(tmp_path_factory.mktemp("network"), name="gateway") as machine:
        every = machine.command("ip", "route", "add", "local", str(ADDRESSES), "dev", "lo")
        subprocess.run(every, check=True, capture_output=True, text=True, timeout=60)
        with machine.network():
            yield


@pytest.fixture(scope="module")
def cluster(network, tmp_path_factory):
    with ControlPlane(tmp_path_factory.mktemp("gateway")) as running:
        install_gateway_api(running)
        yield running


@pytest.fixture(scope="module")
def traefik(cluster):
    with Traefik(cluster, list(ROUTES)) as running:
        yield running


@pytest.fixture(scope="module")
def place(cluster, tmp_path_factory):
    name = f"test-{uuid.uuid4().hex[:8]}"
    folder = tmp_path_factory.mktemp("repository") / "zoo"
    folder.mkdir()
    with (
        LocalNode(cluster, tmp_path_factory.mktemp("local-node"), addresses=ADDRESSES) as node,
        running_operator(install(cluster, tmp_path_factory)),
    ):
        cluster.kubectl("create", "namespace", name)
        made = Place(cluster, name, node, folder)
        made.publish(1)
        yield made


@pytest.fixture(scope="module")
def load(place, traefik):
    """Clients that never pause, each of one protocol."""
    traefik.make_gateway(place.namespace, "gate")
    place.make_repository()
    routes = {protocol: {"parentRefs": [{"name": "gate", "sectionName": protocol}]} for protocol in ROUTES}
    place.make_server(replicas=2, service={"gateway": routes})
    place.make_model(rollout=canary())
    place.until_serving(1)
    place.until(lambda: place.get("inferenceserver", "server")["status"]["readyReplicas"] == 2)
    place.condition("inferenceserver", "server", "RoutesAccepted", status="True")
    with Traffic(ENTRY, http_address=traefik.addresses["http"], grpc_address=traefik.addresses["grpc"]) as load:
        place.until(lambda: load.last == 1.0)
        yield load


def canary(*weights, first="Manual"):
    """One of the two replicas gets these shares of the requests, one after the other; the first for ``first``."""
    steps = [{"replicas": "50%", "pause": "Manual", "weight": weight} for weight in weights or ("50%",)]
    steps[0]["pause"] = first
    return {"strategy": "Canary", "canary": {"steps": steps, "judge": {"maxErrorRate": "1%", "minRequests": 50}}}


def rollout(place):
    return place.get("model", ENTRY)["status"].get("rollout", {})


def until_weighed(place, version, weight, step=1):
    """Wait until the canary of ``version`` is at a step, its weight is in force, and somebody must decide."""
    wanted = {"to": version, "state": "Paused", "step": step, "weight": weight}
    place.until(lambda: wanted.items() <= rollout(place).items())


def backends(place, protocol):
    """The Services that a route names, with their weights."""
    (rule,) = place.get(ROUTES[protocol], "server")["spec"]["rules"]
    return {backend["name"]: backend["weight"] for backend in rule["backendRefs"]}


def until_at_rest(place):
    for protocol in ROUTES:
        place.until(lambda protocol=protocol: list(backends(place, protocol)) == ["server"])


def next_answers(place, load, protocol, count=500):
    """Whatever comes from now on."""
    answers = load.by[protocol]
    begin = len(answers)
    place.until(lambda: len(answers) >= begin + count)
    return answers[begin : begin + count]


def require_share(place, load, version, percent, within):
    for protocol in ROUTES:
        latest = load.by[protocol]
        # Traefik says that it has a route a moment before requests go by it.
        place.until(lambda latest=latest: abs(100 * latest[-20:].count(float(version)) / 20 - percent) < 10)
        answers = next_answers(place, load, protocol)
        share = 100 * answers.count(float(version)) / len(answers)
        assert percent - within <= share <= percent + within, f"{protocol}: {share} %"


def serving_new(place):
    """The ready pods of the new version, by where its share goes."""
    slices = place.objects("endpointslices", selector="kubernetes.io/service-name=server-new")
    endpoints = [endpoint for one in slices for endpoint in one.get("endpoints") or ()]
    return {endpoint["targetRef"]["name"] for endpoint in endpoints if endpoint["conditions"]["ready"]}


def until_no_request_fails(place, load):
    def none_fails():
        failed = len(load.errors)
        for protocol in ROUTES:
            next_answers(place, load, protocol, 100)
        return len(load.errors) == failed

    place.until(none_fails)


def ask_what_is_out_of_range(traefik, times=20):
    """Ask through the Gateway what :func:`picky_graph` cannot answer; how many requests failed."""
    failed = 0
    tensor = http.InferInput("x", [1, WIDTH], "FP32")
    tensor.set_data_from_numpy(np.full((1, WIDTH), 1000.0, np.float32))
    with http.InferenceServerClient(traefik.addresses["http"]) as client:
        for _ in range(times):
            try:
                client.infer(ENTRY, [tensor])
            except InferenceServerException:
                failed += 1
    return failed


def is_rolled_back(place, traefik):
    """Whether what the version cannot answer has been held against it; asks some more of that."""
    ask_what_is_out_of_range(traefik)
    return rollout(place)["state"] == "RolledBack"


def test_at_rest_the_routes_lead_to_the_servers_own_service(place, load):
    until_at_rest(place)
    assert {ref["name"] for ref in place.get("httproute", "server")["spec"]["parentRefs"]} == {"gate"}
    assert not place.get("service", "server-new")
    for protocol in ROUTES:
        assert set(next_answers(place, load, protocol, 50)) == {1.0}
    assert load.errors == []


def test_the_share_of_answers_by_the_new_version_is_its_weight(place, load):
    place.make_model(rollout=canary("10%", "50%"))
    place.publish(2)
    until_weighed(place, 2, 10)
    assert [backends(place, protocol) for protocol in ROUTES] == [{"server-old": 90, "server-new": 10}] * 2
    require_share(place, load, 2, 10, within=3)
    place.make_model(rollout=canary("10%", "50%", first="0s"))  # on by one step
    until_weighed(place, 2, 50, step=2)
    require_share(place, load, 2, 50, within=5)
    assert load.errors == []


def test_a_promotion_fails_no_request(place, load):
    place.make_model(rollout={**canary("10%", "50%"), "promote": 2})
    place.until_serving(2)
    place.until(lambda: rollout(place)["state"] == "Complete")
    until_at_rest(place)
    place.until(lambda: load.last == 2.0)
    for protocol in ROUTES:
        assert set(next_answers(place, load, protocol, 200)) == {2.0}
    assert "weight" not in rollout(place)
    assert load.errors == []


def test_a_bad_version_gets_no_more_requests_before_anything_else_is_done_about_it(place, load, traefik, tmp_path):
    place.make_model(rollout=canary("50%"))
    revision = "{.metadata.resourceVersion}"  # of one store, so that of two objects it tells which was written first
    with (
        seen_over_time(place, tmp_path / "routes", "httproute", "server", f"{revision}/{NEW_WEIGHT}") as routes,
        seen_over_time(place, tmp_path / "told", "configmap", "server-desired", rf"{revision}/{{.data.*}}") as told,
    ):
        publish(place.repository, ENTRY, 3, 3.0, graph=picky_graph(3.0))  # its golden samples are right
        until_weighed(place, 3, 50)
        place.until(lambda: is_rolled_back(place, traefik))
        refused = place.condition("model", ENTRY, status="False", reason="RolledBack")
        until_at_rest(place)
    assert "fails too many requests" in refused["message"]
    weights = [(int(number), weight) for number, _, weight in (seen.partition("/") for seen in routes)]
    weighed = next(number for number, weight in weights if weight == "50")
    stopped = next(number for number, weight in weights if weight == "0" and number > weighed)
    orders = [(int(number), '"canary":{' not in text) for number, _, text in (seen.partition("/") for seen in told)]
    back = next(number for number, is_back in orders if is_back and number > weighed)
    assert stopped < back, (weights, orders)
    place.until(lambda: load.last == 2.0)
    assert ask_what_is_out_of_range(traefik) == 0
    assert load.errors == [], "whoever asked what it can answer got answers"


def test_what_a_killed_canary_would_have_got_goes_to_the_others(place, load, tmp_path):
    place.publish(4)
    until_weighed(place, 4, 50)
    (killed,) = serving_new(place)
    with seen_over_time(place, tmp_path / "weights", "grpcroute", "server", NEW_WEIGHT) as weights:
        place.kubectl("delete", "pod", killed, "--grace-period=0", "--force")
        place.until(lambda: serving_new(place) - {killed})
        until_weighed(place, 4, 50)
        place.until(lambda: backends(place, "grpc") == {"server-old": 50, "server-new": 50})
    assert weights[0] == "50"
    assert "0" in weights, "until another one served it"
    until_no_request_fails(place, load)
    require_share(place, load, 4, 50, within=5)
