"""Who supervises a cluster: asked by many, held by one."""

import fcntl
import subprocess
import sys
import threading

from gravswell_operator.devcluster import state
from gravswell_operator.devcluster.state import is_supervised, supervising


def test_a_start_succeeds_beside_those_who_ask(tmp_path, monkeypatch):
    with supervising(tmp_path):
        pass
    lock = next(tmp_path.iterdir())
    with lock.open() as asking:  # caught in the middle of its question
        fcntl.flock(asking, fcntl.LOCK_SH)
        tries = state._try_lock

        def answered_meanwhile(*arguments):
            free = tries(*arguments)
            fcntl.flock(asking, fcntl.LOCK_UN)
            return free

        monkeypatch.setattr(state, "_try_lock", answered_meanwhile)
        with supervising(tmp_path) as free:
            assert free


def test_those_who_ask_do_not_take_one_another_for_a_supervisor(tmp_path):
    answers: list[bool] = []

    def ask() -> None:
        answers.extend(is_supervised(tmp_path) for _ in range(2000))

    with supervising(tmp_path):
        pass
    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert not any(answers)


def test_asking_makes_nothing(tmp_path):
    assert not is_supervised(tmp_path / "none")
    assert not is_supervised(tmp_path)
    assert not list(tmp_path.iterdir())


def test_one_supervises_until_it_ends(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from gravswell_operator.devcluster.state import supervising\n"
        "with supervising(pathlib.Path(sys.argv[1])) as free:\n"
        "    print(free, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert is_supervised(tmp_path)
        with supervising(tmp_path) as free:
            assert not free
        holder.kill()
    assert not is_supervised(tmp_path)
