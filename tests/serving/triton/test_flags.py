import os
import subprocess
from pathlib import Path

import pytest

from gravswell.serving.triton.flags import http_threads, pod_command, server_flags


def test_every_server_binds_the_given_address_and_a_bad_model_does_not_end_it() -> None:
    flags = server_flags(model_repository="/models", address="10.0.0.7")
    assert {flag for flag in flags if "address" in flag} == {
        "--http-address=10.0.0.7",
        "--grpc-address=10.0.0.7",
        "--metrics-address=10.0.0.7",
    }
    assert "--exit-on-error=false" in flags
    assert not [flag for flag in flags if "restricted" in flag]


def test_an_ipv6_address_is_written_as_each_server_wants_it() -> None:
    flags = server_flags(model_repository="/models", address="fd00::7")
    assert [flag for flag in flags if "address" in flag] == [
        "--http-address=ipv6:fd00::7",
        "--grpc-address=[fd00::7]",
        "--metrics-address=ipv6:fd00::7",
    ]


def test_a_key_closes_the_control_apis_on_both_protocols() -> None:
    flags = server_flags(model_repository="/models", address="10.0.0.7", key="abc", extra=["--log-verbose=1"])
    assert flags[-3:] == [
        "--http-restricted-api=model-repository,shared-memory,trace,logging:X-Gravswell-Key=abc",
        "--grpc-restricted-protocol=model-repository,shared-memory,trace,logging:gravswell-key=abc",
        "--log-verbose=1",
    ]


def test_further_apis_are_closed_with_the_same_key_and_each_once() -> None:
    """Triton ends where an API is named twice."""
    also = ["statistics", "logging", "statistics"]
    closed = "model-repository,shared-memory,trace,logging,statistics"
    assert server_flags(model_repository="/models", address="10.0.0.7", key="abc", also_closed=also)[-2:] == [
        f"--http-restricted-api={closed}:X-Gravswell-Key=abc",
        f"--grpc-restricted-protocol={closed}:gravswell-key=abc",
    ]
    assert f"--http-restricted-api={closed}:" in pod_command(also_closed=also)


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (2, 2), (64, 8)])
def test_only_a_server_that_loads_by_itself_has_few_http_threads(cpus: int, threads: int) -> None:
    """A load by a client holds a thread: on one CPU nobody else would be answered by HTTP meanwhile."""
    assert http_threads("none", cpus) == [f"--http-thread-count={threads}"]
    assert http_threads("explicit", cpus) == []


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    """A PATH whose ``tritonserver`` prints its arguments, one a line."""
    program = tmp_path / "bin" / "tritonserver"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    return program.parent


def run(command: str, shell: Path) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PATH": f"{shell}:{os.environ['PATH']}"}
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("address", ["127.1.2.3", "fd00::7", "::1"])
def test_the_pods_shell_reads_the_key_and_passes_users_flags_untouched(
    address: str, shell: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key of this pod"
    key.write_text("0123abcd\n")
    hostile = '--backend-config=python,x="$(touch /nowhere) `id`; $HOME'
    command = pod_command(model_repository="/models", key_file=str(key), address=address, extra=[hostile])
    assert run(command, shell).stdout.splitlines() == server_flags(
        model_repository="/models", address=address, key="0123abcd", extra=[hostile]
    )


@pytest.mark.parametrize("content", [None, ""])
def test_without_a_key_the_pods_server_does_not_start(content: str | None, shell: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    if content is not None:
        key.write_text(content)
    done = run(pod_command(key_file=str(key)), shell)
    assert done.returncode != 0
    assert done.stdout == ""


def test_the_kubelet_finds_its_own_variable_only() -> None:
    # Kubernetes expands $(NAME) for variables of the container and leaves anything else as it is.
    assert pod_command().count("$(POD_IP)") == 1
    assert "$(cat /run/gravswell/key)" in pod_command()
