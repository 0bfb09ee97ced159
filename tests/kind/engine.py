"""Debian's docker daemon in a machine of its own: its networks, mounts, containers and files end with that."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gravswell.errors import UnavailableError
from gravswell_operator.devcluster.debian import ensure_packages, unpacked
from gravswell_operator.devcluster.realnode import Machine, node_packages

_SOCKET = "unix:///run/docker.sock"
_RUNTIME = Path(__file__).with_name("reducedrunc.py")
_OWN_LAYERS = """\
mkdir -p /run/own/etc/upper /run/own/etc/work /run/own/opt/upper /run/own/opt/work
: > /run/own/etc/upper/resolv.conf
for folder in etc opt; do
  layers="lowerdir=/$folder,upperdir=/run/own/$folder/upper,workdir=/run/own/$folder/work"
  mount -t overlay -o "$layers" gravswell "/$folder"
done
"""
"""The daemon makes a key below /etc and folders below /opt: they end with the machine. Its name servers stay hidden."""


class Docker:
    """The daemon on ``machine``, which is started; it ends with it.

    ``programs`` are folders that come first on the search path of what runs inside.
    """

    def __init__(self, machine: Machine, *programs: Path) -> None:
        node_packages()  # runc
        ensure_packages({"iptables": "iptables"}, what="docker")
        roots = [unpacked(package) for package in ("docker.io", "containerd", "libdevmapper1.02.1")]
        search = [*programs, *(root / folder for root in roots for folder in ("usr/bin", "usr/sbin"))]
        self._machine, self._daemon = machine, roots[0] / "usr/sbin"
        self._home = Path(tempfile.mkdtemp(dir=machine.directory))
        self._environment: Mapping[str, str] = {
            **os.environ,
            "PATH": ":".join([*map(str, search), "/usr/sbin", "/usr/bin", "/sbin", "/bin"]),
            "LD_LIBRARY_PATH": str(roots[-1] / "lib/x86_64-linux-gnu"),
            "HOME": str(self._home),
            "DOCKER_HOST": _SOCKET,
            "KUBECONFIG": str(self.kubeconfig),
            "DOCKER_BUILDKIT": "1",  # Debian 12's is older than 23, which has it by itself
        }

    @property
    def kubeconfig(self) -> Path:
        """What kind writes, and kubectl and helm read."""
        return self._home / "kubeconfig"

    def start(self) -> None:
        """Start the daemon; return when it answers."""
        self.run("sh", "-ec", _OWN_LAYERS)
        configuration, runtime = self._home / "daemon.json", self._home / "reduced-runc"
        configuration.write_text("{}")
        program = shlex.join([sys.executable, "-I", "-S", str(_RUNTIME)])
        runtime.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        runtime.chmod(0o755)
        flags = [
            f"--config-file={configuration}",  # one below /etc is of a daemon that the user has
            f"--data-root={self._machine.directory / 'docker'}",
            "--exec-root=/run/docker",
            "--pidfile=/run/docker.pid",
            f"--host={_SOCKET}",
            "--storage-driver=overlay2",
            f"--add-runtime=reduced={runtime}",
            "--default-runtime=reduced",
            f"--userland-proxy-path={self._daemon / 'docker-proxy'}",
        ]
        daemon = self._machine.spawn("dockerd", [self._daemon / "dockerd", *flags], "dockerd.log", self._environment)
        self._machine.wait_for(daemon, self._answers)

    def run(self, *command: str | Path, timeout: float = 300) -> str:
        """The output of a command inside. UnavailableError, with its words, where it fails or does not end in time."""
        what = " ".join(map(str, command))
        try:
            done = subprocess.run(
                self._machine.command(*command),
                env=self._environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"{what} did not end within {timeout:.0f} s") from None
        if done.returncode != 0:
            raise UnavailableError(f"{what} failed: {(done.stdout + done.stderr)[-6000:]}")
        return done.stdout

    def said(self, *command: str | Path) -> str:
        """The output of a command inside, or why there is none."""
        try:
            return self.run(*command)
        except UnavailableError as error:
            return str(error)

    def _answers(self) -> bool:
        try:
            self.run("docker", "info", timeout=30)
        except UnavailableError:
            return False
        return True
