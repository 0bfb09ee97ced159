"""A replica's start, stage by stage as the status shows it: a real Triton, and a bucket that holds a file back."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ...commands import run
from ...quiver.stores import emulators
from ...quiver.stores.proxy import Proxy
from ..operating import WAIT_SECONDS
from .conftest import Place
from .test_buckets import amazons_secret, export, make_server

__all__ = ["run"]

NAME = "slow"
STAGES = ["Provisioning", "Volumes", "Image", "Start", "Download", "Load", "WarmUp"]


class Gate(Proxy):
    """A network that lets nobody have a model's file before it is opened."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.opened = threading.Event()

    def _watch(self, data: bytes) -> bytes:
        if b"/model.onnx" in data and b"GET " in data:
            self.opened.wait(WAIT_SECONDS)
        return super()._watch(data)


@contextmanager
def gated(target: str) -> Iterator[Gate]:
    gate = Gate(target)
    try:
        yield gate
    finally:
        gate.opened.set()
        gate.close()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with emulators.amazon(tmp_path_factory.mktemp("amazon")) as server, pytest.MonkeyPatch.context() as here:
        server.make_bucket("shelf")
        for variable, value in server.environment.items():
            here.setenv(variable, value)
        export(f"{server.scheme}://shelf/zoo", 1)
        yield server


def startup(place: Place) -> dict:
    body = place.get("inferenceserver", NAME)
    return ((body or {}).get("status") or {}).get("startup") or {}


def stages(told: dict) -> dict[str, float]:
    return {stage["name"]: stage["seconds"] for stage in told["stages"]}


@pytest.fixture(scope="module")
def started(place, bucket):
    """What the status said while the file was held back and when all was over, and for how long it was held."""
    with gated(bucket.endpoint) as gate:
        applied = time.time()
        secret = {**amazons_secret(bucket), "endpoint": gate.endpoint}
        make_server(place, NAME, f"{bucket.scheme}://shelf/zoo", **secret)
        place.until(lambda: startup(place).get("stage") == "Download" and "Downloading" in startup(place)["blocker"])
        under_way, seen = startup(place), time.time()
        time.sleep(2)  # so that the time which is told is of this
        held = time.time() - seen
        gate.opened.set()
        place.until(lambda: startup(place).get("stage") == "Ready")
        place.condition("inferenceserver", NAME, status="True")
        place.condition("inferenceserver", NAME, "ModelsLoaded", status="True", reason="Loaded")
        yield under_way, startup(place), held, time.time() - applied


def test_while_it_starts_the_present_stage_has_a_blocker_in_words(place, started):
    under_way, over, _, _ = started
    assert under_way["pod"] == over["pod"] == place.pods(NAME)[0]
    assert under_way["blocker"] == "version 1 of scale: Downloading"
    assert "seconds" not in under_way
    assert list(stages(under_way)) == STAGES[:4]


def test_every_second_of_it_is_of_one_stage(place, started):
    _, over, held, passed = started
    assert over["blocker"] == ""
    assert list(stages(over)) == STAGES
    assert sum(stages(over).values()) == pytest.approx(over["seconds"])
    assert over["seconds"] <= passed + 1, "the creation's time is cut to the second"
    assert stages(over)["Download"] >= held - 0.1
    model = place.get("model", NAME)["status"]
    (replica,) = model["replicas"]
    assert replica["downloaded"] == over["downloaded"] > 0
    assert set(replica["seconds"]) == {"download", "verify", "load", "prove"}


def test_it_is_shown(place, started, run):
    _, over, _, _ = started
    shown = place.kubectl("get", "isrv", NAME, "-o", "wide").splitlines()
    assert "STARTUP SECONDS" in shown[0]
    assert f"{over['seconds']:g}" in shown[1].split()
    options = ("--namespace", place.namespace, "--kubeconfig", place.cluster.kubeconfig, "--no-metrics")
    (server,) = run("top", NAME, *options, "-o", "json").data["servers"]
    assert server["startup"]["seconds"] == over["seconds"]


def test_it_stays_and_costs_no_write(place, started, operator):
    before = place.get("inferenceserver", NAME)
    triton = next(
        status
        for status in place.get("pod", before["status"]["startup"]["pod"])["status"]["containerStatuses"]
        if status["name"] == "triton"
    )
    operator.restart()
    seen = "gravswell_reconcile_duration_seconds_count"
    place.until(lambda: operator.metric(seen, kind="InferenceServer") and not operator.metric("gravswell_queue_length"))
    assert place.get("inferenceserver", NAME)["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]

    os.kill(int(triton["containerID"].rpartition("/")[2]), signal.SIGKILL)
    place.condition("inferenceserver", NAME, status="False")
    place.condition("inferenceserver", NAME, status="True")
    assert startup(place) == before["status"]["startup"], "a container that restarts is no start of the replica"
