"""Ranks from end to end: a network cut in two, a real Triton for each part, and a client that puts them together."""

import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from gravswell.errors import GravswellError
from gravswell.partitions import RankedClient, partition
from gravswell.quiver.disk import sha256_of
from gravswell.quiver.golden import Sample, load_golden, save_golden
from gravswell.quiver.manifest import GOLDEN, MANIFEST, FileRecord, Manifest, digest_of
from gravswell_operator import names

from ...commands import run
from .conftest import ENTRY, Place

__all__ = ["run"]

DIGITS = "digits"
IMAGES = np.asarray(load_digits().data, np.float32)


class Digits(NamedTuple):
    """A classifier of scanned digits, in parts."""

    model: MLPClassifier
    folder: Path

    def is_right(self, outputs: dict[str, Any]) -> bool:
        """Whether this is what the model itself says of the first images."""
        scores = outputs["probabilities"]
        return bool(np.allclose(scores, self.model.predict_proba(IMAGES[: len(scores)]), atol=1e-4))


def cut(place: Place, folder: Path, seed: int, name: str = DIGITS, ranks: int = 2, by: Any = "row") -> Digits:
    """Train, cut, and publish the next version."""
    model = MLPClassifier((32, 16), tol=0.05, n_iter_no_change=3, random_state=seed)
    model.fit(load_digits().data, load_digits().target)
    with partition(model, ranks, by, name=name, sample_inputs={"x": IMAGES[:8]}) as made:
        made.save(folder)
        made.publish(place.repository)
    return Digits(model, folder)


class Group:
    """Two ranks, in the namespace of ``place``."""

    def __init__(self, place: Place, digits: Digits) -> None:
        self.place, self.digits = place, digits

    def pod(self, rank: int) -> dict[str, Any]:
        found = self.place.get("pod", f"server-{rank}")
        assert found is not None
        return found

    def client(self, digits: Digits | None = None) -> RankedClient:
        addresses = [f"{self.pod(rank)['status']['podIP']}:{names.PORT_HTTP}" for rank in range(2)]
        return RankedClient((digits or self.digits).folder, addresses, retry_for=0)

    def answers(self, digits: Digits | None = None) -> bool:
        with self.client(digits) as client:
            return (digits or self.digits).is_right(client.infer({"x": IMAGES[:8]}))

    def gates(self) -> list[tuple[str, str]]:
        """Of each rank, the gate and whether it takes traffic."""
        found = []
        for rank in range(2):
            by_type = {c["type"]: c["status"] for c in self.pod(rank)["status"]["conditions"]}
            found.append((by_type.get(names.GATE, "absent"), by_type["Ready"]))
        return found

    def until_in_service(self) -> None:
        self.place.condition("inferenceserver", "server", "RanksReady", status="True")
        self.place.condition("inferenceserver", "server", status="True")
        self.place.until(lambda: self.gates() == [("True", "True")] * 2)


@pytest.fixture(scope="module")
def group(place, tmp_path_factory):
    made = Group(place, cut(place, tmp_path_factory.mktemp("parts") / "1", seed=1))
    place.make_repository()
    place.apply("InferenceServer", "server", repositoryRef={"name": "models"}, tag="24.08", vcpus="100m", ranks=2)
    place.apply("Model", DIGITS, serverRef={"name": "server"}, entry=DIGITS)
    made.until_in_service()
    return made


def test_the_ranks_answer_as_the_whole(group):
    place = group.place
    assert group.answers()
    ready = place.condition("inferenceserver", "server", "RanksReady", status="True")
    assert ready["message"] == "2 ranks serve version 1 of digits"
    status = place.get("inferenceserver", "server")["status"]
    assert (status["replicas"], status["readyReplicas"], status["readyRanks"]) == (2, 2, 2)
    assert [(rank["rank"], rank["pod"], rank["ready"]) for rank in status["ranks"]] == [
        (0, "server-0", True),
        (1, "server-1", True),
    ]
    assert status["ranks"][1]["address"] == f"server-1.server-headless.{place.namespace}.svc:8000"
    model = place.condition("model", DIGITS, status="True")
    assert model["message"] == "version 1 serves on 2 of 2 replicas"
    place.condition("model", DIGITS, "Verified", status="True", reason="GoldenReproduced")
    assert place.get("service", "server") is None


