"""Roll-outs from end to end: two real Tritons under load, and versions that are good, bad and good again.

No request fails but those that a bad version fails by itself, on the one replica that tries it.
"""

import re
from contextlib import ExitStack

import numpy as np
import pytest
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

from ...serving.agent.traffic import Traffic
from ...serving.agent.versions import WIDTH, picky_graph, publish
from ..replicas import seen_over_time
from .conftest import ENTRY

PODS = 2


def canary(pause):
    """A new version on one of the two replicas, and how long it is judged there."""
    judge = {"maxErrorRate": "1%", "minRequests": 50}
    return {"strategy": "Canary", "canary": {"steps": [{"replicas": "50%", "pause": pause}], "judge": judge}}


class Load:
    """Clients of each replica that never pause."""

    def __init__(self, addresses, stack):
        self._addresses = addresses
        clients = (Traffic(ENTRY, http_address=f"{a}:8000", grpc_address=f"{a}:8001") for a in addresses)
        self._clients = [stack.enter_context(client) for client in clients]

    @property
    def errors(self):
        return [error for client in self._clients for error in client.errors]

    @property
    def last(self):
        """By which factor each replica multiplies now."""
        return [client.last for client in self._clients]

    @property
    def seen(self):
        """What each replica has answered, in its order, each once."""
        return [list(dict.fromkeys(client.answers)) for client in self._clients]

    def ask_what_is_out_of_range(self, times=20):
        """Ask each replica what :func:`picky_graph` cannot answer; how many requests failed."""
        failed = 0
        for address in self._addresses:
            with http.InferenceServerClient(f"{address}:8000") as client:
                for _ in range(times):
                    tensor = http.InferInput("x", [1, WIDTH], "FP32")
                    tensor.set_data_from_numpy(np.full((1, WIDTH), 1000.0, np.float32))
                    try:
                        client.infer(ENTRY, [tensor])
                    except InferenceServerException:
                        failed += 1
        return failed


@pytest.fixture(scope="module")
def load(place):
    place.make_repository()
    place.make_server(replicas=PODS)
    place.make_model(rollout=canary("1s"))
    place.until_serving(1)
    place.until(lambda: place.get("inferenceserver", "server")["status"]["readyReplicas"] == PODS)
    pods = place.objects("pods", selector="gravswell.dev/server=server")
    with ExitStack() as stack:
        load = Load([pod["status"]["podIP"] for pod in pods], stack)
        place.until(lambda: load.last == [1.0] * PODS)
        yield load


def rollout(place):
    return place.get("model", ENTRY)["status"].get("rollout", {})


def events(place):
    return {e["reason"] for e in place.objects("events") if e["involvedObject"].get("kind") == "Model"}


def test_a_good_version_goes_to_one_replica_and_then_to_all(place, load, tmp_path):
    # A second is soon over: what was told in it is read afterwards.
    fields = "{.status.rollout.state}/{.status.rollout.replicasUpdated}/{.status.desiredVersion}"
    with seen_over_time(place, tmp_path / "told", "model", ENTRY, fields) as told:
        place.publish(2)
        place.until_serving(2)
        place.until(lambda: rollout(place)["state"] == "Complete")
    assert "Progressing/1/1" in told, told
    assert told[-1] == "Complete/2/2", told
    place.until(lambda: load.last == [2.0] * PODS)
    assert load.seen == [[1.0, 2.0]] * PODS, "nobody went back and forth"
    assert (rollout(place)["from"], rollout(place)["to"], rollout(place)["progress"]) == (1, 2, "2/2 Complete")
    place.until(lambda: {"RollingOut", "Promoted"} <= events(place))
    assert load.errors == []


def test_a_version_that_fails_requests_is_taken_back(place, load):
    place.make_model(rollout=canary("Manual"))  # nobody promotes it, however late it is asked what it cannot answer
    place.condition("model", ENTRY, status="True")
    publish(place.repository, ENTRY, 3, 3.0, graph=picky_graph(3.0))  # its golden samples are right
    place.until(lambda: sorted(load.last) == [2.0, 3.0])
    failed = load.ask_what_is_out_of_range()
    assert failed > 0
    refused = place.condition("model", ENTRY, status="False", reason="RolledBack")
    found = re.search(r"fails too many requests: (\d+) of \d+ failed", refused["message"])
    assert found is not None, refused["message"]
    assert 1 <= int(found[1]) <= failed, "no other failures than those"
    assert "maxErrorRate 1%" in refused["message"]
    place.until(lambda: load.last == [2.0] * PODS)
    assert sorted(load.seen) == [[1.0, 2.0], [1.0, 2.0, 3.0]], "one replica tried it, and no other"
    assert load.errors == [], "whoever asked what it can answer got answers"
    place.until(lambda: rollout(place)["progress"] == "0/2 RolledBack")
    assert load.ask_what_is_out_of_range() == 0
    place.until(lambda: "RolledBack" in events(place))


def test_all_at_once_fails_no_request_either(place, load):
    place.make_model(rollout={"strategy": "Immediate"}, version=2)
    place.condition("model", ENTRY, status="True")
    place.publish(4)
    place.make_model(rollout={"strategy": "Immediate"}, version=4)
    place.until_serving(4)
    place.until(lambda: load.last == [4.0] * PODS)
    assert load.errors == []
    place.until(lambda: (rollout(place)["from"], rollout(place)["to"], rollout(place)["state"]) == (2, 4, "Complete"))


def test_a_version_whose_golden_tensors_differ_takes_no_traffic_whatever_the_strategy(place, load):
    place.make_model(rollout=canary("Manual"))
    place.condition("model", ENTRY, status="True")
    before = load.seen
    publish(place.repository, ENTRY, 5, 5.0, golden_factor=7.0)
    refused = place.condition("model", ENTRY, status="False", reason="RolledBack")
    assert "version 5 was rolled back" in refused["message"]
    assert "GoldenMismatch" in refused["message"]
    # At once on every replica: each of them refuses it by itself.
    place.make_model(rollout={"strategy": "Immediate"})
    place.until(lambda: [r["state"] for r in place.model_status()["replicas"]] == ["Failed"] * PODS)
    refused = place.condition("model", ENTRY, status="False", reason="GoldenMismatch")
    assert f"version 5 is not served on {PODS} of {PODS} replicas" in refused["message"]
    assert refused["message"].endswith("version 4 still serves there")
    assert {replica["version"] for replica in place.model_status()["replicas"]} == {4}
    assert place.condition("inferenceserver", "server", "Available")["status"] == "True"
    assert (load.last, load.seen) == ([4.0] * PODS, before)
    assert load.errors == []
