"""What every group of servers does alike, shown with shell scripts: start, fail, be watched, end."""

import socket
from pathlib import Path
from types import MappingProxyType

import pytest

from gravswell.errors import UnavailableError
from gravswell_operator.devcluster import Binaries, ControlPlane
from gravswell_operator.devcluster.processes import Child, Servers, wait_until


class Scripts(Servers):
    """Runs scripts one after the other; each is ready when it has made the file that is named as it is."""

    def __init__(self, folder: Path, *scripts: str, ready_timeout: float = 90.0) -> None:
        super().__init__(folder / "logs", ready_timeout=ready_timeout)
        self.folder = folder
        self.scripts = scripts
        self.started: list[Child] = []

    def _start(self) -> None:
        for number, script in enumerate(self.scripts):
            ready = self.folder / str(number)
            ready.unlink(missing_ok=True)
            child = self._spawn(f"script {number}", ["sh", "-c", script.format(ready=ready)], log=f"{number}.log")
            self.started.append(child)
            self._wait(child, lambda child=child, ready=ready: self._looked(child, ready))

    def _looked(self, child: Child, ready: Path) -> bool:
        return ready.exists()


class NeverReady(Scripts):
    """Is looked at once, when its script has said something."""

    def _looked(self, child: Child, ready: Path) -> bool:
        wait_until(lambda: child.log.read_text() != "", what="the script's first line", timeout=90)
        return False


class Holding(Scripts):
    """Has a port, at which nobody listens: of an address which nobody else uses, so that nobody takes it afterwards."""

    host = "127.83.109.7"
    port = 0

    def _start(self) -> None:
        self.port = self._free_port(self.host)
        super()._start()


SERVES = "touch {ready}; exec sleep 600"


def test_they_run_as_long_as_the_block(tmp_path):
    with Scripts(tmp_path, SERVES, SERVES) as servers:
        servers.require_running()
        assert all(child.running for child in servers.started)
    assert not any(child.running for child in servers.started)
    servers.stop()


def test_until_they_are_stopped_their_ports_are_given_to_nobody_else(tmp_path):
    with Holding(tmp_path, SERVES) as servers:
        for down in (False, True):  # also between an end and another start
            if down:
                servers.started[0].stop()
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind((servers.host, servers.port))
    with socket.socket() as other:
        other.bind((servers.host, servers.port))


def test_one_that_ends_is_told_with_its_log_and_takes_the_others_along(tmp_path):
    servers = Scripts(tmp_path, SERVES, "echo port taken; exit 3")
    with pytest.raises(UnavailableError, match=r"script 1 ended with status 3(.|\n)*port taken"):
        servers.start()
    assert not any(child.running for child in servers.started)


def test_one_that_dies_later_is_noticed_by_who_waits_for_another(tmp_path):
    servers = Scripts(tmp_path, "touch {ready}; sleep 0.3; exit 4", "exec sleep 600")
    with pytest.raises(UnavailableError, match="script 0 ended with status 4"):
        servers.start()
    assert not any(child.running for child in servers.started)


def test_one_that_is_never_ready_is_told_with_its_log(tmp_path):
    servers = NeverReady(tmp_path, "echo looking for etcd; exec sleep 600", ready_timeout=0.0)
    with pytest.raises(UnavailableError, match=r"script 0 was not ready after 0 s(.|\n)*looking for etcd"):
        servers.start()


def test_a_second_start_begins_with_empty_logs(tmp_path):
    servers = Scripts(tmp_path, "echo said; " + SERVES)
    for _ in range(2):
        with servers:
            pass
    assert (tmp_path / "logs/0.log").read_text() == "said\n"


def test_an_api_server_that_dies_before_it_lists_the_definitions_is_not_waited_for(tmp_path):
    kubectl, definitions = tmp_path / "kubectl", tmp_path / "crds.yaml"
    kubectl.write_text('#!/bin/sh\ncase "$*" in *apply*) exit 0;; esac\necho connection refused >&2; exit 1\n')
    kubectl.chmod(0o755)
    definitions.write_text("metadata: {name: models.gravswell.dev}\n")
    plane = ControlPlane(tmp_path / "plane", binaries=Binaries(MappingProxyType({"kubectl": kubectl})))
    plane._spawn("kube-apiserver", ["sh", "-c", "echo out of memory; exit 3"], "kube-apiserver.log").process.wait()
    with pytest.raises(UnavailableError, match=r"kube-apiserver ended with status 3(.|\n)*out of memory"):
        plane._install(definitions)
