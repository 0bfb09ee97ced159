"""How the demo reaches replicas. The port-forward is played by a script: no cluster here has pods to forward to."""

import json
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gravswell.errors import ConflictError, UnavailableError
from gravswell_operator.demo import reach
from gravswell_operator.demo.reach import replicas, require_free_ports
from gravswell_operator.devcluster.kubectl import Kubectl


def pod(name: str, address: str, *, ready: bool = True, **metadata: Any) -> dict[str, Any]:
    status = {"podIP": address, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
    return {"metadata": {"name": name, **metadata}, "status": status}


def kubectl(folder: Path, pods: list[dict[str, Any]], forward: str) -> Kubectl:
    (folder / "pods.json").write_text(json.dumps({"items": pods}))
    script = folder / "kubectl"
    script.write_text(
        f"""#!/bin/sh
case "$1" in
  get) cat {folder}/pods.json ;;
  port-forward) echo "$@" >> {folder}/forwards; {forward} ;;
esac
"""
    )
    script.chmod(0o755)
    return Kubectl(script)


def test_loopback_addresses_are_dialled_and_others_forwarded(tmp_path: Path) -> None:
    fake = kubectl(
        tmp_path,
        [
            pod("here", "127.3.4.5"),
            pod("there", "10.0.0.7"),
            pod("late", "127.3.4.6", ready=False),
            pod("going", "127.3.4.7", deletionTimestamp="2026-01-01T00:00:00Z"),
        ],
        'echo "Forwarding from 127.0.0.1:40123 -> 8001"; exec sleep 60',
    )
    with ExitStack() as stack:
        assert replicas(fake, stack) == ["127.3.4.5:8001", "127.0.0.1:40123"]
    assert (tmp_path / "forwards").read_text().split() == ["port-forward", "--namespace=default", "pod/there", ":8001"]


def test_a_forward_that_fails_is_told_in_kubectls_words(tmp_path: Path) -> None:
    fake = kubectl(tmp_path, [pod("there", "10.0.0.7")], 'echo "error: pod not found"')
    with ExitStack() as stack, pytest.raises(UnavailableError, match="to pod/there failed: error: pod not found"):
        replicas(fake, stack)


def test_a_forward_that_never_listens_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "FORWARD_TIMEOUT", 0.2)
    fake = kubectl(tmp_path, [pod("there", "10.0.0.7")], "exec sleep 600")
    with ExitStack() as stack, pytest.raises(UnavailableError, match="to pod/there failed: it did not listen within 0"):
        replicas(fake, stack)


def test_no_ready_replica_is_an_error_with_the_way_to_look(tmp_path: Path) -> None:
    fake = kubectl(tmp_path, [pod("late", "10.0.0.7", ready=False)], "exit 1")
    with ExitStack() as stack, pytest.raises(UnavailableError, match="kubectl describe isrv digits"):
        replicas(fake, stack)


def test_a_program_on_every_address_is_in_the_pods_way_and_one_on_its_own_is_not() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        require_free_ports([other.getsockname()[1]])
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConflictError, match=rf"port {port} is taken on every address(.|\n)*--no-cluster"):
            require_free_ports([port])
