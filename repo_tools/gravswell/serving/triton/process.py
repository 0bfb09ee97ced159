"""The server as a child process: it never outlives its parent for long, and a stop that fails ends in a kill.

The kernel tells the child when the *thread* that started it ends (``PR_SET_PDEATHSIG``), so a thread of its own starts
it and stays until it has ended. However this process dies, SIGKILL included, Triton gets its SIGTERM. One that is in a
load that never returns would wait for that for ever: a guard beside it kills it then, and whatever a server that died
leaves of its backend's processes.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Final

from gravswell.errors import UnavailableError
from gravswell.serving.triton.install import SEGMENT_PREFIX

# Runs before tritonserver in the same process, and beside it as its guard: that waits, without a clock, for the end of
# the server or of the parent, which may also have died before it could be asked after.
_LAUNCH: Final = """\
import ctypes, os, select, signal, sys
parent, patience, program = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
if ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM):  # PR_SET_PDEATHSIG
    sys.exit(os.strerror(ctypes.get_errno()))
group = os.getpid()
server, starter = os.pidfd_open(group), os.pidfd_open(parent)
if os.getppid() != parent:
    sys.exit("the parent has ended")
if os.fork() == 0:
    os.setsid()  # apart from those whom it may kill
    select.select([server, starter], [], [])
    select.select([server], [], [], patience)
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nobody of the group is left: what we want
    os._exit(0)
os.execv(program[0], program)
"""

KILL_SECONDS: Final = 10.0
"""How much longer than its own exit time-out a server may take before it is killed."""


class ServerProcess:
    """A running server and the log that it writes; made by :meth:`start`."""

    def __init__(
        self, child: "subprocess.Popen[bytes]", ended: threading.Event, log: Path, begin: int, patience: float
    ) -> None:
        self._child = child
        self._ended = ended
        self.log = log
        self._begin = begin
        self._patience = patience

    @classmethod
    def start(cls, command: Sequence[str], log: Path, *, exit_timeout: float) -> "ServerProcess":
        """Start ``command`` (an absolute program and its arguments) in a session of its own, writing to ``log``.

        ``exit_timeout`` is its own, in seconds: :data:`KILL_SECONDS` after that an end that was asked for is a kill.
        """
        patience = exit_timeout + KILL_SECONDS
        future: Future[subprocess.Popen[bytes]] = Future()
        # Not the end of the thread: for who is interrupted in its join, it counts as ended (CPython 3.11).
        ended = threading.Event()

        def keep() -> None:
            try:
                child = _spawn(command, log, patience)
            except BaseException as error:  # noqa: BLE001  raised again by future.result()
                future.set_exception(error)
                return
            future.set_result(child)
            child.wait()
            ended.set()

        begin = log.stat().st_size if log.exists() else 0
        threading.Thread(target=keep, name="gravswell-triton", daemon=True).start()
        try:
            return cls(future.result(), ended, log, begin, patience)
        except OSError as error:
            raise UnavailableError(f"{command[0]} cannot be started: {error}") from error

    def told(self) -> str:
        """What this server has written to the log, which may hold the words of earlier ones too."""
        with self.log.open("rb") as stream:
            stream.seek(self._begin)
            return stream.read().decode(errors="replace")

    def last_words(self) -> str:
        """The errors that it has told, else its last line."""
        lines = [line for line in self.told().splitlines() if line and line[0] not in "+|"]
        errors = [line for line in lines if re.match(r"E\d{4} |error:|\S*tritonserver: ", line)]
        return " / ".join((errors or lines or ["its log is empty"])[-3:])

    def poll_failure(self, model: str) -> str:
        """Why Triton left a model out of its index: a config that it cannot read is told in its log only."""
        found = re.search(rf"Poll failed for model directory '{re.escape(model)}': ([^\n]*)", self.told())
        return found[1].rstrip('"') if found else "Triton gave no reason"

    @property
    def pid(self) -> int:
        """Process id of ``tritonserver``; also of its process group, which holds the backend's processes."""
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        return self._child.returncode if self._ended.is_set() else None

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended, at most ``seconds``; tell whether it has."""
        return self._ended.wait(seconds)

    def stop(self) -> bool:
        """Stop it: SIGTERM, then SIGKILL to its whole group when it takes too long.

        Returns whether it stopped by itself. Either way no process and no shared memory of it is left.
        """
        clean = True
        if self.returncode is None:
            self._child.send_signal(signal.SIGTERM)
            clean = self.wait(self._patience)
        if self.returncode != 0:
            with suppress(ProcessLookupError):  # nobody of the group is left: what we want
                os.killpg(self.pid, signal.SIGKILL)
        self.wait()
        clear_segments(self.pid)
        return clean


def _spawn(command: Sequence[str], log: Path, patience: float) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), str(patience), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is ours to translate into a clean stop
        )


def clear_segments(pid: int) -> list[str]:
    """Remove what the server with process id ``pid``, which must have ended, left in ``/dev/shm``; return the names.

    A server that stops by itself leaves nothing; a killed one 1 MiB for each model instance.
    """
    found = list(Path("/dev/shm").glob(f"{SEGMENT_PREFIX}{pid}-*"))  # noqa: S108  POSIX shared memory, not a temp file
    for segment in found:
        segment.unlink(missing_ok=True)
    return [segment.name for segment in found]


def clear_left_segments() -> list[str]:
    """Remove what servers of this user left in ``/dev/shm`` that were killed with whoever would have cleared it.

    Returns the names. What belongs to a process that runs, or to another user, is left alone.
    """
    owners = set()
    for path in Path("/dev/shm").glob(f"{SEGMENT_PREFIX}*"):  # noqa: S108  POSIX shared memory, not a temp file
        found = re.fullmatch(rf"{SEGMENT_PREFIX}(\d+)-.+", path.name)
        with suppress(FileNotFoundError):  # its server ends just now
            if found and path.stat().st_uid == os.getuid():
                owners.add(int(found[1]))
    return [name for pid in sorted(owners) if not Path(f"/proc/{pid}").exists() for name in clear_segments(pid)]
