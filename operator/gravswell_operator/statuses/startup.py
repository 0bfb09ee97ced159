"""``status.startup``: the account of a replica's start, from the pod's times and from what its agent says.

Each moment from the pod's creation until the replica was ready counts for one stage. What a pod's times do not tell is
not told: how long a node pulled, and how long it made containers, the kubelet says in events only.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from gravswell.serving.contracts import ModelState, Report, Start, StartStage
from gravswell_operator import conditions
from gravswell_operator.api.startup import Stage, StageStatus, StartupStatus
from gravswell_operator.conditions import Reason
from gravswell_operator.state import PodState, Problem
from gravswell_operator.statuses.ranks import current_report
from gravswell_operator.statuses.serverview import ServerView, pool_words

SHOWN_AFTER = 3.0
"""Seconds that a start is under way before it is told: one that takes less needs no blocker, and is told when it is
over."""

_SHOWN_MODELS = 3


@dataclass(frozen=True)
class Next:
    """What the status says of the start, and after how many seconds it may change by itself."""

    status: StartupStatus | None
    after: float | None = None


@dataclass(frozen=True)
class _Begun:
    """One replica's start, as far as it is known."""

    pod: PodState
    report: Report | None

    @property
    def agent(self) -> Start | None:
        """What its agent says of it."""
        return self.report.start if self.report is not None else None

    @property
    def ended(self) -> float | None:
        """When it was over; None before. An agent that says nothing of starts is of an earlier release.

        That the pod is ready is not enough: the probe may see it before the agent's last word of the start is here.
        """
        if self.agent is None:
            return self.pod.times.ready
        return self.agent.since.timestamp() if self.agent.stage is None else None

    @property
    def order(self) -> tuple[int, str]:
        return self.pod.times.created, self.pod.name


def advance(view: ServerView, now: datetime) -> Next:
    """What the status says of starts now."""
    before = view.server.status.startup
    starts = [_Begun(pod, current_report(pod, view.reports)) for pod in view.pods if pod.active]
    under_way = [start for start in starts if start.ended is None and not _is_over(before, start)]
    if under_way:
        first = min(under_way, key=lambda start: start.order)
        left = SHOWN_AFTER - (now.timestamp() - first.pod.times.created)
        if 0 < left <= SHOWN_AFTER:
            return Next(_of(before, starts), left)
        return Next(_under_way(view, first))
    over = [_over(start, start.ended) for start in starts if start.ended is not None]
    last = max(over, key=lambda status: (status.started, status.seconds, status.pod), default=None)
    if last is None or (before is not None and before.stage is Stage.READY and before.started >= last.started):
        return Next(_of(before, starts))
    return Next(last if _is_counted(view) else _of(before, starts))


def _is_counted(view: ServerView) -> bool:
    """Whether the controller has counted who is ready: what follows from that and this are one write, not two."""
    return view.workload is None or view.workload.ready >= sum(pod.ready and pod.active for pod in view.pods)


def _is_over(before: StartupStatus | None, start: _Begun) -> bool:
    """Whether the status has told already how this start went: a replica that is no longer ready does not start."""
    return (
        before is not None
        and before.stage is Stage.READY
        and (before.pod, before.started) == (start.pod.name, _stamp(start.pod.times.created))
    )


def _of(before: StartupStatus | None, starts: list[_Begun]) -> StartupStatus | None:
    """What was told, as long as it is true: a start that was under way goes with its pod."""
    if before is None or before.stage is Stage.READY or before.pod in {start.pod.name for start in starts}:
        return before
    return None


def _stamp(moment: float) -> str:
    return conditions.stamp(datetime.fromtimestamp(moment, UTC))


def _over(start: _Begun, ended: float) -> StartupStatus:
    whole = round(max(ended - start.pod.times.created, 0.0), 1)
    known = dict(_cluster_stages(start))
    started = sum(known.values())
    agents = _agent_stages(start)
    rest = round(max(whole - started - sum(agents.values()), 0.0), 1)
    stages = {**known, Stage.START: rest, **agents}
    return StartupStatus(
        pod=start.pod.name,
        started=_stamp(start.pod.times.created),
        stage=Stage.READY,
        since=_stamp(ended),
        seconds=round(sum(stages.values()), 1),
        downloaded=start.agent.downloaded if start.agent is not None else 0,
        stages=tuple(StageStatus(name=stage, seconds=seconds) for stage, seconds in stages.items()),
    )


