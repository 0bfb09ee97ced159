"""Servers under load while their image changes, while they are suspended, and while somebody tries their control APIs.

A client that balances asks a name. The development cluster has no DNS, so the name is resolved in this process, to what
the headless Service's would be: the addresses of the pods that are ready and not going. Everything else is real, but
for the GPUs, which are counted only; NetworkPolicies are made, and no pod of this cluster is held to them.
"""

import json
import socket
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest
from tritonclient import grpc, http
from tritonclient.utils import InferenceServerException

from gravswell.serving import Client

from ...serving.agent.versions import WIDTH, publish
from .conftest import ENTRY

ROLL_SECONDS = 240
"""For replicas that are replaced one after the other, each drained before and warm after."""
ROWS = np.arange(8 * WIDTH, dtype=np.float32).reshape(8, WIDTH) + 1
SERVERS = {"server": {"replicas": 2, "gpus": 4}, "single": {"replicas": 1}}
"""One that fills its pool's node, and one of a single replica, which may have another beside it."""


def ready(pod):
    going = "deletionTimestamp" in pod["metadata"]
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", ())}
    return not going and conditions.get("Ready") == "True"


class Load(threading.Thread):
    """Rows that never pause, through a client that balances over a server's replicas."""

    def __init__(self, name):
        super().__init__()
        self.answers, self.errors = [], []
        self._name, self._end = name, threading.Event()

    def run(self):
        with Client(f"{self._name}.test:8000") as client:
            while not self._end.wait(0.02):
                try:
                    y = client.infer(ENTRY, {"x": ROWS}, batch_size=2)["y"]
                except Exception as error:  # noqa: BLE001  whatever it is, it is a failed request
                    self.errors.append(f"{type(error).__name__}: {error}")
                else:
                    self.answers.append({float(factor) for factor in (y / ROWS).flatten()})

    def end(self):
        self._end.set()
        self.join(timeout=60)

    def more(self, place, count=10):
        """Wait until as many calls more were answered."""
        wanted = len(self.answers) + count
        place.until(lambda: len(self.answers) >= wanted or self.errors)


@pytest.fixture(scope="module")
def names(place):
    """``SERVER.test`` stands for the server's replicas."""
    resolve = socket.getaddrinfo

    def resolved(name, *args, **options):
        hosts = [name]
        if isinstance(name, str) and name.endswith(".test"):
            pods = place.objects("pods", selector=f"gravswell.dev/server={name.removesuffix('.test')}")
            hosts = [pod["status"]["podIP"] for pod in pods if ready(pod)]
            if not hosts:
                raise socket.gaierror(socket.EAI_NONAME, "no replica is ready")
        return [row for host in hosts for row in resolve(host, *args, **options)]

    with pytest.MonkeyPatch.context() as here:
        here.setattr(socket, "getaddrinfo", resolved)
        yield


@pytest.fixture(scope="module")
def serving(place, names):
    provider = {"type": "Static", "static": {"matchLabels": {"nvidia.com/gpu.product": "Simulated-GPU"}}}
    place.apply("GPUNodePool", place.pool, provider=provider, accelerator={"type": "simulated", "count": 8})
    place.make_repository()
    for name in SERVERS:
        make(place, name)
        place.make_model("scale" if name == "server" else name, serverRef={"name": name})
    for name in SERVERS:
        place.until(lambda name=name: is_served(place, name), ROLL_SECONDS)
    yield place
    place.kubectl("delete", "gpunodepool", place.pool, "--wait=false")


def make(place, name, **change):
    pool = {"nodePoolRef": {"name": place.pool}} if SERVERS[name].get("gpus") else {}
    place.make_server(name, **{**SERVERS[name], **pool, **change})


def pods(place, name):
    found = place.objects("pods", selector=f"gravswell.dev/server={name}")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def uids(place, name):
    return {pod["metadata"]["uid"] for pod in pods(place, name)}


def is_served(place, name):
    there = pods(place, name)
    return len(there) == SERVERS[name]["replicas"] and all(ready(pod) for pod in there)


def image(pod):
    return next(c["image"] for c in pod["spec"]["containers"] if c["name"] == "triton")


@contextmanager
def load_of(place, name):
    load = Load(name)
    load.start()
    try:
        load.more(place)
        yield load
        load.more(place)
    finally:
        load.end()
    assert load.errors == []


@pytest.mark.parametrize("name", SERVERS)
def test_an_image_upgrade_fails_no_request(serving, name):
    place, before = serving, uids(serving, name)
    full = name == "server"
    rolling = {"maxSurge": 0, "maxUnavailable": 1} if full else {"maxSurge": 1, "maxUnavailable": 0}
    place.until(lambda: place.get("deployment", name)["spec"]["strategy"]["rollingUpdate"] == rolling)
    looks = []

    def upgraded():
        there = pods(place, name)
        looks.append((len(there), sum(map(ready, there))))
        new = all(image(pod).endswith(":24.10-py3") for pod in there)
        return new and is_served(place, name) and not uids(place, name) & before

    with load_of(place, name) as load:
        make(place, name, tag="24.10")
        place.until(upgraded, ROLL_SECONDS)
    assert set().union(*load.answers) == {1.0}
    most, fewest = max(count for count, _ in looks), min(count for _, count in looks)
    assert (most, fewest >= 1) == (2, True), "neither GPUs that are not there, nor a moment without a replica"


