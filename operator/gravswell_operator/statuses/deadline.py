"""How long the ranks of a server may take to start: a StatefulSet has no limit of its own, as a Deployment has."""

from dataclasses import replace
from datetime import datetime

from gravswell_operator import conditions
from gravswell_operator.api import Condition, ConditionStatus
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.server import start_seconds
from gravswell_operator.statuses import loading, ranks
from gravswell_operator.statuses.serverview import ServerView


def begun(view: ServerView, now: datetime) -> float | None:
    """From when on the ranks start, in seconds since 1970: the server goes on, or its newest pod was made if that is
    later. What is overdue stays so until they are in service, or until a pod is made anew: it began long ago.

    None where nobody waits: they do not start, or have nothing to serve.
    """
    if view.group is None or view.blocker is not None or loading.nothing_to_serve(view) is not None:
        return None
    if ranks.finding(view.server, view.group).reason is not Reason.STARTING:
        return None
    before: Condition | None = next(
        (one for one in view.server.status.conditions if one.type == conditions.PROGRESSING), None
    )
    overdue = before is not None and before.reason == Reason.PROGRESS_DEADLINE_EXCEEDED
    if before is None or not (overdue or before.status is ConditionStatus.TRUE):
        return now.timestamp()
    since = datetime.fromisoformat(before.last_transition_time).timestamp()
    newest = max((pod.times.created for pod in view.pods), default=0)
    if overdue and newest <= since:
        return 0.0
    return max(since, newest)


def held(view: ServerView, begun: float, now: datetime) -> tuple[ServerView, float | None]:
    """The view of ranks that have :func:`begun` to start, overdue where their time is over, and after how many seconds
    it will be; None where it is."""
    assert view.group is not None
    limit = start_seconds(view.server)
    left = limit - (now.timestamp() - begun)
    if left > 0:
        return view, left
    return replace(view, group=replace(view.group, overdue=limit)), None