def test_its_ranks_are_not_scaled(group):
    place, before = group.place, group.place.pods()
    with pytest.raises(GravswellError, match="exactly one of replicas, autoscaling and ranks"):
        place.kubectl("scale", "isrv", "server", "--replicas=3")
    place.patch("statefulset", "server", {"spec": {"replicas": 3}})
    place.until(lambda: place.get("statefulset", "server")["spec"]["replicas"] == 2)
    place.until(lambda: place.pods() == before)
    group.until_in_service()


def test_every_rank_is_shown(group, run):
    options = ("--namespace", group.place.namespace, "--kubeconfig", group.place.cluster.kubeconfig)
    (server,) = run("top", *options, "-o", "json").data["servers"]
    assert [(replica["pod"], replica["rank"], replica["ready"]) for replica in server["replicas"]] == [
        ("server-0", 0, True),
        ("server-1", 1, True),
    ]
    assert "server-1 (rank 1)" in run("top", *options, "--once").out


def test_a_rank_that_dies_takes_the_group_out_of_service_and_comes_back(group):
    statuses = {status["name"]: status for status in group.pod(1)["status"]["containerStatuses"]}
    os.kill(int(statuses["triton"]["containerID"].rpartition("/")[2]), signal.SIGKILL)
    lost = group.place.condition("inferenceserver", "server", "RanksReady", status="False", reason="RankNotReady")
    assert "1 of 2 ranks ready, so none takes traffic; rank 1: " in lost["message"]
    assert "rank 0" not in lost["message"]
    # A Triton that is back sooner than its agent looks is not believed to serve what the one before it served: as soon
    # as the gates are open, all parts are loaded.
    group.place.until(lambda: group.gates() == [("True", "True")] * 2)
    assert group.answers()
    group.until_in_service()


@pytest.mark.parametrize("rank", [0, 1])
def test_no_gate_is_open_before_a_part_is_loaded_again(group, rank):
    """Also where the restart is over before anybody has looked."""
    status = next(s for s in group.pod(rank)["status"]["containerStatuses"] if s["name"] == "triton")
    os.kill(int(status["containerID"].rpartition("/")[2]), signal.SIGKILL)
    group.place.until(lambda: restarts(group, rank) > status["restartCount"])

    def answers_once_it_is_open() -> bool:
        return group.gates() == [("True", "True")] * 2 and group.answers()

    group.place.until(answers_once_it_is_open)
    group.until_in_service()


def restarts(group, rank):
    """Of a rank's Triton that runs again."""
    status = next(s for s in group.pod(rank)["status"]["containerStatuses"] if s["name"] == "triton")
    return status["restartCount"] if "running" in status["state"] else -1


def test_a_new_version_is_served_by_all_or_none(group, tmp_path):
    place, first = group.place, group.digits
    second = cut(place, tmp_path / "2", seed=2)
    stop, wrong, answered = threading.Event(), [], {"first": 0, "second": 0}

    def ask(name: str, digits: Digits) -> None:
        with group.client(digits) as client:
            while not stop.wait(0.02):
                try:
                    outputs = client.infer({"x": IMAGES[:8]})
                except GravswellError:
                    continue
                answered[name] += 1
                if not digits.is_right(outputs):
                    wrong.append(name)

    clients = [threading.Thread(target=ask, args=one) for one in (("first", first), ("second", second))]
    for client in clients:
        client.start()
    try:
        place.until(lambda: place.get("model", DIGITS)["status"].get("loadedVersion") == 2)
        group.until_in_service()
        place.until(lambda: answered["second"])
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert not wrong
    group.digits = second
    assert group.answers()

    def told() -> str:
        return str(place.condition("inferenceserver", "server", "RanksReady", status="True")["message"])

    place.until(lambda: told() == "2 ranks serve version 2 of digits")
    with pytest.raises(GravswellError, match="2 ranks, and 2 did not answer"):
        group.answers(first)


