"""One container through its restarts: start, probes, hooks, back-off, end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gravswell.errors import GravswellError
from gravswell_operator.devcluster.node.images import UnknownImageError
from gravswell_operator.devcluster.node.launch import Launch
from gravswell_operator.devcluster.node.probes import Outcome, Target, Thresholds, attempt, http_get
from gravswell_operator.devcluster.node.process import Process
from gravswell_operator.devcluster.node.states import State
from gravswell_operator.devcluster.processes import tail

log = logging.getLogger(__name__)

Document = dict[str, Any]

BACK_OFF = (1.0, 60.0)
"""First and longest wait before a restart, in seconds. A kubelet's are 10 and 300; here somebody is watching."""

_RESET_AFTER = 600.0  # seconds of running after which the back-off starts anew, as a kubelet's
_RETRY_SECONDS = 2.0

_LOST: Document = {
    "exitCode": 137,
    "reason": "ContainerStatusUnknown",
    "message": "its process ended together with an earlier run of the local node",
}


@dataclass(frozen=True)
class Surroundings:
    """What a container needs of its pod."""

    address: str
    logs: Path
    policy: str
    grace: float
    prepare: Callable[[Document], Awaitable[Launch]]
    tell: Callable[[str, str, bool], None]
    changed: Callable[[], None]


