"""Container states and the pod status that follows from them: pure, so that every case can be a row of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Document = dict[str, Any]


def timestamp() -> str:
    """Return the present time as the API writes it: UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class State:
    """What is known of one container. Exactly one of ``waiting``, ``running`` and ``terminated`` is set."""

    name: str
    image: str
    waiting: tuple[str, str] | None = ("PodInitializing", "")
    """Reason and message."""
    running: str | None = None
    """Since when."""
    terminated: Document | None = None
    last: Document | None = None
    """The previous run's ``terminated``."""
    restarts: int = 0
    ready: bool = False
    started: bool = False
    identity: str = ""

    def wait(self, reason: str, message: str = "") -> None:
        """Be waiting, with a reason of the kubelet's vocabulary."""
        if self.terminated is not None:
            self.last = self.terminated
        self.waiting, self.running, self.terminated = (reason, message), None, None
        self.ready = self.started = False

    def run(self, identity: str) -> None:
        """Be running as process ``identity``."""
        if self.terminated is not None:
            self.last = self.terminated
        self.waiting, self.running, self.terminated = None, timestamp(), None
        self.identity = identity

    def end(self, code: int, *, reason: str = "", message: str = "", signal: int | None = None) -> None:
        """Be terminated with exit ``code``."""
        now = timestamp()
        ended: Document = {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "startedAt": self.running or now,
            "finishedAt": now,
            "containerID": self.identity,
        }
        if message:
            ended["message"] = message
        if signal is not None:
            ended["signal"] = signal
        self.waiting, self.running, self.terminated = None, None, ended
        self.ready = self.started = False


@dataclass(frozen=True)
class Facts:
    """Everything that a pod's status is computed from."""

    pod: Document
    containers: Sequence[State]
    initializers: Sequence[State] = ()
    """The init containers that run to their end, in order."""
    sidecars: Sequence[State] = ()
    """The init containers that keep running (``restartPolicy: Always``)."""
    address: str = ""
    host: str = ""
    since: str = ""
    initialized: bool = False
    now: str = field(default_factory=timestamp)


def status(facts: Facts) -> Document:
    """Return the pod's status. Conditions keep their transition times where their status did not change."""
    phase = _phase(facts)
    result: Document = {
        "phase": phase,
        "hostIP": facts.host,
        "hostIPs": [{"ip": facts.host}],
        "startTime": facts.since,
        "conditions": _conditions(facts, phase),
        "containerStatuses": [_describe(state) for state in facts.containers],
    }
    if facts.address:
        result |= {"podIP": facts.address, "podIPs": [{"ip": facts.address}]}
    if facts.initializers or facts.sidecars:
        order = [c["name"] for c in facts.pod["spec"].get("initContainers") or ()]
        states = sorted([*facts.initializers, *facts.sidecars], key=lambda state: order.index(state.name))
        result["initContainerStatuses"] = [
            _describe(state, initializer=state in facts.initializers) for state in states
        ]
    return result


def _phase(facts: Facts) -> str:
    policy = facts.pod["spec"].get("restartPolicy", "Always")
    failed_early = policy == "Never" and any(s.terminated and s.terminated["exitCode"] for s in facts.initializers)
    if failed_early:
        return "Failed"
    if not facts.initialized or any(s.waiting and s.last is None for s in facts.containers):
        return "Pending"
    if policy != "Always" and all(state.terminated for state in facts.containers):
        codes = [state.terminated["exitCode"] for state in facts.containers if state.terminated]
        if not any(codes):
            return "Succeeded"
        if policy == "Never":
            return "Failed"
    return "Running"


def _conditions(facts: Facts, phase: str) -> list[Document]:
    done = phase == "Succeeded"
    ended = phase in {"Succeeded", "Failed"}
    unready = [state.name for state in (*facts.sidecars, *facts.containers) if not state.ready]
    why = "PodCompleted" if done else "PodFailed" if ended else "ContainersNotReady"
    message = "" if ended else f"containers with unready status: [{' '.join(unready)}]"
    containers_ready = not unready and not ended
    gates = [gate["conditionType"] for gate in facts.pod["spec"].get("readinessGates") or ()]
    present = {c["type"]: c for c in (facts.pod.get("status") or {}).get("conditions") or ()}
    closed = [gate for gate in gates if present.get(gate, {}).get("status") != "True"]
    ready_why, ready_message = (why, message)
    if containers_ready and closed:
        ready_why = "ReadinessGatesNotReady"
        ready_message = f"corresponding condition of pod readiness gate {closed[0]!r} is not true"
    waiting = [s.name for s in facts.initializers if not (s.terminated and s.terminated["exitCode"] == 0)]
    started = bool(facts.address)
    rows = [
        ("PodReadyToStartContainers", started and not ended, "", ""),
        (
            "Initialized",
            facts.initialized,
            "ContainersNotInitialized",
            f"containers with incomplete status: [{' '.join(waiting)}]",
        ),
        ("Ready", containers_ready and not closed, ready_why, ready_message),
        ("ContainersReady", containers_ready, why, message),
    ]
    return [
        {
            "type": kind,
            "status": "True" if good else "False",
            "lastProbeTime": None,
            "lastTransitionTime": _since(present.get(kind), good, facts.now),
            "reason": None if good else reason or None,
            "message": None if good else text or None,
        }
        for kind, good, reason, text in rows
    ]


def _since(before: Mapping[str, Any] | None, good: bool, now: str) -> str:
    """Return since when a condition has its value: from before if that was the same."""
    if before is None or (before.get("status") == "True") != good:
        return now
    return str(before.get("lastTransitionTime") or now)


def _describe(state: State, *, initializer: bool = False) -> Document:
    now: Document
    if state.running is not None:
        now = {"running": {"startedAt": state.running}}
    elif state.terminated is not None:
        now = {"terminated": state.terminated}
    else:
        reason, message = state.waiting or ("ContainerCreating", "")
        now = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
    finished = initializer and state.terminated is not None and state.terminated["exitCode"] == 0
    return {
        "name": state.name,
        "image": state.image,
        "imageID": f"gravswell-local://{state.image}" if state.identity else "",
        "containerID": state.identity,
        "ready": finished if initializer else state.ready,
        "started": state.started,
        "restartCount": state.restarts,
        "state": now,
        "lastState": {"terminated": state.last} if state.last is not None else {},
    }
