"""The supervisor, for real: starts, finds again, survives nothing that it should not, leaves nothing behind."""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gravswell.cli.app import _assemble, app
from gravswell.errors import ConflictError, NotFoundError, UnavailableError
from gravswell_operator.devcluster import DevCluster, cluster
from gravswell_operator.devcluster.node.launch import MARK
from gravswell_operator.devcluster.state import Phase, Shape

ALONE = Shape(local_node=False)


def servers_below(directory: Path) -> list[int]:
    """Process ids of everything that was started with a path below ``directory``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(directory).encode() in line:
                found.append(int(entry.name))
    return found


def marked_with(directory: Path) -> list[int]:
    """Process ids of everything that runs for a pod of the cluster in ``directory``."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and f"{MARK}={directory.resolve()}/".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def a_pod(name: str, script: str) -> dict[str, Any]:
    container = {"name": "main", "image": "gravswell", "command": ["sh", "-c", script]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}


def until_no_server(directory: Path) -> None:
    end = time.monotonic() + 60
    while left := servers_below(directory):
        assert time.monotonic() < end, left
        time.sleep(0.1)


def test_a_cluster_lives_as_long_as_its_block(tmp_path):
    with DevCluster(tmp_path, kwok_nodes=2, gpus=4) as running:
        nodes = json.loads(running.kubectl("get", "nodes", "-o", "json"))["items"]
        assert [n["metadata"]["name"] for n in nodes] == ["gravswell-local", "kwok-0000", "kwok-0001"]
        assert {n["status"]["allocatable"]["nvidia.com/gpu"] for n in nodes} == {"4"}
        assert servers_below(tmp_path)
        assert running.kubeconfig.stat().st_mode & 0o077 == 0
    until_no_server(tmp_path)
    with pytest.raises(UnavailableError, match="not running"):
        _ = running.server_url


def test_a_killed_supervisor_takes_its_servers_along(tmp_path):
    with DevCluster(tmp_path, local_node=False) as running:
        os.kill(running.state.pid, signal.SIGKILL)
        until_no_server(tmp_path)


def test_a_killed_supervisor_leaves_no_process_of_a_pod_beyond_the_block(tmp_path):
    with DevCluster(tmp_path) as running:
        # The container's process dies with the node agent; one that left its process group would not.
        script = "setsid sleep 600 & echo started; sleep 600"
        running.kubectl("apply", "-f", "-", stdin=json.dumps(a_pod("forking", script)))
        log = running.pods / "default/forking/main.log"
        end = time.monotonic() + 90
        while not log.exists() or log.read_text() != "started\n":
            assert time.monotonic() < end
            time.sleep(0.1)
        assert marked_with(tmp_path)
        os.kill(running.state.pid, signal.SIGKILL)
        until_no_server(tmp_path)
        assert marked_with(tmp_path)
    assert not marked_with(tmp_path)


def test_down_ends_what_a_crash_left_running(tmp_path):
    folder = tmp_path / "cluster"
    mark = f"{folder.resolve()}/node#some-uid"
    with subprocess.Popen(["sleep", "600"], env={MARK: mark}) as stray:
        try:
            assert not cluster.down(folder)
            assert stray.wait(60) == -signal.SIGKILL
        finally:
            stray.kill()


def test_a_server_that_dies_ends_the_cluster_with_a_message(tmp_path):
    with DevCluster(tmp_path, local_node=False) as running:
        # Its program: the API server's arguments name it too.
        programs = {Path(f"/proc/{pid}/exe").readlink().name: pid for pid in servers_below(tmp_path)}
        os.kill(programs["etcd"], signal.SIGKILL)
        end = time.monotonic() + 60
        while running.state.read(tmp_path).phase is not Phase.FAILED:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert "etcd ended with signal SIGKILL" in running.state.read(tmp_path).message
        until_no_server(tmp_path)


def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path):
    (tmp_path / "control-plane").mkdir()
    (tmp_path / "control-plane/etcd").write_text("a file where etcd's folder should be")
    with pytest.raises(UnavailableError, match=r"etcd ended with status 1(.|\n)*etcd"):
        DevCluster(tmp_path, local_node=False).start()
    until_no_server(tmp_path)


def test_up_is_idempotent_and_down_removes_everything(tmp_path):
    folder = tmp_path / "cluster"
    try:
        state, started = cluster.up(ALONE, directory=folder)
        assert started
        assert cluster.up(ALONE, directory=folder) == (state, False)
        with pytest.raises(ConflictError, match="gravswell cluster down"):
            cluster.up(Shape(kwok_nodes=1), directory=folder)
        assert cluster.status(folder) == state
    finally:
        assert cluster.down(folder)
    until_no_server(folder)
    assert not folder.exists()
    assert not cluster.down(folder)
    with pytest.raises(NotFoundError, match="gravswell cluster up"):
        cluster.require(folder)


def test_what_a_crash_left_is_cleaned_up_by_the_next_start(tmp_path):
    folder = tmp_path / "cluster"
    try:
        first, _ = cluster.up(ALONE, directory=folder)
        os.kill(first.pid, signal.SIGKILL)
        until_no_server(folder)
        assert cluster.status(folder) is None
        second, started = cluster.up(ALONE, directory=folder)
        assert started
        assert second.pid != first.pid
    finally:
        cluster.down(folder)


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "default_directory", lambda: tmp_path / "cluster")
    _assemble()
    yield CliRunner()
    cluster.down()


def test_the_commands_tell_the_whole_story(cli):
    up = cli.invoke(app, ["cluster", "up"])
    assert up.exit_code == 0, up.output
    assert "imulated" in up.stderr
    path = up.stdout.strip().removeprefix("export KUBECONFIG=")
    assert Path(path).exists()
    assert cli.invoke(app, ["cluster", "kubeconfig"]).stdout.strip() == path
    facts = json.loads(cli.invoke(app, ["cluster", "status", "-o", "json"]).stdout)
    assert (facts["kubeconfig"], facts["context"]) == (path, "gravswell-dev")

    pod = a_pod("talker", "echo hi; sleep 600")
    plane = cluster.require()
    apply = [plane.kubectl, "--kubeconfig", path, "apply", "-f", "-"]
    subprocess.run(apply, input=json.dumps(pod), text=True, check=True, timeout=60)
    end = time.monotonic() + 60
    while (told := cli.invoke(app, ["cluster", "logs", "talker"])).stdout != "hi\n":
        assert time.monotonic() < end, told.output
        time.sleep(0.2)
    missing = cli.invoke(app, ["cluster", "logs", "nobody"])
    assert isinstance(missing.exception, NotFoundError)
    assert "default/talker" in str(missing.exception)

    down = cli.invoke(app, ["cluster", "down"])
    assert down.exit_code == 0
    assert isinstance(cli.invoke(app, ["cluster", "status"]).exception, NotFoundError)
