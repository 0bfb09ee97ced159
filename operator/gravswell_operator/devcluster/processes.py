"""Child processes that are started with care and always ended: own session, output to a file, bounded stops.

A child never shares our terminal or our output, so a pipeline around us ends when we do; and it dies with us, however
we end, where the kernel offers that (Linux's parent-death signal).
"""

import ctypes
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from gravswell.errors import UnavailableError
from gravswell.serving.triton.ports import held_port

_PR_SET_PDEATHSIG = 1
_LAUNCH = f"""
import ctypes, os, signal, sys
parent, niceness, *argv = sys.argv[1:]
if int(parent):
    ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)
os.nice(int(niceness))
for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and a program inherits that
    signal.signal(number, signal.SIG_DFL)
try:
    os.execvp(argv[0], argv)
except OSError as error:
    print(f"{{argv[0]}} cannot be run: {{error.strerror}}", file=sys.stderr)
    sys.exit(127)
"""
"""What becomes the program once it is arranged that it ends with its parent, and how nice it is."""
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with(parent: int, number: int = signal.SIGKILL) -> Callable[[], None] | None:
    """Return what a child runs before its program so that it gets signal ``number`` when ``parent`` ends.

    The kernel watches the *thread* that forks: start such children in a thread that lives as long as they shall.
    None on systems without the feature; there, ends depend on the parent's own clean-up.
    """
    if _libc is None:
        return None
    libc = _libc

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it ended between our fork and the call above
            os._exit(1)

    return arrange


class Child:
    """One server process with a log file.

    Args:
        name: how messages call it.
        argv: the program and its arguments.
        log: the file that takes stdout and stderr, appended to.
        environment: the whole environment; None inherits ours.
        with_parent: end it with SIGKILL when we end without a chance to stop it.
        stdin: what it reads; nothing by default.
        niceness: added to our scheduling niceness, so that work in the background stays there.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        with_parent: bool = True,
        stdin: int = subprocess.DEVNULL,
        niceness: int = 0,
    ) -> None:
        self.name = name
        self.log = log
        argv = [str(part) for part in argv]
        prepare = _prepare(die_with(os.getpid()) if with_parent else None, niceness)
        if prepare is not None and threading.current_thread() is not threading.main_thread():
            # Not by our own code between fork and exec: where another thread computes, OpenBLAS never lets it fork.
            parent = os.getpid() if with_parent and _libc is not None else 0
            argv, prepare = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(parent), str(niceness), *argv], None
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                cwd=directory,
                start_new_session=True,
                preexec_fn=prepare,  # noqa: PLW1509  it calls prctl and nice alone, which take no lock
            )

    @property
    def pid(self) -> int:
        """The process id, which is its process group's id too."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def require_running(self) -> None:
        """Raise :class:`UnavailableError` with the log's last lines if it has ended."""
        code = self.process.poll()
        if code is not None:
            raise UnavailableError(f"{self.name} ended with {describe_exit(code)}; {tail(self.log)}")

    def stop(self, timeout: float = 15.0) -> None:
        """End it: SIGTERM, then after ``timeout`` seconds SIGKILL to its whole group. Idempotent.

        One that was seen to have ended is left alone: its number, and so its group's, may be another program's by now.
        """
        if not self.running:
            return
        self.process.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout)
        finally:  # also when the wait is interrupted
            kill_group(self.pid)
            self.process.wait()


class Servers(ABC):
    """What one or more children do together, from start to stop: a context manager.

    Start and stop it from a thread that outlives it: the children end with that thread.

    Args:
        logs: the folder of their log files.
        ready_timeout: seconds that each may take to become ready.
        stop_timeout: seconds that each may take to end.
    """

    def __init__(self, logs: Path, *, ready_timeout: float = 120.0, stop_timeout: float = 10.0) -> None:
        self.logs = logs
        self._ready_timeout = ready_timeout
        self._stop_timeout = stop_timeout
        self._children: list[Child] = []
        self._held = ExitStack()

    @abstractmethod
    def _start(self) -> None:
        """Spawn the children and wait until they are ready."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start and return when all is ready; a start that fails or is interrupted leaves nothing running.

        Raises:
            UnavailableError: a child ended or was not ready in time; with the end of its log.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the children, the last one first. Bounded, idempotent."""
        while self._children:
            self._children.pop().stop(self._stop_timeout)
        self._held.close()

    def require_running(self) -> None:
        """Raise :class:`UnavailableError` with a log's end if a child has ended."""
        for child in self._children:
            child.require_running()

    def _free_port(self, host: str) -> int:
        """A port of ``host`` for one of the children; on Linux nobody else is given it until all have stopped."""
        port = self._held.enter_context(held_port(host))
        if _libc is None:  # elsewhere a child cannot listen where we hold
            self._held.close()
        return port

    def _spawn(
        self, name: str, argv: Sequence[str | Path], log: str, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start one more, with our environment unless it has its own; its log is a file of that name, emptied."""
        path = self.logs / log
        path.unlink(missing_ok=True)
        child = Child(name, argv, log=path, environment=environment)
        self._children.append(child)
        return child

    def _wait(self, child: Child, ready: Callable[[], bool]) -> None:
        """Wait until ``child`` is ready, as long as all of them run."""

        def holds() -> bool:
            self.require_running()
            return ready()

        try:
            wait_until(holds, what=child.name, timeout=self._ready_timeout)
        except UnavailableError as error:
            if child.running:
                raise UnavailableError(f"{error}; {tail(child.log)}") from error
            raise


def _prepare(first: Callable[[], None] | None, niceness: int) -> Callable[[], None] | None:
    if not niceness:
        return first

    def run() -> None:
        os.nice(niceness)
        if first is not None:
            first()

    return run


def kill_group(group: int) -> None:
    """Send SIGKILL to every process of ``group``; none left is fine."""
    with suppress(ProcessLookupError, PermissionError):  # macOS says "not permitted" for a group of zombies
        os.killpg(group, signal.SIGKILL)


def describe_exit(code: int) -> str:
    """Say a return code in words: ``status 1`` or ``signal SIGKILL``."""
    if code >= 0:
        return f"status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal without a name
        return f"signal {-code}"


def tail(log: Path, lines: int = 12) -> str:
    """Quote the last ``lines`` of ``log``, with its path."""
    try:
        text = log.read_text(errors="replace").rstrip()
    except FileNotFoundError:
        return f"it wrote no log ({log})"
    if not text:
        return f"its log is empty ({log})"
    return f"the end of {log}:\n" + "\n".join(text.splitlines()[-lines:])


def wait_until(ready: Callable[[], bool], *, what: str, timeout: float, interval: float = 0.05) -> None:
    """Poll ``ready`` until it is true; raise :class:`UnavailableError` naming ``what`` after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > end:
            raise UnavailableError(f"{what} was not ready after {timeout:.0f} s")
        time.sleep(interval)


def answers(url: str, trusting: ssl.SSLContext | None = None) -> bool:
    """Whether a server of this machine answers a GET of ``url`` that it is well, or that it does not know who asks."""
    opener = urllib.request.build_opener(  # loopback is not behind the proxy that the user's environment may name
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting)
    )
    try:
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    except OSError:
        return False
