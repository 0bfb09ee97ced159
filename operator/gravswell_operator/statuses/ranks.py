"""A group of ranks: what each lacks, whether they may take traffic together, and what of partitions they serve."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gravswell.serving.contracts import Desired, DesiredModel, ModelReport, ModelState, Report
from gravswell_operator import conditions, names
from gravswell_operator.api import ConditionStatus, InferenceServer
from gravswell_operator.api.inferenceserver import RankStatus
from gravswell_operator.conditions import Finding, Reason, count
from gravswell_operator.state import PodState


@dataclass(frozen=True)
class Rank:
    """One rank of a group."""

    number: int
    pod: str
    """Its pod's name, whether there is one or not."""
    lacks: str = ""
    """Why it keeps the group out of service, in words; empty where it does not."""
    failed: bool = False
    """It was tried, and will not do by waiting."""


@dataclass(frozen=True)
class Group:
    """All ranks of a server."""

    ranks: tuple[Rank, ...]
    whole: tuple[DesiredModel, ...]
    """The partitions that all ranks serve."""
    rolling: tuple[str, ...] = ()
    """Entries of which some rank is to serve another version than it does."""
    stopping: bool = False
    """All are to stop, and to start again from the server's latest specification."""
    overdue: int | None = None
    """The seconds that they had to start, where these are over."""

    @property
    def in_service(self) -> bool:
        """Whether clients may be sent to the ranks: each is ready, they serve some partition, and of none two versions.

        A further partition that does not load yet takes nothing away from those that do.
        """
        return bool(self.whole) and not self.lacking and not self.rolling and not self.stopping

    @property
    def lacking(self) -> list[Rank]:
        """The ranks that keep the group out of service."""
        return [rank for rank in self.ranks if rank.lacks]


def group_of(
    server: InferenceServer,
    told: Desired | None,
    pods: Sequence[PodState],
    reports: Mapping[str, Report],
    rolling: Sequence[str] = (),
    *,
    stopping: bool = False,
) -> Group:
    """The ranks of ``server``, which were ``told`` what to serve, and whether all of them are to stop.

    ``rolling`` are the entries of which they will be told another version as soon as none of them takes traffic.
    """
    assert server.spec.ranks is not None
    models = told.models if told is not None else ()
    ranks: list[Rank] = []
    without: dict[str, list[_Lack]] = {model.name: [] for model in models}
    stale = set(rolling)
    for number in range(server.spec.ranks):
        name = names.rank_pod(server.metadata.name, number)
        pod = next((pod for pod in pods if pod.name == name), None)
        report = current_report(pod, reports)
        ranks.append(_up(number, name, pod, report, server))
        for model in models:
            for part in model.of_rank(number):
                said = _said(part, report)
                if said is not None and _serves(part, said):
                    continue
                without[model.name].append(_lack(number, part, said))
                if said is not None and said.loaded_version is not None and not said.has_loaded(part):
                    stale.add(model.name)
    whole = tuple(model for model in models if model.parts and not without[model.name])
    for model in models:
        if whole and model.name not in stale:
            continue  # its own conditions tell of it
        for lack in without[model.name]:
            rank = ranks[lack.rank]
            if rank.lacks and not lack.is_told:
                continue  # that it waits follows from what it lacks
            lacks = f"{rank.lacks}; {lack.why}" if rank.lacks else lack.why
            ranks[lack.rank] = replace(rank, lacks=lacks, failed=rank.failed or lack.failed)
    return Group(tuple(ranks), whole, tuple(sorted(stale)), stopping)


def current_report(pod: PodState | None, reports: Mapping[str, Report]) -> Report | None:
    """What the pod says of itself, not what another one of its name said before it."""
    report = reports.get(pod.name) if pod is not None else None
    if pod is None or report is None or (pod.rank is not None and report.uid != pod.rank.uid):
        return None
    return report


def _up(number: int, name: str, pod: PodState | None, report: Report | None, server: InferenceServer) -> Rank:
    """The rank, whatever it serves."""
    if pod is None:
        made = f"kubectl describe statefulset {server.metadata.name} says why, if that lasts"
        return Rank(number, name, f"there is no pod {name}; {made}")
    if pod.terminating or pod.finished:
        return Rank(number, name, f"pod {name} is going")
    if pod.problem is not None:
        return Rank(number, name, pod.problem.message, failed=True)
    if pod.rank is None or not pod.rank.containers_ready:
        return Rank(number, name, f"the containers of pod {name} are not ready")
    if report is None:
        return Rank(number, name, f"the agent of pod {name} has not reported yet")
    return Rank(number, name)


def _said(part: DesiredModel, report: Report | None) -> ModelReport | None:
    return report.of(part.name) if report is not None else None


def _serves(part: DesiredModel, said: ModelReport) -> bool:
    """Whether it answers, and rightly: also while it is loaded anew with other instances or devices."""
    return said.has_loaded(part) and said.is_about(part) and (said.state is ModelState.SERVING or said.verified)


@dataclass(frozen=True)
class _Lack:
    """A part that a rank does not serve."""

    rank: int
    why: str
    failed: bool
    is_told: bool
    """The agent itself says why."""


def _lack(rank: int, part: DesiredModel, said: ModelReport | None) -> _Lack:
    failed = said is not None and said.state is ModelState.FAILED and said.is_about(part)
    is_told = failed or (said is not None and bool(said.message))
    return _Lack(rank, _why_not(part, said), failed, is_told)


