"""Replicas of a model that waits rather than computes: all of them answer, plain clients and one that balances.

That throughput is in proportion is a figure: ``benchmarks/replicas.py`` reports it.
"""

import importlib
import json
import urllib.request

import numpy as np
import pytest

from gravswell.serving import Client

from ..operating import ROOT

REPLICAS = 3


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as here:
        here.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("replicas")


@pytest.fixture(scope="module")
def replicas(place, benchmark):
    """The addresses of the replicas, scaled up from one."""
    benchmark.write_model(place.repository, 0.05)
    place.make_repository()
    place.make_server()
    place.make_model("delayed", entry=benchmark.ENTRY, verification="None")
    place.condition("model", "delayed", status="True")
    place.kubectl("scale", "inferenceserver", "server", f"--replicas={REPLICAS}")
    place.until(lambda: place.get("inferenceserver", "server")["status"].get("readyReplicas") == REPLICAS, 180)
    pods = place.objects("pods", selector="gravswell.dev/server=server")
    return [pod["status"]["podIP"] for pod in pods]


def answered(benchmark, address):
    """How many requests the replica has executed."""
    with urllib.request.urlopen(f"http://{address}:8000/v2/models/{benchmark.ENTRY}/stats", timeout=30) as answer:
        (stats,) = json.loads(answer.read())["model_stats"]
    return int(stats["inference_stats"]["success"]["count"])


@pytest.mark.parametrize(("kind", "port"), [("balanced", 8000), ("plain", 8001)])
def test_every_replica_answers(benchmark, replicas, kind, port):
    """A plain gRPC client stays with the replica that a Service gave it; one that balances asks all."""
    before = {address: answered(benchmark, address) for address in replicas}
    assert getattr(benchmark, kind)([f"{address}:{port}" for address in replicas], 8) > 0
    more = {address: answered(benchmark, address) - before[address] for address in replicas}
    assert sum(more.values()) >= 8 * REPLICAS
    assert min(more.values()) > 0, more


def test_replicas_that_go_take_no_request_with_them(place, benchmark, replicas):
    rows = np.arange(24 * benchmark.WIDTH, dtype=np.float32).reshape(24, benchmark.WIDTH)

    def ask():
        np.testing.assert_array_equal(client.infer(benchmark.ENTRY, {"x": rows}, batch_size=1)["y"], rows)

    with Client([f"{address}:8000" for address in replicas], in_flight=benchmark.IN_FLIGHT) as client:
        ask()
        place.kubectl("scale", "inferenceserver", "server", "--replicas=1")
        place.until(lambda: ask() or len(place.objects("pods", selector="gravswell.dev/server=server")) == 1)
        ask()
