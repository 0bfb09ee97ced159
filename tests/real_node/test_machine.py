"""A machine within the machine: what is inside stays inside, and goes with it, however it ends."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from gravswell.errors import InvalidInputError, UnavailableError
from gravswell_operator.devcluster.processes import die_with
from gravswell_operator.devcluster.realnode import ADDRESS, Machine
from gravswell_operator.devcluster.realnode.cgroups import PREFIX, hierarchies

from .outside import mounts_in, threads_elsewhere, until

NOBODY = 65534
DYING = """
import subprocess, sys, time
from pathlib import Path
from gravswell_operator.devcluster.realnode import Machine

with Machine(Path(sys.argv[1]), name="dying") as machine:
    machine.spawn("a program", ["sleep", "1000"], "program.log")
    place = machine.directory / "place"
    place.mkdir()
    subprocess.run(machine.command("mount", "-t", "tmpfs", "tmpfs", place), check=True)
    print(machine.pid, flush=True)
    time.sleep(1000)
"""

WITHOUT_RIGHTS = f"""
import os, sys
from pathlib import Path
from gravswell.errors import UnsupportedError
from gravswell_operator.devcluster.realnode import Machine

os.setuid({NOBODY})
try:
    Machine(Path(sys.argv[1]), name="machine").start()
except UnsupportedError as error:
    print(error)
"""


def inside(machine: Machine, *command: str) -> str:
    return subprocess.run(machine.command(*command), capture_output=True, text=True, check=True, timeout=60).stdout


def groups() -> list[Path]:
    """The control groups of machines, this process's and others', in all hierarchies.

    Not those below: they come and go with the containers of other tests' nodes.
    """
    return [group for hierarchy in hierarchies() for group in hierarchy.place.glob(f"{PREFIX}*")]


def until_gone(process: int) -> None:
    until(lambda: not Path(f"/proc/{process}").exists())


def addresses() -> str:
    return subprocess.run(["ip", "-brief", "address"], capture_output=True, text=True, check=True).stdout


def test_its_network_is_its_own_and_a_thread_can_enter_and_leave_it(tmp_path):
    before = addresses()
    with Machine(tmp_path, name="machine") as machine:
        assert inside(machine, "hostname").strip() == "machine"
        assert addresses() == before
        with machine.network():
            assert ADDRESS in addresses()
            with pytest.raises(OSError, match=r"unreachable|refused"):
                socket.create_connection((ADDRESS, 9), timeout=5)
        assert addresses() == before
    assert addresses() == before


def test_what_is_started_in_its_network_leaves_the_threads_of_grpc_where_they_are(tmp_path):
    with grpc.insecure_channel("127.0.0.1:9") as channel, Machine(tmp_path, name="machine") as machine:
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/any/method")(b"", timeout=1)  # from now on it has threads
        with machine.network():
            # As all that ends with this process is started, and by a fork therefore.
            subprocess.run(["true"], check=True, timeout=60, preexec_fn=die_with(os.getpid()))
        assert threads_elsewhere() == []


def test_mounts_and_processes_end_with_it(tmp_path):
    mounts = Path("/proc/self/mounts")
    with Machine(tmp_path, name="machine") as machine:
        child = machine.spawn("a program", ["sleep", "1000"], "program.log")
        inside(machine, "mkdir", "/run/place")
        inside(machine, "mount", "-t", "tmpfs", "tmpfs", "/run/place")
        assert "/run/place" in inside(machine, "cat", "/proc/self/mounts")
        assert "/run/place" not in mounts.read_text()
        first = machine.pid
    assert not child.running
    until_gone(first)
    assert "/run/place" not in mounts.read_text()


def test_what_runs_inside_is_in_its_control_groups_which_go_with_it(tmp_path):
    others = groups()  # of the node of other tests
    with Machine(tmp_path, name="machine") as machine:
        seen = {line.rpartition(":")[2] for line in inside(machine, "cat", "/proc/self/cgroup").splitlines()}
        assert seen <= {"/", "/machine"}
        new = [group for group in groups() if group not in others]
        mine = [group for group in new if group.name.startswith(f"{PREFIX}{os.getpid()}-")]
        assert mine
        for group in mine:  # in version 2 a group with processes of its own cannot limit those below it
            assert not (group / "cgroup.type").exists() or (group / "cgroup.procs").read_text() == ""
    assert not [group for group in mine if group.exists()]


def test_what_a_kubelet_sets_for_the_kernel_is_not_set_outside(tmp_path):
    outer = Path("/proc/sys/kernel/panic")
    before = outer.read_text()
    with Machine(tmp_path, name="machine") as machine:
        inside(machine, "sh", "-ec", f"echo 77 > {outer}")
        assert inside(machine, "cat", str(outer)) == "77\n"
        with pytest.raises(subprocess.CalledProcessError):
            inside(machine, "sh", "-ec", "cat /proc/sys/kernel/threads-max > /proc/sys/kernel/threads-max")
    assert outer.read_text() == before


def test_nothing_is_run_once_it_has_ended(tmp_path):
    machine = Machine(tmp_path, name="machine")
    with machine:
        os.kill(machine.pid, signal.SIGKILL)
        until_gone(machine.pid)
        with pytest.raises(UnavailableError, match="does not run"):
            machine.kill()
    with pytest.raises(UnavailableError, match="does not run"):
        machine.command("true")


def test_after_a_crash_nothing_runs_nothing_is_mounted_and_the_next_one_clears_what_is_left(tmp_path):
    folder = tmp_path / "dying"
    command = [sys.executable, "-c", DYING, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = int(process.stdout.readline())
        # Looked up while it runs: afterwards a machine of another test's may have cleared them already.
        its = [group for group in groups() if group.name.startswith(f"{PREFIX}{process.pid}-")]
        mounted = mounts_in(folder)
        process.kill()
    until_gone(first)
    until(lambda: not mounts_in(folder))  # whatever runs inside sees them; who waits outside for a program's end too
    assert set(mounted) == {f"{folder}/place"}
    assert its, "there was nothing to clear"
    with Machine(tmp_path / "next", name="next"):
        assert not [group for group in its if group.exists()]


def test_its_processes_can_be_killed_together_and_it_goes_on(tmp_path):
    with Machine(tmp_path, name="machine") as machine:
        child = machine.spawn("a program", ["sleep", "1000"], "program.log")
        machine.kill()
        assert child.process.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL, -signal.SIGTERM}
        assert inside(machine, "echo", "here") == "here\n"


def test_it_says_that_it_needs_root(tmp_path):
    command = [sys.executable, "-c", WITHOUT_RIGHTS, str(tmp_path / "machine")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90)
    assert done.stdout.startswith("a real node needs root")


def test_a_folder_that_would_be_hidden_inside_is_refused():
    with pytest.raises(InvalidInputError, match="/var/lib/node is hidden inside the node"):
        Machine(Path("/var/lib/node"), name="machine").start()
