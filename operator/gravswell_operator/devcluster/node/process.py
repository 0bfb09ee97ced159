"""One run of one container: its process group, started with a log file and ended completely."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from gravswell_operator.devcluster.node.launch import MARK, Launch
from gravswell_operator.devcluster.processes import die_with, kill_group

log = logging.getLogger(__name__)

_OUTPUT_LIMIT = 10_000  # bytes kept of a probe's or hook's output
_SWEEPS = 10  # looks for strays; two are usual, the second of which finds none


class Process:
    """A running container. Made by :meth:`start`."""

    def __init__(self, process: asyncio.subprocess.Process, launch: Launch) -> None:
        self._process = process
        self._launch = launch
        self.exit = asyncio.create_task(self._process.wait())

    @classmethod
    async def start(cls, launch: Launch, output: Path) -> "Process":
        """Start ``launch`` with stdout and stderr in ``output``; OSError if its program cannot be started."""
        with output.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *launch.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=launch.directory,
                env=dict(launch.environment),
                start_new_session=True,
                preexec_fn=die_with(os.getpid()),
            )
        return cls(process, launch)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def run(self, command: list[str]) -> tuple[int, str]:
        """Run ``command`` beside it, as ``exec`` does: the same environment, folder and paths; 127 if there is none."""
        argv = [self._launch.rewrite(part) for part in command]
        try:
            child = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self._launch.directory,
                env=dict(self._launch.environment),
                start_new_session=True,
                preexec_fn=die_with(os.getpid()),
            )
        except OSError as error:
            return 127, f"{argv[0]}: {error.strerror}"
        try:
            output, _ = await child.communicate()
        finally:
            kill_group(child.pid)
        code = child.returncode
        assert code is not None, "communicate returns at the end of the process"
        return code, output[:_OUTPUT_LIMIT].decode(errors="replace")

    async def end(self, grace: Callable[[], float], hook: Callable[[], Awaitable[object]] | None = None) -> None:
        """End it: ``hook`` (preStop), SIGTERM, and SIGKILL when the grace period is over.

        ``grace`` returns the seconds that are left, and may return less when a deletion becomes more urgent. At least
        two seconds are left for SIGTERM after a hook that used them up, as on a real node, unless there was none.
        """
        if hook is not None and grace() > 0:
            await self._within(asyncio.ensure_future(hook()), grace)
        with suppress(ProcessLookupError):
            self._process.terminate()
        floor = asyncio.get_running_loop().time() + (2.0 if hook is not None and grace() <= 0 else 0.0)
        await self._within(self.exit, lambda: max(grace(), floor - asyncio.get_running_loop().time()))
        await self.sweep()

    async def sweep(self) -> None:
        """Kill what is left of its process group; a container ends with its first process."""
        kill_group(self.pid)
        await asyncio.shield(self.exit)

    async def _within(self, work: "asyncio.Future[Any]", grace: Callable[[], float]) -> None:
        """Wait for ``work`` or its process, at most the grace period; a hook that is late is cancelled."""
        while not work.done() and not self.exit.done() and (left := grace()) > 0:
            await asyncio.wait({work, self.exit}, timeout=min(left, 1.0), return_when=asyncio.FIRST_COMPLETED)
        if work is not self.exit and not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


def end_strays(directory: Path) -> int:
    """Kill what a node agent with folder ``directory`` left behind; return how many.

    A container's process dies with the agent, but what that process started does not, if the agent had no chance.
    """
    return kill_strays(f"{directory.resolve()}#")


def kill_strays(mark: str) -> int:
    """Kill every process whose environment carries a container mark that begins with ``mark``; return how many.

    It looks again until it finds none: a process may fork while the list of processes is read.
    """
    killed: set[int] = set()
    for _ in range(_SWEEPS):
        found = set(_marked(f"{MARK}={mark}".encode()))
        if not found:
            break
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
    return len(killed)


def _marked(wanted: bytes) -> Iterator[int]:
    processes = Path("/proc")
    if not processes.is_dir():  # not Linux, so there is no local node either
        return
    for entry in processes.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # it ended, or it is not ours
            continue
        if any(variable.startswith(wanted) for variable in variables):
            yield int(entry.name)
