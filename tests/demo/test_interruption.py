"""How the demo ends early, with signals to a process whose clean-up takes a while."""

import errno
import io
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from gravswell.errors import UnavailableError
from gravswell_operator.demo.digits import SklearnTrainer, load_digits
from gravswell_operator.demo.interruption import full_disk_told
from gravswell_operator.demo.view import Story

PROGRAM = """
import pathlib, sys, time
from rich.console import Console
from gravswell_operator.demo.digits import SklearnTrainer, load_digits
from gravswell_operator.demo.interruption import interruptible
from gravswell_operator.demo.view import Story

with interruptible(Story(Console())):
    try:
        print("runs", flush=True)
        time.sleep(600)
    finally:
        print("cleans up", flush=True)
        time.sleep(1.5)
        pathlib.Path(sys.argv[1]).touch()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_asks_for_the_end_and_however_often_it_cleans_up(number: signal.Signals, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", PROGRAM, str(tmp_path / "clean")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as demo:
        assert demo.stdout is not None
        assert demo.stdout.readline() == "runs\n"
        demo.send_signal(number)
        assert demo.stdout.readline() == "cleans up\n"
        for again in (number, signal.SIGINT):
            demo.send_signal(again)
            time.sleep(0.1)
        assert demo.wait(60) != 0
    assert (tmp_path / "clean").exists()


def test_scikit_learn_does_not_swallow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C in the middle of a fit, which scikit-learn answers with a warning and a model that learnt less."""
    trainer = SklearnTrainer(load_digits())
    trainer.train(1)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.model, "_backprop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(1)


def test_what_was_ignored_stays_ignored() -> None:
    """As under nohup: the terminal may close."""
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + PROGRAM.replace("600", "1")
    argv = [sys.executable, "-c", program, "/dev/null"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert demo.stdout.readline() == "runs\n"
        demo.send_signal(signal.SIGHUP)
        assert demo.wait(60) == 0


def test_a_full_disk_is_told_with_the_way_out() -> None:
    with pytest.raises(UnavailableError, match=r"disk is full \(/tmp/x\).*TMPDIR.*GRAVSWELL_CACHE"), full_disk_told():
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x")
    with pytest.raises(PermissionError), full_disk_told():
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_pipe_gets_lines_and_no_drawing() -> None:
    out = io.StringIO()
    story = Story(Console(file=out, width=60))
    with story.step("count") as step, story.progress() as show:
        for done in range(100):
            show("counting", done, 100)
        step.note = "100"
    with story.live(lambda: "a table") as refresh:
        refresh()
    with pytest.raises(RuntimeError), story.step("fail"):
        raise RuntimeError
    said = [re.sub(r" [0-9.]+ s$", "", line) for line in out.getvalue().splitlines()]
    assert said == ["✓ count · 100", "a table", "✗ fail"]
