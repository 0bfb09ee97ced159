"""The agent's downloads and the lister's looks, where the repository is a bucket: a real server, behind a network that
is watched and cut."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gravswell.quiver.stores import Overwrite, objects, open_store
from gravswell.serving.agent.desired import LatestSource
from gravswell.serving.agent.failures import ModelFailure
from gravswell.serving.agent.folder import ModelFolder
from gravswell.serving.agent.lister import list_repository, merged
from gravswell.serving.agent.supply import SPARE_BYTES, fetch
from gravswell.serving.contracts import Desired, DesiredModel, Reason

from ...quiver.stores import emulators
from ...quiver.stores.proxy import Proxy, proxied
from .running import until
from .versions import publish, scaling_graph

NOW = datetime(2026, 5, 1, tzinfo=UTC)
URL = "gs://shelf/zoo"
LARGE = 44 << 20
"""Bytes of padding: a file of more ranges than are asked for ahead."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[emulators.Server]:
    with emulators.google(tmp_path_factory.mktemp("google")) as server:
        server.make_bucket("shelf")
        yield server


@pytest.fixture
def network(server: emulators.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(objects, "PATIENCE", timedelta(seconds=1))
    with proxied(server.endpoint) as proxy:
        for variable, value in server.behind(proxy.endpoint).items():
            monkeypatch.setenv(variable, value)
        yield proxy


@pytest.fixture
def folder(models: Path) -> ModelFolder:
    made = ModelFolder(models)
    made.prepare()
    return made


def upload(repository: Path) -> None:
    """Put all of a folder into the bucket as it is."""
    store = open_store(URL)
    for path in sorted(repository.rglob("*")):
        if path.is_file():
            store.write(path.relative_to(repository).as_posix(), path.read_bytes(), Overwrite())


@pytest.fixture(scope="module")
def large(server: emulators.Server, tmp_path_factory: pytest.TempPathFactory) -> DesiredModel:
    """A version in the bucket whose model file is of several ranges."""
    repository = tmp_path_factory.mktemp("large") / "zoo"
    repository.mkdir()
    graph = scaling_graph(1.0) + bytes(LARGE)
    model = DesiredModel(name="large", version=1, digest=publish(repository, "large", 1, 1.0, graph=graph))
    with pytest.MonkeyPatch.context() as here:
        here.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
        upload(repository)
    return model


def asked_for(network: Proxy, name: str) -> list[str]:
    return [head.partition("\r\n")[0] for head in network.heads if name in head.partition("\r\n")[0]]


def test_a_version_arrives_in_ranges_and_whole(large: DesiredModel, folder: ModelFolder, network: Proxy):
    fetch(URL, large, folder, wanted=lambda: True)
    assert (folder.place(large) / "model.onnx").stat().st_size > LARGE
    ranges = [head for head in network.heads if "model.onnx" in head and "range: bytes=" in head.lower()]
    assert len(ranges) >= 3


def test_what_does_not_fit_is_told_before_a_byte_of_it_is_asked_for(
    large: DesiredModel, folder: ModelFolder, models: Path, network: Proxy
):
    small = ModelFolder(models, limit=SPARE_BYTES + LARGE)
    small.prepare()
    with pytest.raises(ModelFailure, match="give the server more model storage") as caught:
        fetch(URL, large, small, wanted=lambda: True)
    assert caught.value.reason is Reason.NO_SPACE
    with pytest.raises(ModelFailure) as caught:
        fetch(URL, large, folder, wanted=lambda: True, memory_limit=LARGE)
    assert caught.value.reason is Reason.NO_MEMORY
    assert asked_for(network, "manifest.json")
    assert not asked_for(network, "model.onnx")


def test_an_object_that_was_replaced_is_not_staged(repository: Path, folder: ModelFolder, network: Proxy):
    model = DesiredModel(name="small", version=1, digest=publish(repository, "small", 1, 1.0))
    upload(repository)
    open_store(URL).write("small/1/.config.pbtxt", b"other", Overwrite())
    with pytest.raises(ModelFailure) as caught:
        fetch(URL, model, folder, wanted=lambda: True)
    assert caught.value.reason is Reason.HASH_MISMATCH
    assert f"{URL}/small/1/.config.pbtxt" in str(caught.value)
    assert folder.staged == set()


def test_a_network_that_is_cut_leaves_nothing_behind_and_the_next_attempt_succeeds(
    large: DesiredModel, folder: ModelFolder, network: Proxy
):
    def half_way() -> bool:
        if len(asked_for(network, "model.onnx")) > 1 and network.left is None:
            network.left = 0
        return True

    with pytest.raises(ModelFailure, match="cannot be reached") as caught:
        fetch(URL, large, folder, wanted=half_way)
    assert caught.value.reason is Reason.REPOSITORY_UNAVAILABLE
    assert network.cuts
    assert list(folder.incoming.iterdir()) == []
    network.left = None
    fetch(URL, large, folder, wanted=lambda: True)
    assert folder.find(large) is not None


def test_the_next_look_sees_what_was_published_and_a_bucket_that_is_away_takes_nothing_back(
    repository: Path, network: Proxy
):
    publish(repository, "seen", 1, 1.0)
    upload(repository)
    first = list_repository(URL, NOW)
    publish(repository, "seen", 2, 2.0)
    upload(repository)
    second = list_repository(URL, NOW, first)
    numbers = [
        [version.number for entry in listing.entries if entry.name == "seen" for version in entry.versions]
        for listing in (first, second)
    ]
    assert numbers == [[1], [2, 1]]

    network.left = 0
    away = merged(second, list_repository(URL, NOW, second))
    assert (away.accessible, away.reason) == (False, Reason.REPOSITORY_UNAVAILABLE)
    assert "gs://shelf" in away.message
    assert away.entries == second.entries


async def test_a_look_at_the_latest_lists_once_and_reads_what_is_new(repository: Path, network: Proxy):
    digests = {}
    for name in ("first", "second"):
        for number in (1, 2):
            digests[name] = publish(repository, name, number, 1.0)
    upload(repository)
    looks: list[Desired] = []
    network.heads.clear()
    following = asyncio.create_task(LatestSource(URL, 0.05).follow(looks.append))
    await until(lambda: len(looks) >= 3, "it has looked three times")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    found = {model.name: (model.version, model.digest) for model in looks[0].models}
    assert {name: found[name] for name in digests} == {name: (2, digest) for name, digest in digests.items()}
    for name in digests:
        assert len(asked_for(network, f"{name}%2F2%2F.manifest.json")) == 1
        assert not asked_for(network, f"{name}%2F1%2F")
    lists = [head for head in network.heads if "/o?" in head.partition("\r\n")[0]]
    assert len(looks) <= len(lists) <= len(looks) + 1


def test_an_agent_that_a_bucket_keeps_waiting_ends_when_it_is_told_to(models: Path, tmp_path: Path):
    """Nothing can call back a thread that waits for an answer: the library would wait for a minute and longer."""
    desired = Desired(repository=URL, models=(DesiredModel(name="any", version=1, digest="0" * 64),))
    (tmp_path / "desired.json").write_text(desired.to_json())
    command = [sys.executable, "-m", "gravswell", "agent", "run", "--repository", URL, "--models", str(models)]
    command += ["--desired-file", str(tmp_path / "desired.json"), "--listen", "127.0.0.1:0"]
    with socket.create_server(("127.0.0.1", 0)) as silent, (tmp_path / "log").open("w") as log:
        address = "127.0.0.1:{1}".format(*silent.getsockname())
        silent.settimeout(90)
        command += ["--triton-http", "127.0.0.1:9"]
        environment = {**os.environ, "STORAGE_EMULATOR_HOST": f"http://{address}"}
        process = subprocess.Popen(command, env=environment, stderr=log, stdout=log)
        try:
            asked, _ = silent.accept()
            with asked:
                process.send_signal(signal.SIGTERM)
                assert process.wait(90) == 0, (tmp_path / "log").read_text()
        finally:
            process.kill()
            process.wait()
    assert "is given up" in (tmp_path / "log").read_text()