class Container:
    """Runs ``spec``; ``state`` is always what is true of it."""

    def __init__(self, spec: Document, around: Surroundings, *, before: Document | None = None) -> None:
        self.spec = spec
        self.state = State(spec["name"], spec["image"])
        self.begun = asyncio.Event()
        """Set once it counts as started: its startup probe succeeded, or it has none."""
        self._around = around
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._policy = spec.get("restartPolicy", around.policy)
        self._earlier: int | None = None  # exit code of its run under an earlier node agent
        if before and before.get("containerID"):
            ended = (before.get("state") or {}).get("terminated") or _LOST
            self.state.waiting, self.state.terminated = None, ended
            self.state.identity = before["containerID"]
            self.state.restarts = before.get("restartCount", 0)
            self._earlier = ended["exitCode"]

    @property
    def settled(self) -> bool:
        """Whether an earlier run was its last by the restart policy, so that there is nothing to run again."""
        return self._earlier is not None and not self._again(self._earlier)

    async def run(self) -> int:
        """Run it until the restart policy is satisfied or :meth:`stop` is called; return the last exit code."""
        wait = BACK_OFF[0]
        restarted = False
        if self._earlier is not None:
            self.state.restarts += 1
        while True:
            began = asyncio.get_running_loop().time()
            code = await self._once()
            if self._stopping.is_set() or not self._again(code):
                return code
            if asyncio.get_running_loop().time() - began > _RESET_AFTER:
                wait, restarted = BACK_OFF[0], False
            if restarted:  # the first restart is immediate
                message = f"back-off {wait:.0f}s restarting failed container={self.spec['name']}"
                self.state.wait("CrashLoopBackOff", message)
                self._around.changed()
                self._around.tell("BackOff", f"Back-off restarting failed container {self.spec['name']}", True)
                await self._pause(wait)
                wait = min(wait * 2, BACK_OFF[1])
            restarted = True
            if self._stopping.is_set():
                return code
            self.state.restarts += 1

    async def stop(self, grace: Callable[[], float]) -> None:
        """End it for good, within ``grace()`` seconds, its preStop hook included."""
        self._stopping.set()
        if self._process is not None and not self._process.exit.done():
            self._around.tell("Killing", f"Stopping container {self.spec['name']}", False)
            await self._process.end(grace, self._hook("preStop"))

    def _again(self, code: int) -> bool:
        return self._policy == "Always" or (self._policy == "OnFailure" and code != 0)

    async def _once(self) -> int:
        launch = await self._prepared()
        if launch is None:
            return 0
        name = self.spec["name"]
        logs = self._around.logs / f"{name}.log"
        if self.state.restarts and logs.exists():
            logs.replace(logs.with_name(f"{name}.previous.log"))
        try:
            self._process = process = await Process.start(launch, logs)
        except OSError as error:
            message = f"cannot start {launch.argv[0] if launch.argv else 'nothing'!r}: {error.strerror}"
            self.state.end(128, reason="StartError", message=message)
            self._around.tell("Failed", f"Error: {message}", True)
            self._around.changed()
            return 128
        if self._stopping.is_set():  # the pod's end came while it was being started
            await process.sweep()
        self.state.run(f"gravswell-local://{process.pid}")
        self._around.tell("Started", f"Container started: {name}", False)
        self._around.changed()
        watching = asyncio.create_task(self._watch(process))
        try:
            code = await asyncio.shield(process.exit)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await process.sweep()
        number = -code if code < 0 else None
        exit_code = 128 + number if number is not None else code
        self.state.end(exit_code, signal=number, message=self._last_words(exit_code, logs))
        self._around.changed()
        return exit_code

    async def _prepared(self) -> Launch | None:
        """Return how to start it, waiting as long as something that it needs is missing; None when stopped before."""
        while not self._stopping.is_set():
            try:
                return await self._around.prepare(self.spec)
            except UnknownImageError as error:
                reason, message = "ErrImagePull", str(error)
            except (GravswellError, OSError) as error:
                reason, message = "CreateContainerConfigError", str(error)
            if self.state.waiting != (reason, message):
                self.state.wait(reason, message)
                self._around.tell("Failed", f"Error: {reason}: {message}", True)
                self._around.changed()
            await self._pause(_RETRY_SECONDS)
        return None

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _last_words(self, code: int, logs: Path) -> str:
        if code != 0 and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            return tail(logs)[-2048:]
        return ""

    async def _watch(self, process: Process) -> None:
        """Run the lifecycle hook and the probes of a running container."""
        started = self._hook("postStart", process)
        if started is not None and not await started():
            await self._condemn("FailedPostStartHook", process)
            return
        if "startupProbe" in self.spec and not await self._startup(process):
            return
        self.state.started = True
        self.begun.set()
        if "readinessProbe" not in self.spec:
            self.state.ready = True
        self._around.changed()
        loops = [loop(process) for kind, loop in self._loops() if kind in self.spec]
        await asyncio.gather(*loops)

    def _loops(self) -> tuple[tuple[str, Callable[[Process], Awaitable[None]]], ...]:
        return (("readinessProbe", self._readiness), ("livenessProbe", self._liveness))

    async def _startup(self, process: Process) -> bool:
        async for passed in self._verdicts("startupProbe", process):
            if passed:
                return True
            await self._fail("startup", process)
            return False
        return False

    async def _readiness(self, process: Process) -> None:
        async for passed in self._verdicts("readinessProbe", process):
            if passed != self.state.ready:
                self.state.ready = passed
                self._around.changed()

    async def _liveness(self, process: Process) -> None:
        async for passed in self._verdicts("livenessProbe", process):
            if not passed and not self._stopping.is_set():
                await self._fail("liveness", process)
                return

    async def _verdicts(self, kind: str, process: Process) -> AsyncIterator[bool]:
        probe = self.spec[kind]
        label = kind.removesuffix("Probe").capitalize()
        counted = Thresholds(probe)
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        while True:
            outcome = await self._attempt(probe, process)
            if not outcome.success:
                self._around.tell("Unhealthy", f"{label} probe failed: {outcome.message}", True)
            verdict = counted.update(outcome.success)
            if verdict is not None:
                yield verdict
            await asyncio.sleep(probe.get("periodSeconds", 10))

    async def _attempt(self, probe: Document, process: Process) -> Outcome:
        try:
            return await attempt(probe, self._target(process))
        except GravswellError as error:  # a probe that cannot be right fails, and says why
            return Outcome(False, str(error))

    async def _fail(self, kind: str, process: Process) -> None:
        grace = self.spec[f"{kind}Probe"].get("terminationGracePeriodSeconds")
        message = f"Container {self.spec['name']} failed {kind} probe, will be restarted"
        await self._condemn(message, process, grace)

    async def _condemn(self, message: str, process: Process, grace: float | None = None) -> None:
        """End ``process`` as unfit, within ``grace`` seconds (the pod's by default); the restart policy goes on."""
        self._around.tell("Killing", message, False)
        end = asyncio.get_running_loop().time() + (self._around.grace if grace is None else grace)
        hook = self._hook("preStop")
        # In a task of its own: the process's end cancels the probes, and with them this very call.
        ending = asyncio.create_task(process.end(lambda: end - asyncio.get_running_loop().time(), hook))
        await asyncio.shield(ending)

    def _target(self, process: Process) -> Target:
        return Target(self.spec, self._around.address, process.run)

    def _hook(self, name: str, process: Process | None = None) -> Callable[[], Awaitable[bool]] | None:
        action = (self.spec.get("lifecycle") or {}).get(name)
        running = process or self._process
        if action is None or running is None:
            return None

        async def run() -> bool:
            try:
                outcome = await self._act(action, running)
            except GravswellError as error:
                outcome = Outcome(False, str(error))
            if not outcome.success:
                label = name[0].upper() + name[1:]
                self._around.tell(f"Failed{label}Hook", f"{label}Hook failed: {outcome.message}", True)
            return outcome.success

        return run

    async def _act(self, action: Document, process: Process) -> Outcome:
        if "sleep" in action:
            await asyncio.sleep(action["sleep"]["seconds"])
            return Outcome(True)
        if "httpGet" in action:
            return await http_get(action["httpGet"], self._target(process))
        if "exec" in action:
            code, output = await process.run(list(action["exec"]["command"]))
            return Outcome(code == 0, f"command exited with {code}: {output[-500:]}")
        return Outcome(False, f"a hook by {', '.join(action)} is not offered by the local node")
