"""A machine within the machine: namespaces of its own for processes, mounts, network, names and control groups."""

import ctypes
import os
import secrets
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gravswell.errors import InvalidInputError, UnavailableError, UnsupportedError
from gravswell_operator.devcluster.debian import ensure_packages
from gravswell_operator.devcluster.processes import Child, Servers, describe_exit, tail
from gravswell_operator.devcluster.realnode import cgroups

ADDRESS = "192.168.250.1"
"""The node's address. It exists in the machine's own network namespace, which nothing outside reaches."""

_CLONE_NEWNET = 0x40000000
_LOG = "machine.log"
_HIDDEN = ("/run", "/var/lib", "/var/log")  # empty inside, so that nothing of the outer machine is found or changed
_TOOLS = {"util-linux": "nsenter", "mount": "mount", "iproute2": "ip", "hostname": "hostname"}
"""Package, and its program."""
_TUNABLES = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
"""What a kubelet sets for the whole kernel: it gets files in their place, and the outer machine's stay as they are."""

# The first process, with everything that a kubelet expects of a machine. Its end is the end of all others.
_BOOT = """\
set -e
mount --make-rshared /
for folder in {hidden}; do mount -t tmpfs -o mode=755 gravswell "$folder"; done
mkdir -p /run/lock /var/log/containers
for folder in fs kernel vm; do
  mount --bind "/proc/sys/$folder" "/proc/sys/$folder"
  mount -o remount,bind,ro "/proc/sys/$folder"
done
for tunable in {tunables}; do
  [ -e "/proc/sys/$tunable" ] || continue
  mkdir -p "/run/tunables/${{tunable%/*}}"
  cat "/proc/sys/$tunable" > "/run/tunables/$tunable"
  mount --bind "/run/tunables/$tunable" "/proc/sys/$tunable"
done
mount -t sysfs sysfs /sys
: > /run/resolv.conf
if [ -e /etc/resolv.conf ]; then mount --bind /run/resolv.conf /etc/resolv.conf; fi
{cgroups}
hostname {name}
ip link set lo up
ip link add node0 type bridge
ip address add {address}/24 dev node0
ip link set node0 up
ip route add default dev node0
echo 1 > /proc/sys/net/ipv4/ip_forward
touch {ready}
while :; do sleep infinity & wait; done
"""


class Machine(Servers):
    """Namespaces with a first process, started by root: a context manager.

    Args:
        directory: an absent or empty folder, not below ``/run``, ``/var/lib`` or ``/var/log``.
        name: its host name.

    Raises (at the start):
        UnsupportedError: not Linux, not root, or no control groups.
        UnavailableError: a program is missing, or the kernel refuses a namespace.
    """

    def __init__(self, directory: Path, *, name: str) -> None:
        super().__init__(directory / "logs")
        self.directory = directory.absolute()
        self.name = name
        self._group = f"{cgroups.PREFIX}{os.getpid()}-{secrets.token_hex(3)}"
        self._pid = 0
        self._processes = ""
        self._first: int | None = None

    @property
    def pid(self) -> int:
        """The first process, as the outer machine counts."""
        return self._pid

    def command(self, *argv: str | Path) -> list[str]:
        """Return the command that runs ``argv`` inside.

        Raises :class:`UnavailableError` where the machine does not run: its number may be another process's by now.
        """
        if self._first is None or select.select([self._first], [], [], 0)[0]:
            raise UnavailableError(f"the node's machine does not run; {tail(self.logs / _LOG)}")
        enter = ["nsenter", f"--target={self._pid}", "--all", "--"]
        return [
            "sh",
            "-ec",
            f'{cgroups.join_script(self._group)}exec "$@"',
            "sh",
            *enter,
            *(str(part) for part in argv),
        ]

    def spawn(
        self, name: str, argv: Sequence[str | Path], log: str, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start a program inside; :meth:`stop` ends it with the machine."""
        return self._spawn(name, self.command(*argv), log, environment)

    def wait_for(self, child: Child, ready: Callable[[], bool]) -> None:
        """Wait until ``ready``, as long as everything inside runs."""
        self._wait(child, ready)

    def kill(self) -> None:
        """End every process inside but the first at once, as a loss of power does; mounts and addresses stay."""
        # Outside, it would be every process of the outer machine.
        script = '[ "$(readlink /proc/self/ns/pid)" = "$1" ] && kill -s KILL -- -1'
        command = self.command("sh", "-c", script, "sh", self._processes)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            said = done.stderr.strip() or describe_exit(done.returncode)
            raise UnavailableError(f"the node's processes could not be ended: {said}")
        while len(self._children) > 1:
            self._children.pop().stop()

    @contextmanager
    def network(self) -> Iterator[None]:
        """In the block this thread, and what it starts, is in the machine's network and in no other."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            inside = os.open(f"/proc/{self._pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _enter(inside)
            finally:
                os.close(inside)
            try:
                yield
            finally:
                _enter(before)
        finally:
            os.close(before)

    def _start(self) -> None:
        _require()
        if any(self.directory.is_relative_to(folder) for folder in _HIDDEN):
            raise InvalidInputError(f"{self.directory} is hidden inside the node; take a folder outside {_HIDDEN}")
        cgroups.sweep()
        self.directory.mkdir(parents=True, exist_ok=True)
        ready = self.directory / "booted"
        ready.unlink(missing_ok=True)
        cgroups.create(self._group)
        boot = _BOOT.format(
            hidden=" ".join(_HIDDEN),
            tunables=" ".join(_TUNABLES),
            cgroups=cgroups.mount_script(),
            name=self.name,
            address=ADDRESS,
            ready=shlex.quote(str(ready)),
        )
        outer = "exec unshare --net --mount --pid --ipc --uts --fork --kill-child=SIGKILL --mount-proc"
        inner = f"set -e\n{cgroups.root_script(self._group)}exec unshare --cgroup sh -c {shlex.quote(boot)}"
        script = f"{cgroups.join_script(self._group)}{outer} sh -c {shlex.quote(inner)}"
        child = self._spawn("the node's machine", ["sh", "-ec", script], _LOG)
        self._wait(child, ready.exists)
        self._pid = int(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()[0])
        self._first = os.pidfd_open(self._pid)
        self._processes = str(Path(f"/proc/{self._pid}/ns/pid").readlink())

    def stop(self) -> None:
        """End every process inside; mounts, addresses and rules go with them, then the control groups. Idempotent."""
        if self._first is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first, signal.SIGKILL)  # unshare, which waits for it, hears no SIGTERM
        super().stop()
        if self._first is not None:
            select.select([self._first], [], [], self._stop_timeout)  # the kernel ends all others before it
            os.close(self._first)
            self._first = None
        cgroups.remove(self._group)


def _require() -> None:
    if sys.platform != "linux":
        raise UnsupportedError(f"a real node needs Linux, and this is {sys.platform}; use kind (--context NAME)")
    if os.geteuid() != 0:
        raise UnsupportedError("a real node needs root (namespaces, mounts, control groups); run it with sudo")
    ensure_packages(_TOOLS, what="a real node")


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the network namespace cannot be entered: {os.strerror(number)}")
