"""The embedded server's life: what it serves, how it fails, and that nothing of it is left."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.http import InferenceServerClient as HttpClient
from tritonclient.http import InferInput as HttpInput
from tritonclient.utils import InferenceServerException

from gravswell.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from gravswell.serving.triton import EmbeddedTriton, Ports
from gravswell.serving.triton.flags import key_headers
from gravswell.serving.triton.process import ServerProcess, clear_segments
from gravswell.serving.triton.workspace import Workspace

Put = Callable[..., Path]
Scale = Callable[..., onnx.ModelProto]
Infer = Callable[..., dict[str, Any]]

BOUND = 60.0


ENDLESS = """
import time

class TritonPythonModel:
    def initialize(self, args):
        print("it loads", flush=True)
        while True:
            time.sleep(1)

    def execute(self, requests):
        return []
"""


def segments(pid: int) -> list[str]:
    return [path.name for path in Path("/dev/shm").glob(f"gravswell-{pid}-*")]


def group(pid: int) -> set[int]:
    """Living processes of the process group ``pid``."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it ended while we looked
            continue
        if int(pgrp) == pid and state != "Z":
            found.add(int(stat.parent.name))
    return found


def wait_until(done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + BOUND
    while not done() and time.monotonic() < deadline:
        time.sleep(0.1)
    return done()


@pytest.fixture
def repository(tmp_path: Path, put_entry: Put, onnx_scale: Scale, scale_config: str) -> Path:
    """One entry, ``m``, whose config asks for two instances on a GPU."""
    put_entry(tmp_path / "repo", "m", onnx_scale(), f"{scale_config}instance_group {{ kind: KIND_GPU count: 2 }}\n")
    return tmp_path / "repo"


def test_it_has_no_more_http_threads_than_cpus(repository: Path) -> None:
    """Unless it is told so: Triton takes the last of a flag."""
    with EmbeddedTriton(repository, extra_flags=["--http-thread-count=3"]) as server:
        flags = Path(f"/proc/{server.process.pid}/cmdline").read_text().split("\0")
    given = [flag for flag in flags if flag.startswith("--http-thread-count=")]
    assert given == [f"--http-thread-count={min(8, len(os.sched_getaffinity(0)))}", "--http-thread-count=3"]


def test_an_entry_for_a_gpu_is_served_here_and_a_clean_stop_leaves_nothing(
    repository: Path, infer: Infer, rows: np.ndarray[Any, Any]
) -> None:
    before = (repository / "m" / "config.pbtxt").read_bytes()
    with EmbeddedTriton(repository.as_uri()) as server:
        (model,) = server.served()
        assert (model.name, model.versions, model.platform) == ("m", [1], "onnxruntime_onnx")
        np.testing.assert_array_equal(infer(server.grpc_address, "m", x=rows)["y"], rows * 2)
        with InferenceServerClient(server.grpc_address) as client:
            (instances,) = client.get_model_config("m").config.instance_group
        assert (instances.count, instances.kind) == (2, instances.KIND_CPU)
        folder = server.process.log.parent
        pid = server.process.pid
        assert len(segments(pid)) == 2
        assert len(group(pid)) == 3  # the server and a process for each instance
    assert (repository / "m" / "config.pbtxt").read_bytes() == before
    assert wait_until(lambda: not group(pid)), "a backend process ends a moment after its server"
    assert segments(pid) == []
    assert not folder.exists()
    with pytest.raises(UnavailableError, match="not running"):
        _ = server.process


def test_a_broken_model_is_an_error_with_tritons_reason_and_the_log(repository: Path, put_entry: Put) -> None:
    put_entry(repository, "broken", b"this is no graph", 'platform: "onnxruntime_onnx"\n')
    put_entry(repository, "strange", b"", 'platform: "made_up"\n')
    with pytest.raises(UnavailableError) as caught, EmbeddedTriton(repository):
        pass
    told = str(caught.value)
    assert f"model 'broken' does not load: {repository}/broken/1/model.onnx: [ONNXRuntimeError]" in told
    assert "model 'strange' does not load" in told
    assert "made_up" in told
    log = Path(told.rpartition("log is ")[2])
    assert "broken" in log.read_text()
    log.unlink()


def test_the_others_serve_when_asked(
    repository: Path, put_entry: Put, infer: Infer, rows: np.ndarray[Any, Any]
) -> None:
    put_entry(repository, "broken", b"this is no graph", 'platform: "onnxruntime_onnx"\n')
    with EmbeddedTriton(repository, allow_failures=True) as server:
        assert list(server.failures) == ["broken"]
        assert infer(server.grpc_address, "m", x=rows)["y"].shape == (2, 4)
    with EmbeddedTriton(repository, models=["m"]) as server:
        assert server.failures == {}


NAMES = ["a~b", "-a", "_a", "1", "a.b", "A-9", "x" * 200]


def test_names_are_refused_at_once_or_reached_by_every_client(
    tmp_path: Path, put_entry: Put, onnx_scale: Scale, scale_config: str, rows: np.ndarray[Any, Any], infer: Infer
) -> None:
    root = tmp_path / "a folder with spaces"
    for name in (*NAMES, "my model"):
        put_entry(root, name, onnx_scale(), scale_config)
    with pytest.raises(InvalidInputError, match=r"folder 'my model' in .* cannot be served: .*rename it"):
        EmbeddedTriton(root).start()
    with EmbeddedTriton(root, allow_failures=True) as server:
        assert list(server.failures) == ["my model"]
        assert {model.name for model in server.served()} == set(NAMES)
        with HttpClient(server.http_address) as http:
            for name in NAMES:
                assert infer(server.grpc_address, name, x=rows)["y"].shape == (2, 4)
                tensor = HttpInput("x", list(rows.shape), "FP32")
                tensor.set_data_from_numpy(rows)
                assert http.infer(name, [tensor]).as_numpy("y").shape == (2, 4)


def test_a_repository_in_a_folder_with_spaces_loads_on_request(
    tmp_path: Path, put_entry: Put, onnx_scale: Scale, scale_config: str
) -> None:
    root = tmp_path / "a folder; with $things"
    put_entry(root, "m", onnx_scale(), scale_config)
    with EmbeddedTriton(root, model_control="explicit") as server:
        server.load("m")
        assert [model.name for model in server.served()] == ["m"]
        with pytest.raises(InvalidInputError, match="folder 'my model' in"):
            server.load("my model")
        put_entry(root, "broken", b"this is no graph", scale_config)
        with pytest.raises(InvalidInputError) as caught:
            server.load("broken")
        assert f" {root}/broken/1/model.onnx: " in str(caught.value), "in the user's own paths"


def test_a_folder_of_ours_that_the_backend_cannot_take_is_refused_at_once(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "with space"
    odd.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(odd))
        with pytest.raises(InvalidInputError, match=r"cannot work in .*with space: .* let TMPDIR name another folder"):
            EmbeddedTriton(repository).start()
    monkeypatch.setenv("GRAVSWELL_CACHE", str(odd))
    with pytest.raises(InvalidInputError, match="let GRAVSWELL_CACHE name another folder"):
        EmbeddedTriton(repository).start()


def test_control_apis_are_closed_without_the_key(repository: Path, infer: Infer, rows: np.ndarray[Any, Any]) -> None:
    http_headers, grpc_headers = key_headers("opensesame")
    with EmbeddedTriton(repository, model_control="explicit", key="opensesame") as server:
        server.load("m")
        assert infer(server.grpc_address, "m", x=rows)["y"].shape == (2, 4)
        with InferenceServerClient(server.grpc_address) as grpc:
            closed: list[Callable[..., Any]] = [
                lambda **more: grpc.load_model("m", **more),
                grpc.get_model_repository_index,
                grpc.get_system_shared_memory_status,
                grpc.get_log_settings,
                grpc.get_trace_settings,
            ]
            for call in closed:
                with pytest.raises(InferenceServerException, match="restricted"):
                    call()
                with pytest.raises(InferenceServerException, match="restricted"):
                    call(headers=dict.fromkeys(grpc_headers, "wrong"))
                call(headers=grpc_headers)
        with HttpClient(server.http_address) as http:
            with pytest.raises(InferenceServerException, match="restricted"):
                http.load_model("m")
            http.load_model("m", headers=http_headers)
            assert http.is_server_live()
            assert http.get_model_config("m")["name"] == "m"


def test_explicit_control_serves_what_is_loaded(repository: Path) -> None:
    with EmbeddedTriton(repository, model_control="explicit") as server:
        assert server.served() == []
        server.load("m")
        assert [model.name for model in server.served()] == ["m"]
        with pytest.raises(InvalidInputError, match="absent"):
            server.load("absent")
        server.unload("m")
        assert wait_until(lambda: server.served() == [])


def test_a_taken_port_is_named_and_another_server_on_it_is_not_mistaken_for_ours(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConflictError, match=f"port {port} on 127.0.0.1 is taken.* for grpc"):
            EmbeddedTriton(repository, ports=Ports(grpc=port)).start()
    with pytest.raises(InvalidInputError, match=r"192\.0\.2\.1"):  # an address of no machine (RFC 5737)
        EmbeddedTriton(repository, host="192.0.2.1").start()


def test_a_server_that_refuses_its_flags_says_so(repository: Path, tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    log.write_text("Socket '127.0.0.1:8000' already in use\n")  # of an earlier server: the log is appended to
    server = EmbeddedTriton(repository, extra_flags=["--no-such-flag"], log=log)
    with pytest.raises(UnavailableError, match=str(log)) as caught:
        server.start()
    assert "no-such-flag" in str(caught.value)
    assert log.read_text().startswith("Socket")


def test_what_is_not_there(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(NotFoundError, match="absent"):
        EmbeddedTriton(tmp_path / "absent")
    with pytest.raises(NotFoundError, match="no model 'other'"):
        EmbeddedTriton(repository, models=["other"]).start()


async def test_in_a_coroutine_the_loop_goes_on(repository: Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    async with EmbeddedTriton(repository) as server:
        assert [model.name for model in await asyncio.to_thread(server.served)] == ["m"]
    ticking.cancel()
    assert ticks > 10


def test_a_server_that_hangs_is_killed_with_its_backend_and_its_shared_memory(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gravswell.serving.triton.process.KILL_SECONDS", 1.0)
    with EmbeddedTriton(repository, exit_timeout=1) as server:
        pid = server.process.pid
        os.kill(pid, signal.SIGSTOP)
    assert wait_until(lambda: not group(pid))
    assert segments(pid) == []


def test_what_a_killed_server_left_can_be_cleared(repository: Path) -> None:
    with EmbeddedTriton(repository) as server:
        pid = server.process.pid
        left = segments(pid)
        assert len(left) == 2
        os.killpg(pid, signal.SIGKILL)  # with its backend, whose processes would have cleared it
        assert server.process.wait(BOUND)
        assert server.process.returncode == -signal.SIGKILL
        assert set(clear_segments(pid)) <= set(left), "what another server's start has not cleared already"
        assert segments(pid) == []


def test_no_orphan_outlives_a_killed_parent_and_its_folder_goes_with_the_next_start(repository: Path) -> None:
    script = f"""
import time
from gravswell.serving.triton import EmbeddedTriton
with EmbeddedTriton({str(repository)!r}, exit_timeout=3) as server:
    print(server.process.pid, server.process.log.parent, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        Workspace.create().remove()
        assert Path(folder).is_dir()  # its owner lives
        parent.kill()
    assert wait_until(lambda: not group(int(pid)))
    assert segments(int(pid)) == []
    Workspace.create().remove()
    assert wait_until(lambda: not Path(folder).exists()), "another server's start may be removing it"


def test_what_a_server_that_died_leaves_is_ended_without_a_parent_to_stop_it(tmp_path: Path) -> None:
    shell = ServerProcess.start(["/bin/sh", "-c", "sleep 600 & exit 1"], tmp_path / "log", exit_timeout=3)
    assert shell.wait(BOUND)
    assert wait_until(lambda: not group(shell.pid))


def test_a_server_is_not_killed_for_an_interrupt_of_the_wait_for_it(tmp_path: Path) -> None:
    """As by Ctrl-C in ``gravswell serve``: it ends what it has under way."""
    log = tmp_path / "log"
    script = "trap 'sleep 0.5; echo ended cleanly; exit 0' TERM; echo runs; while :; do sleep 0.05; done"
    shell = ServerProcess.start(["/bin/sh", "-c", script], log, exit_timeout=BOUND)
    assert wait_until(lambda: "runs" in shell.told())

    def interrupts() -> None:
        time.sleep(0.2)  # for the wait to begin
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def waits() -> None:
        threading.Thread(target=interrupts).start()
        shell.wait(BOUND)

    with pytest.raises(KeyboardInterrupt):
        waits()
    assert shell.returncode is None
    assert shell.stop()
    assert shell.returncode == 0
    assert "ended cleanly" in shell.told()


def test_a_server_in_a_load_that_never_returns_does_not_outlive_a_killed_parent(repository: Path) -> None:
    """It is deaf to SIGTERM for as long as it loads."""
    model = repository / "endless"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text('backend: "python"\n')
    (model / "1" / "model.py").write_text(ENDLESS)
    script = f"""
from gravswell.serving.triton import EmbeddedTriton
with EmbeddedTriton({str(repository)!r}, model_control="explicit", exit_timeout=1) as server:
    print(server.process.pid, server.process.log, flush=True)
    server.load("endless")
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, log = parent.stdout.readline().split()
        assert wait_until(lambda: "it loads" in Path(log).read_text())
        parent.kill()
    assert group(int(pid))
    assert wait_until(lambda: not group(int(pid)))


def test_a_workspace_that_a_sweep_took_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    make = tempfile.mkdtemp
    taken: list[str] = []

    def swept(**options: Any) -> str:
        path = make(**options)
        if not taken:
            taken.append(path)
            Path(path).rmdir()
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", swept)
    workspace = Workspace.create()
    assert workspace.path.is_dir()
    assert str(workspace.path) not in taken
    workspace.remove()


def test_a_dead_backend_process_is_seen_by_inference_only(
    repository: Path, infer: Infer, rows: np.ndarray[Any, Any]
) -> None:
    """The facts that the agent's probe relies on."""
    with EmbeddedTriton(repository, model_control="explicit") as server:
        server.load("m")
        for pid in group(server.process.pid) - {server.process.pid}:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(InferenceServerException, match=r"Stub process .* is not healthy") as caught:
            infer(server.grpc_address, "m", x=rows)
        assert caught.value.status() == "StatusCode.INTERNAL"
        with InferenceServerClient(server.grpc_address) as client:
            assert client.is_model_ready("m")
        server.unload("m")
        server.load("m")
        assert infer(server.grpc_address, "m", x=rows)["y"].shape == (2, 4)