def _cluster_stages(start: _Begun) -> Iterator[tuple[Stage, float]]:
    """The stages before the containers ran, as far as they are passed."""
    times, at = start.pod.times, start.pod.times.created
    begun = times.started
    if begun is None and start.agent is not None:  # they were all started again: the agent remembers its first begin
        begun = int(start.agent.began.timestamp())
    for stage, end in (
        (Stage.PROVISIONING, times.scheduled),
        (Stage.VOLUMES, times.prepared),
        (Stage.IMAGE, begun),
    ):
        if end is None:
            continue
        # A node that restarts makes the network again, which is then later than the containers' first begin.
        until = max(at, end if begun is None else min(end, begun))
        yield stage, float(until - at)
        at = until


def _agent_stages(start: _Begun) -> dict[Stage, float]:
    told: Mapping[StartStage, float] = start.agent.seconds if start.agent is not None else {}
    order = (StartStage.DOWNLOAD, StartStage.LOAD, StartStage.WARM_UP)
    return {Stage(stage.value): round(told[stage], 1) for stage in order if stage in told}


def _under_way(view: ServerView, start: _Begun) -> StartupStatus:
    times, agent = start.pod.times, start.agent
    stages = dict(_cluster_stages(start))
    if Stage.IMAGE in stages:
        stage, since = Stage.START, float(times.created + sum(stages.values()))
    elif times.prepared is not None:
        stage, since = Stage.IMAGE, float(times.prepared)
    elif times.scheduled is not None:
        stage, since = Stage.VOLUMES, float(times.scheduled)
    else:
        stage, since = Stage.PROVISIONING, float(times.created)
    if agent is not None and agent.stage is not None and stage is Stage.START:
        passed = _agent_stages(start)
        rest = agent.since.timestamp() - since - sum(passed.values())
        if agent.stage is not StartStage.START or passed:
            stages |= {Stage.START: round(max(rest, 0.0), 1), **passed}
        stage, since = Stage(agent.stage.value), agent.since.timestamp()
    return StartupStatus(
        pod=start.pod.name,
        started=_stamp(times.created),
        stage=stage,
        since=_stamp(since),
        blocker=conditions.shorten(_blocker(view, start, stage)),
        downloaded=agent.downloaded if agent is not None else 0,
        stages=tuple(StageStatus(name=name, seconds=seconds) for name, seconds in stages.items()),
    )


def _blocker(view: ServerView, start: _Begun, stage: Stage) -> str:
    """What the start waits for, in words that change only with the fact."""
    pod = start.pod
    if pod.problem is not None:
        return pod.problem.message + pool_words(view, pod.problem)
    more = f"; kubectl describe pod {pod.name} has the node's own words, if that lasts"
    if stage is Stage.PROVISIONING:
        waits = Problem(Reason.POD_UNSCHEDULABLE, f"pod {pod.name} waits for the scheduler")
        return waits.message + pool_words(view, waits)
    if stage is Stage.VOLUMES:
        return f"node {pod.node} mounts the volumes of pod {pod.name} and makes its network{more}"
    if stage is Stage.IMAGE:
        return f"node {pod.node} pulls the images of pod {pod.name} that it lacks, and makes its containers{more}"
    return _agents_words(pod, start.report)


def _agents_words(pod: PodState, report: Report | None) -> str:
    if report is None:
        return f"the agent of pod {pod.name} has not reported yet"
    if not report.models:
        return f"pod {pod.name} was not told yet what to serve"
    behind = [model for model in report.models if model.state is not ModelState.SERVING]
    told = [
        f"version {model.desired_version} of {model.name}: {': '.join(filter(None, (model.state, model.message)))}"
        for model in behind[:_SHOWN_MODELS]
    ]
    if len(behind) > _SHOWN_MODELS:
        told.append(f"and {len(behind) - _SHOWN_MODELS} more")
    return "; ".join(told) or f"pod {pod.name} serves, and is about to be ready"
