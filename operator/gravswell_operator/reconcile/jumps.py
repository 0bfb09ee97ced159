"""The machine's clock, set while a roll-out or the start of ranks is timed.

A status tells its times by that clock, since they hold through restarts. While this process runs, a monotonic clock
knows better how much time has passed: where the machine's was set meanwhile, the times move with it.
"""

from datetime import datetime, timedelta

from gravswell_operator import conditions
from gravswell_operator.api import Model
from gravswell_operator.api.rollout import RolloutStatus
from gravswell_operator.cluster.cache import Key, Record
from gravswell_operator.reconcile.context import Context
from gravswell_operator.statuses.rollout import TIMES, moved

JUMP = timedelta(seconds=2)
"""Less is left alone: it harms nothing, and would be a write."""


def undone(context: Context, record: Record) -> Model:
    """The Model, each time of its roll-out moved as far as the clock was set since :func:`remember` saw it first.

    Not while it is suspended: then its times stand still, and are moved by all that the clock went on meanwhile.
    """
    model: Model = record.view
    if any(condition.type == conditions.SUSPENDED for condition in model.status.conditions):
        return model
    ahead, seen = _ahead(context), context.ahead.get(record.key, {})

    def jump(stamp: str) -> timedelta:
        by = ahead - seen.get(stamp, ahead)
        return by if abs(by) >= JUMP else timedelta()

    return moved(model, jump)


def remember(context: Context, key: Key, *rollouts: RolloutStatus | None) -> None:
    """How far the clock is ahead now, for each time in what was read and in what is to be written that is new."""
    ahead, seen = _ahead(context), context.ahead.pop(key, {})
    stamps = {getattr(rollout, name) for rollout in rollouts if rollout is not None for name in TIMES} - {None}
    if stamps:
        context.ahead[key] = {stamp: seen.get(stamp, ahead) for stamp in stamps}


def steady(context: Context, key: Key, begun: float | None) -> datetime:
    """Now, by the clock as it was when the ranks of a server that have ``begun`` to start were seen first.

    Their times are others' and are not moved: a condition says when it was written, and a pod when it was made.
    """
    now, ahead, seen = context.now(), _ahead(context), context.starting.pop(key, None)
    if begun is None:
        return now
    if seen is None or seen[0] != int(begun):
        seen = int(begun), ahead
    context.starting[key] = seen
    return now - (ahead - seen[1])


def _ahead(context: Context) -> timedelta:
    """The machine's clock less the monotonic one: it changes when somebody sets the one, and never by itself."""
    return timedelta(seconds=context.now().timestamp() - context.clock())
