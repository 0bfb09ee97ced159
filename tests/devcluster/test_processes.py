import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from gravswell.errors import UnavailableError
from gravswell_operator.devcluster.processes import Child, describe_exit, tail, wait_until


def until_gone(pid: int) -> None:
    end = time.monotonic() + 60
    with suppress(FileNotFoundError, ProcessLookupError):  # it has gone, before the look or meanwhile
        while "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1][:3]:
            assert time.monotonic() < end, f"{pid} lives"
            time.sleep(0.05)


def test_a_child_that_ended_is_told_with_its_logs_end(tmp_path):
    child = Child("the server", ["sh", "-c", "echo port taken; exit 3"], log=tmp_path / "log")
    child.process.wait(60)
    with pytest.raises(UnavailableError, match=r"the server ended with status 3(.|\n)*port taken"):
        child.require_running()


def test_stop_ends_the_whole_group(tmp_path):
    child = Child("s", ["sh", "-c", "trap '' TERM; sleep 600 & echo $!; while :; do sleep 1; done"], log=tmp_path / "l")
    wait_until(lambda: bool((tmp_path / "l").read_text()), what="the child", timeout=60)
    child.stop(timeout=0.5)
    child.stop()
    until_gone(int((tmp_path / "l").read_text()))
    assert not child.running


def test_a_child_that_was_collected_is_left_alone(tmp_path, monkeypatch):
    child = Child("s", ["true"], log=tmp_path / "log")
    child.process.wait(60)  # from here on its number may be another program's
    signalled: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, _number: signalled.append(group))
    child.stop()
    assert not signalled


@pytest.mark.parametrize("start", ["start()", "threading.Thread(target=start).start()"])
def test_a_child_dies_with_a_parent_that_had_no_chance(tmp_path, start):
    code = (
        "import pathlib, sys, threading, time\n"
        "from gravswell_operator.devcluster.processes import Child\n"
        "def start():\n"
        "    child = Child('s', ['sleep', '600'], log=pathlib.Path(sys.argv[1]))\n"
        "    print(child.pid, flush=True)\n"
        "    time.sleep(600)\n"
        f"{start}\n"
        "time.sleep(600)\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        parent.kill()
    until_gone(pid)


COMPUTES = """
import pathlib, sys, threading
import numpy as np
from gravswell_operator.devcluster.processes import Child

over = threading.Event()

def start():
    for _ in range(20):
        Child("s", ["sh", "-c", "nice; trap"], log=pathlib.Path(sys.argv[1]), niceness=3).process.wait(60)
    over.set()

threading.Thread(target=start, daemon=True).start()
a = np.ones((300, 300))
while not over.is_set():
    a @ a
"""


def test_a_child_starts_in_a_thread_while_another_computes(tmp_path):
    """As the demo's, while its network is trained: OpenBLAS and a fork waited for each other, for ever."""
    subprocess.run([sys.executable, "-c", COMPUTES, str(tmp_path / "log")], check=True, timeout=120)
    assert (tmp_path / "log").read_text().split() == [str(min(os.nice(0) + 3, 19))] * 20


def test_a_program_that_is_missing_is_one_line_of_the_log_of_who_starts_it_in_a_thread(tmp_path):
    started: list[Child] = []
    start = threading.Thread(
        target=lambda: started.append(
            Child("a server", ["/nowhere/server"], log=tmp_path / "log", with_parent=False, niceness=1)
        )
    )
    start.start()
    start.join()
    started[0].process.wait(90)
    with pytest.raises(
        UnavailableError, match=r"a server ended with status 127; the end of \S+:\n/nowhere/server cannot be"
    ):
        started[0].require_running()
    assert (tmp_path / "log").read_text() == "/nowhere/server cannot be run: No such file or directory\n"


def test_waiting_has_an_end():
    with pytest.raises(UnavailableError, match="etcd was not ready after 0 s"):
        wait_until(lambda: False, what="etcd", timeout=0.1)


@pytest.mark.parametrize(("code", "words"), [(0, "status 0"), (-signal.SIGKILL, "signal SIGKILL"), (-40, "signal 40")])
def test_exits_in_words(code, words):
    assert describe_exit(code) == words


def test_a_log_that_is_not_there_or_empty_is_said(tmp_path):
    assert "wrote no log" in tail(tmp_path / "none")
    (tmp_path / "empty").touch()
    assert "is empty" in tail(tmp_path / "empty")
    (tmp_path / "long").write_text("\n".join(map(str, range(100))))
    assert tail(tmp_path / "long", 2).endswith("98\n99")
