"""What NetworkPolicies keep from neighbours: the chart's and the operator's, on a node that holds pods to them.

The tests are one story in the order in which they stand. Each names what a pod reaches, port by port, so that whom a
policy keeps out is seen beside whom it lets in.
"""

import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import onnx
import pytest

from gravswell import quiver as qv
from gravswell_operator import names

from ..serving.agent.versions import scaling_graph
from .operating import NAMESPACE, RealCluster, named
from .prepared import CHART, install, make_volume, sets
from .removal import STORAGE, SYSTEM, remove

pytestmark = pytest.mark.timeout(1200)  # the bounds of the waits in one test add up to as much

API = "gravswell.dev/v1alpha1"
SERVER, REPOSITORY = "digits", "models"
MONITORING = f"{NAMESPACE}-monitoring"
"""The namespace that the policies let in to metrics."""
NEIGHBOURS = (NAMESPACE, STORAGE, MONITORING)
"""Where a pod is that tries: beside the server, elsewhere, and where metrics are gathered."""
POD = "neighbour"
INFERENCE = {names.PORT_HTTP, names.PORT_GRPC}
WATCHING = {names.PORT_METRICS, names.PORT_AGENT}
OPERATORS_PORT = 8080
REFUSED_SECONDS = 15
"""After which a connection counts as refused that nothing answers; one that is let in takes milliseconds."""

REACH = f"""
import json, socket, sys

def reached(address):
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout={REFUSED_SECONDS}).close()
    except OSError:
        return False
    return True

print(json.dumps([address for address in sys.argv[1:] if reached(address)]))
"""

ASK = """
import json, sys, urllib.error, urllib.request
import numpy as np
from gravswell.serving import Client

with Client(sys.argv[1]) as client:
    rows = client.infer(sys.argv[2], {"x": np.ones((1, 4), np.float32)})["y"].tolist()
try:
    urllib.request.urlopen(f"http://{sys.argv[1]}/v2/repository/index", b"{}", timeout=60)
except urllib.error.HTTPError as error:
    print(json.dumps([rows, error.code]))
"""
"""An inference, and what a request gets that is for whoever controls the server."""