def test_a_suspended_server_serves_on_as_it_is_and_catches_up_when_it_is_resumed(serving):
    place, before = serving, uids(serving, "server")
    make(place, "server", tag="24.10", suspend=True)
    place.condition("inferenceserver", "server", "Suspended", status="True")
    with load_of(place, "server") as load:
        place.publish(2)
        make(place, "server", tag="24.11", suspend=True)
        place.condition("inferenceserver", "server", "Suspended", status="True")
        place.until(lambda: place.get("modelrepository", "models")["status"]["models"][0]["latest"] == 2)
        load.more(place)
        assert set().union(*load.answers) == {1.0}
        assert uids(place, "server") == before
        make(place, "server", tag="24.11", suspend=False)
        place.until(lambda: is_served(place, "server") and not uids(place, "server") & before, ROLL_SECONDS)
        place.until(lambda: load.answers[-1] == {2.0} or load.errors)
    assert set().union(*load.answers) == {1.0, 2.0}


CONTROL = [
    ("POST", "repository/index"),
    ("POST", f"repository/models/{ENTRY}/unload"),
    ("POST", f"repository/models/{ENTRY}/load"),
    ("GET", "systemsharedmemory/status"),
    ("POST", "systemsharedmemory/region/mine/register"),
    ("POST", "cudasharedmemory/region/mine/register"),
    ("POST", "systemsharedmemory/unregister"),
    ("GET", "logging"),
    ("POST", "logging"),
    ("GET", "trace/setting"),
    ("POST", f"models/{ENTRY}/trace/setting"),
]


@pytest.mark.parametrize(("method", "path"), CONTROL)
@pytest.mark.parametrize("key", [None, "", "guessed"])
def test_clients_control_nothing_over_http(serving, method, path, key):
    address = pods(serving, "single")[0]["status"]["podIP"]
    headers = {} if key is None else {"X-Gravswell-Key": key}
    data = json.dumps({}).encode() if method == "POST" else None
    request = urllib.request.Request(f"http://{address}:8000/v2/{path}", data, headers, method=method)
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(request, timeout=30)
    assert refusal.value.code == 403
    assert b"restricted" in refusal.value.read()


@pytest.mark.parametrize(
    "control",
    [
        lambda client: client.get_model_repository_index(),
        lambda client: client.unload_model(ENTRY),
        lambda client: client.load_model(ENTRY),
        lambda client: client.register_system_shared_memory("mine", "/mine", 64),
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.unregister_cuda_shared_memory(),
        lambda client: client.update_log_settings({"log_verbose_level": 9}),
        lambda client: client.get_log_settings(),
        lambda client: client.update_trace_settings(settings={"trace_level": ["TENSORS"]}),
    ],
)
def test_clients_control_nothing_over_grpc(serving, control):
    address = pods(serving, "single")[0]["status"]["podIP"]
    with grpc.InferenceServerClient(f"{address}:8001", channel_args=[("grpc.enable_http_proxy", 0)]) as client:
        with pytest.raises(InferenceServerException, match="restricted"):
            control(client)
        assert client.is_model_ready(ENTRY), "what clients need is open"
    with http.InferenceServerClient(f"{address}:8000") as client:
        assert client.get_model_config(ENTRY)["name"] == ENTRY


def test_neighbours_are_let_in_to_infer_and_to_nothing_else(serving):
    """The policy selects the pods and opens two ports; what is not opened is closed by a network that enforces it."""
    for name, role, opened in (("server", "server", {8000, 8001}), ("models-lister", "repository", set())):
        policy = serving.get("networkpolicy", name)["spec"]
        assert policy["policyTypes"] == ["Ingress"]
        assert {port["port"] for rule in policy.get("ingress", ()) for port in rule["ports"]} == opened
        owner = name.removesuffix("-lister")
        selected = serving.objects(
            "pods", selector=",".join(f"{k}={v}" for k, v in policy["podSelector"]["matchLabels"].items())
        )
        assert selected
        assert {pod["metadata"]["labels"][f"gravswell.dev/{role}"] for pod in selected} == {owner}


def test_a_tag_and_an_opset_that_do_not_fit_are_refused_with_both_numbers(serving):
    """The manifest says the opset; this graph is of an older one, so the Triton here takes it once it is let."""
    place = serving
    make(place, "single", tag="24.10")
    place.condition("inferenceserver", "single", "Progressing", reason="RolledOut")
    before = uids(place, "single")
    published = place.get("modelrepository", "models")["status"]["models"][0]["latest"]
    publish(place.repository, ENTRY, published + 1, 5.0, opset=23)
    words = "is of opset 23, and Triton 24.10 (ONNX Runtime 1.19.2) takes up to opset 21"
    with load_of(place, "single") as load:
        ready = place.condition("model", "single", status="False", reason="OpsetTooNew")
        assert f"version {published + 1} of {ENTRY} {words}" in ready["message"]
        load.more(place)
        assert load.answers[-1] == {float(published)}
        assert uids(place, "single") == before
        make(place, "single", tag="25.08")
        place.until(lambda: load.answers[-1] == {5.0} or load.errors, ROLL_SECONDS)
        place.until(lambda: is_served(place, "single") and not uids(place, "single") & before, ROLL_SECONDS)
        # Back to a release that cannot load what is served now: the server stays as it is.
        before = uids(place, "single")
        make(place, "single", tag="24.10")
        refused = place.condition("inferenceserver", "single", status="False", reason="OpsetTooNew")
        assert words in refused["message"]
        load.more(place)
        assert load.answers[-1] == {5.0}
        assert uids(place, "single") == before
