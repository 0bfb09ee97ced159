"""``gravswell serve`` as a user runs it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

COMMAND = [sys.executable, "-m", "gravswell", "serve"]
ANY_PORTS = ["--http-port=0", "--grpc-port=0", "--metrics-port=0"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One entry that negates two numbers and a word, in two versions, and a broken one."""
    number, word = (TensorProto.FLOAT, ["n", 2]), (TensorProto.STRING, ["n", 1])
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Identity", ["s"], ["t"])],
        "g",
        [helper.make_tensor_value_info("x", *number), helper.make_tensor_value_info("s", *word)],
        [helper.make_tensor_value_info("y", *number), helper.make_tensor_value_info("t", *word)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for version in ("1", "2"):
        (tmp_path / "repo" / "neg" / version).mkdir(parents=True)
        onnx.save(model, tmp_path / "repo" / "neg" / version / "model.onnx")
    (tmp_path / "repo" / "neg" / "config.pbtxt").write_text('name: "neg"\nplatform: "onnxruntime_onnx"\n')
    (tmp_path / "repo" / "broken" / "1").mkdir(parents=True)
    (tmp_path / "repo" / "broken" / "1" / "model.onnx").write_bytes(b"no graph")
    return tmp_path / "repo"


@contextmanager
def serving(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    environment = os.environ | {"COLUMNS": "120"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*COMMAND, *arguments], text=True, env=environment, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def read_until(process: "subprocess.Popen[str]", last: str) -> str:
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line.rstrip() == last:
            return text
    raise AssertionError(f"it ended after: {text} {process.stderr.read() if process.stderr else ''}")


def test_the_snippet_that_it_prints_runs_and_ctrl_c_stops_it(repository: Path) -> None:
    with serving(str(repository), "--entry=neg", *ANY_PORTS) as process:
        text = read_until(process, "Ctrl-C stops it.")
        assert "x FP32[-1, 2]" in text
        snippet = text.partition("to copy:\n")[2].partition("Ctrl-C")[0]
        assert [line for line in snippet.splitlines() if line != line.rstrip()] == [], "it copies cleanly"
        behind_a_proxy = os.environ | {"grpc_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
        ran = subprocess.run(
            [sys.executable, "-c", snippet], capture_output=True, text=True, check=False, env=behind_a_proxy
        )
        assert ran.stdout.strip() == "[[-0. -0.]]", ran.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_json_for_programs_and_sigterm_as_a_clean_stop(repository: Path) -> None:
    with serving(str(repository), "--keep-going", "--output=json", *ANY_PORTS) as process:
        data = json.loads(read_until(process, "}"))
        assert [(model["name"], model["versions"]) for model in data["models"]] == [("neg", [2])]
        assert "broken/1/model.onnx" in data["failures"]["broken"]
        host, _, port = data["grpc"].rpartition(":")
        socket.create_connection((host, int(port)), timeout=30).close()
        process.terminate()
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert "not served: broken" in process.stderr.read()


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=300)


def test_a_model_that_does_not_load_is_one_message(repository: Path) -> None:
    done = run(str(repository), *ANY_PORTS)
    assert (done.returncode, done.stdout) == (7, "")
    assert f"model 'broken' does not load: {repository}/broken/1/model.onnx" in done.stderr
    assert "Traceback" not in done.stderr
    Path(done.stderr.rpartition("log is ")[2].strip()).unlink()


def test_a_taken_port_is_one_message_with_the_way_out(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(str(repository), f"--http-port={port}", "--grpc-port=0", "--metrics-port=0")
    assert done.returncode == 4
    assert f"port {port} on 127.0.0.1 is taken by another program; choose another port for http" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    done = run(str(tmp_path / "absent"))
    assert done.returncode == 3
    assert done.stderr.startswith("error: there is no repository at ")
    assert "absent" in done.stderr


def test_a_log_that_cannot_be_written_is_named(repository: Path) -> None:
    done = run(str(repository), "--log", "nowhere/triton.log")
    assert done.returncode == 3
    assert "there is no folder nowhere to write triton.log into" in done.stderr


def test_that_a_bucket_is_no_folder_is_said_before_anyone_asks_for_credentials() -> None:
    done = run("gs://bucket/models")
    assert done.returncode == 9
    assert "`gravswell sync gs://bucket/models FOLDER` makes one of it" in done.stderr