@pytest.fixture(scope="module")
def serving(real_cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """The chart with its own values, which ask for no policy; a server that serves; and neighbours."""
    cluster = real_cluster
    folder = tmp_path_factory.mktemp("volume")
    entry = qv.ModelRepository(str(folder / "repository")).add(SERVER, platform=qv.Platform.ONNX)
    entry.export_version(onnx.load_from_string(scaling_graph(2.0)))
    spec = {"repositoryRef": {"name": REPOSITORY}, "tag": "24.10", "vcpus": "100m", "memory": "1Gi", "replicas": 1}
    try:
        with cluster.network():
            install(cluster)
            cluster.namespace(MONITORING)
            for namespace in NEIGHBOURS:
                cluster.pod(POD, cluster.image, "python", "-c", "import time; time.sleep(3600)", namespace=namespace)
            cluster.apply(
                named(API, "ModelRepository", REPOSITORY, spec=make_volume(cluster, folder)),
                named(API, "InferenceServer", SERVER, spec=spec),
                named(API, "Model", SERVER, spec={"serverRef": {"name": SERVER}, "entry": SERVER, "version": "latest"}),
            )
            cluster.until_condition("model", SERVER)
            for namespace in NEIGHBOURS:
                cluster.kubectl("wait", "pod", POD, "-n", namespace, "--for=condition=Ready", "--timeout=100s")
        yield cluster
    finally:
        with cluster.network():
            cluster.kubectl("delete", "namespace", MONITORING, "--ignore-not-found", "--wait=false")
            remove(cluster)


def addresses(cluster: RealCluster, namespace: str, **labels: str) -> dict[str, str]:
    """The addresses of the pods that run and have these labels of ours, by their names."""
    wanted = {f"gravswell.dev/{key}": value for key, value in labels.items()}
    return {
        pod["metadata"]["name"]: pod["status"]["podIP"]
        for pod in cluster.running(namespace)
        if wanted.items() <= pod["metadata"].get("labels", {}).items()
    }


def ports(cluster: RealCluster) -> dict[str, str]:
    """Everything of ours that listens, by where it does (``address:port``): whose it is, and the port."""
    found = {}
    for address in addresses(cluster, NAMESPACE, server=SERVER).values():
        found |= {f"{address}:{port}": f"server {port}" for port in INFERENCE | WATCHING}
    (lister,) = addresses(cluster, NAMESPACE, repository=REPOSITORY).values()
    (operator,) = addresses(cluster, SYSTEM).values()
    return {**found, f"{lister}:{names.PORT_AGENT}": "lister", f"{operator}:{OPERATORS_PORT}": "operator"}


def of_server(numbers: set[int]) -> list[str]:
    return [f"server {port}" for port in numbers]


def reached(cluster: RealCluster, namespace: str, pod: str, places: list[str]) -> list[str]:
    """Those of the places that the pod is let in to."""
    command = ("exec", pod, "-n", namespace, "--", "python", "-c", REACH, *places)
    found: list[str] = json.loads(cluster.kubectl(*command, timeout=60 + len(places) * REFUSED_SECONDS))
    return found


def met(cluster: RealCluster, listening: dict[str, str]) -> dict[str, list[str]]:
    """What each neighbour reaches, by its namespace."""
    return {
        namespace: sorted(listening[place] for place in reached(cluster, namespace, POD, list(listening)))
        for namespace in NEIGHBOURS
    }


def until_met(cluster: RealCluster, listening: dict[str, str], expected: dict[str, list[str]]) -> None:
    """Until each neighbour reaches what is expected and nothing else: the node learns of a policy or pod, and of who
    may come, a moment after the API server does.
    """
    wanted = {namespace: sorted(whose) for namespace, whose in expected.items()}
    last: dict[str, list[str]] = {}

    def fact() -> bool:
        last.update(met(cluster, listening))
        return last == wanted

    try:
        cluster.until(fact)
    except AssertionError as error:
        raise AssertionError(f"they reach {last}, and should {wanted}") from error


def test_without_policies_every_neighbour_reaches_every_port(serving):
    listening = ports(serving)
    until_met(serving, listening, {namespace: list(listening.values()) for namespace in NEIGHBOURS})


def test_with_them_neighbours_reach_inference_and_those_who_gather_metrics_these_too(serving):
    before = addresses(serving, NAMESPACE)
    values = {
        "networkPolicy.servers": "true",
        "networkPolicy.operator": "true",
        r"networkPolicy.metricsFrom.kubernetes\.io/metadata\.name": MONITORING,
        "networkPolicy.apiServerPorts": f"{{{urlsplit(serving.plane.server_url).port}}}",
    }
    serving.helm("upgrade", "gravswell", str(CHART), "-n", SYSTEM, "--reuse-values", *sets(values), "--wait")
    inference = of_server(INFERENCE)
    watching = [*inference, *of_server(WATCHING), "operator"]
    expected = {NAMESPACE: inference, STORAGE: inference, MONITORING: watching}
    until_met(serving, ports(serving), expected)
    assert addresses(serving, NAMESPACE) == before, "a pod was replaced"


def test_what_no_neighbour_reaches_listens_and_the_node_s_own_probes_do(serving):
    (lister,) = addresses(serving, NAMESPACE, repository=REPOSITORY).values()
    socket.create_connection((lister, names.PORT_AGENT), timeout=60).close()  # from the node, as the kubelet's


def test_a_neighbour_infers_by_the_service_s_name_and_controls_nothing(serving):
    place = f"{SERVER}.{NAMESPACE}.svc:{names.PORT_HTTP}"
    said = serving.kubectl("exec", POD, "-n", STORAGE, "--", "python", "-c", ASK, place, SERVER)
    assert json.loads(said) == [[[2.0] * 4], 403]


def test_the_operator_reaches_the_api_server_and_no_pod(serving):
    (operator,) = addresses(serving, SYSTEM)
    api_server = "10.96.0.1:443"
    pods = [place for place, whose in ports(serving).items() if whose != "operator"]
    assert reached(serving, SYSTEM, operator, [api_server, *pods]) == [api_server]


def test_a_replica_that_comes_later_is_ready_and_is_closed_as_the_first(serving):
    serving.kubectl("scale", "isrv", SERVER, "--replicas=2")
    serving.until(lambda: len(serving.endpoints(SERVER)) == 2)
    inference = of_server(INFERENCE) * 2
    watching = [*inference, *of_server(WATCHING) * 2, "operator"]
    expected = {NAMESPACE: inference, STORAGE: inference, MONITORING: watching}
    until_met(serving, ports(serving), expected)
    serving.until_condition("model", SERVER)