def _why_not(part: DesiredModel, said: ModelReport | None) -> str:
    what = f"{part.name} version {part.version}"
    if said is None or not said.is_about(part):
        why = f"{what}: {ModelState.WAITING}"
    else:
        why = f"{what}: " + ": ".join(filter(None, (said.state, said.reason, said.message)))
    if said is not None and said.loaded_version not in (None, part.version):
        why += f" (version {said.loaded_version} is loaded)"
    return why


def wholes(told: Desired | None, pods: Sequence[PodState], reports: Mapping[str, Report]) -> dict[str, Report]:
    """The reports of a group's pods, as if each said of the partitions what it says of its parts of them."""
    found = {}
    models = [model for model in told.models if model.parts] if told is not None else []
    for pod in pods:
        report = current_report(pod, reports)
        if report is not None and pod.rank is not None:
            # A rank that is of no partition, such as a pod that somebody added by hand, has no part and says nothing.
            said = tuple(_whole(model, pod.rank.number, report) for model in models if model.of_rank(pod.rank.number))
            found[pod.name] = report.model_copy(update={"models": said})
    return found


def _whole(model: DesiredModel, rank: int, report: Report) -> ModelReport:
    """What the rank says of the partition: what the part says that is furthest behind."""
    parts = model.of_rank(rank)
    said = [_said(part, report) for part in parts]
    current = [one if one is not None and one.is_about(part) else None for part, one in zip(parts, said, strict=True)]
    serving = all(one is not None and _serves(part, one) for part, one in zip(parts, current, strict=True))
    behind = min(current, key=_advance)
    message = behind.message if behind is not None else ""
    return ModelReport(
        name=model.name,
        state=behind.state if behind is not None else ModelState.WAITING,
        desired_version=model.version,
        desired_digest=model.digest,
        loaded_version=model.version if serving else None,
        loaded_digest=model.digest if serving else None,
        verified=serving and all(one is not None and one.verified for one in current),
        reason=behind.reason if behind is not None else "",
        message=f"{behind.name}: {message}" if behind is not None and message else message,
        seconds=_slowest(current),
        downloaded=sum(one.downloaded for one in current if one is not None),
    )


def _slowest(said: Sequence[ModelReport | None]) -> dict[str, float]:
    """Of each step, what the slowest part took: a rank's parts go side by side."""
    found: dict[str, float] = {}
    for one in said:
        for step, seconds in one.seconds.items() if one is not None else ():
            found[step] = max(seconds, found.get(step, 0.0))
    return found


_STAGES = (
    ModelState.FAILED,
    ModelState.WAITING,
    ModelState.DOWNLOADING,
    ModelState.VERIFYING,
    ModelState.LOADING,
    ModelState.SERVING,
)


def _advance(said: ModelReport | None) -> int:
    return _STAGES.index(said.state if said is not None else ModelState.WAITING)


def finding(server: InferenceServer, group: Group) -> Finding:
    """The condition RanksReady: which rank is missing, and why."""
    ranks = count(len(group.ranks), "rank")
    if group.in_service:
        served = ", ".join(f"version {model.version} of {model.name}" for model in group.whole)
        return Finding(conditions.RANKS_READY, True, Reason.ALL_RANKS_READY, f"{ranks} serve {served}")
    told = [f"rank {rank.number}: {rank.lacks}" for rank in group.lacking]
    up = f"{len(group.ranks) - len(told)} of {ranks} ready"
    over = _under_way(group)
    if any(rank.failed for rank in group.ranks):
        reason, up = Reason.RANK_NOT_READY, f"{up}, so none takes traffic"
    elif over:
        reason, up = Reason.ROLLING_OUT, f"{up}, and none takes traffic while all {over}"
    else:
        reason = Reason.RANK_NOT_READY if _was_in_service(server) else Reason.STARTING
        if group.overdue is not None:
            reason, up = Reason.PROGRESS_DEADLINE_EXCEEDED, f"{up} after {group.overdue // 60} min"
        up, told = f"{up}, so none takes traffic", told or ["they have nothing to serve"]
    return Finding(conditions.RANKS_READY, False, reason, "; ".join([up, *told]))


def _under_way(group: Group) -> str:
    """What all ranks are about to do, as somebody wanted; empty for nothing."""
    if group.stopping:
        return "stop, to start again from the latest specification"
    return f"go over to another version of {', '.join(group.rolling)}" if group.rolling else ""


def _was_in_service(server: InferenceServer) -> bool:
    """Whether a rank that is not ready is a loss, and not one that was not there yet."""
    before = next((c for c in server.status.conditions if c.type == conditions.RANKS_READY), None)
    return before is not None and (before.status is ConditionStatus.TRUE or before.reason == Reason.RANK_NOT_READY)


def fields(server: InferenceServer, group: Group) -> dict[str, object]:
    """The status of each rank, by the names of the API."""
    return {
        "readyRanks": len(group.ranks) - len(group.lacking),
        "ranks": [status.to_dict() for status in _statuses(server, group)],
    }


def _statuses(server: InferenceServer, group: Group) -> Iterator[RankStatus]:
    name, namespace = server.metadata.name, server.metadata.namespace
    for rank in group.ranks:
        yield RankStatus(
            rank=rank.number,
            pod=rank.pod,
            address=names.rank_address(name, namespace, rank.number),
            ready=not rank.lacks,
            message=conditions.shorten(rank.lacks),
        )