def test_what_its_ranks_cannot_serve_is_told_and_takes_nothing_away(group, tmp_path):
    place = group.place
    cut(place, tmp_path / "three", seed=3, name="three", ranks=3, by="layer")
    cut(place, tmp_path / "lost", seed=3, name="lost")
    shutil.rmtree(place.repository / "lost-rank-1-stage-2")
    for entry, reason, words in (
        ("three", "OtherRanks", "is a partition for 3 ranks, and server server has 2"),
        (ENTRY, "NotAPartition", f"version 1 of {ENTRY} is no partition, and server server has ranks"),
        ("lost", "PartsMissing", "does not have version 1 of lost-rank-1-stage-2 (rank 1)"),
    ):
        place.apply("Model", entry, serverRef={"name": "server"}, entry=entry)
        assert words in place.condition("model", entry, status="False", reason=reason)["message"]
        place.delete("model", entry)
    group.until_in_service()
    assert group.answers()


def test_a_change_of_the_pods_stops_all_ranks_and_starts_them_again(group):
    before = {group.pod(rank)["metadata"]["uid"] for rank in range(2)}
    group.place.patch("inferenceserver", "server", {"spec": {"podTemplate": {"env": [{"name": "NEW", "value": "1"}]}}})
    group.place.until(lambda: len(group.place.pods()) == 2 and group.place.replaced(*before))
    group.until_in_service()
    assert group.answers()


def spoil(repository: Path, version: int) -> str:
    """Let a part of rank 1 promise other answers than it gives, as on hardware that rounds otherwise; which one."""
    whole = repository / DIGITS / str(version) / MANIFEST
    of_all = Manifest.from_bytes(whole.read_bytes(), where=str(whole))
    part = next(member for member in of_all.members if member.rank == 1)
    folder = repository / part.model / str(part.version)
    golden = folder / GOLDEN
    wrong = [Sample(s.inputs, {name: value + 1 for name, value in s.outputs.items()}) for s in load_golden(golden)]
    golden.unlink()
    save_golden(golden, wrong)
    manifest = Manifest.from_bytes((folder / MANIFEST).read_bytes(), where=str(folder))
    record = FileRecord(sha256=sha256_of(golden), size=golden.stat().st_size)
    changed = manifest.model_copy(update={"files": {**manifest.files, GOLDEN: record}}).to_bytes()
    (folder / MANIFEST).write_bytes(changed)
    members = [
        member.model_copy(update={"digest": digest_of(changed)}) if member == part else member
        for member in of_all.members
    ]
    whole.write_bytes(of_all.model_copy(update={"members": tuple(members)}).to_bytes())
    return part.model


def test_ranks_go_back_together_where_one_refuses_a_version(group, tmp_path):
    place, served = group.place, group.place.get("model", DIGITS)["status"]["loadedVersion"]
    shelf = shutil.copytree(place.repository, tmp_path / "shelf")
    with partition(group.digits.model, 2, "row", name=DIGITS, sample_inputs={"x": IMAGES[:8]}) as made:
        published = made.publish(shelf)
    version = published.version
    assert version > served
    part = spoil(shelf, version)
    for entry, number in [*published.parts.items(), (DIGITS, version)]:  # the whole last, so that it is never without
        (shelf / entry / str(number)).rename(place.repository / entry / str(number))

    ready = place.condition("model", DIGITS, status="False", reason="RolledBack")
    assert f"version {version} was rolled back: pod server-1: GoldenMismatch: {part}: golden sample" in ready["message"]
    assert ready["message"].endswith(f"version {served} stays meanwhile")
    group.until_in_service()
    assert group.answers()
    assert place.get("model", DIGITS)["status"]["loadedVersion"] == served
