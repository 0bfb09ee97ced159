"""The machine's clock, set while a roll-out, the start of ranks or a pool that nobody uses is timed.

A status tells its times by that clock, since they hold through restarts. While this process runs, a monotonic clock
knows better how much time has passed: where the machine's was set meanwhile, the times move with it.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from gravswell_operator import conditions
from gravswell_operator.api import GPUNodePool, Model
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
    return moved(model, _jump(context, record.key))


def unused_since(context: Context, record: Record) -> GPUNodePool:
    """The pool, the time since when nobody uses it moved as far as the clock was set since :func:`note` saw it."""
    pool: GPUNodePool = record.view
    if (since := pool.status.idle_since) is None:
        return pool
    later = conditions.stamp(datetime.fromisoformat(since) + _jump(context, record.key)(since))
    return pool.model_copy(update={"status": pool.status.model_copy(update={"idle_since": later})})


def remember(context: Context, key: Key, *rollouts: RolloutStatus | None) -> None:
    """:func:`note` the times of what was read and of what is to be written."""
    note(context, key, *(getattr(rollout, name) for rollout in rollouts if rollout is not None for name in TIMES))


def note(context: Context, key: Key, *stamps: str | None) -> None:
    """How far the clock is ahead now, for each time that is new; what is not among ``stamps`` is forgotten."""
    ahead, seen = _ahead(context), context.ahead.pop(key, {})
    if known := set(filter(None, stamps)):
        context.ahead[key] = {stamp: seen.get(stamp, ahead) for stamp in known}


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


def _jump(context: Context, key: Key) -> Callable[[str], timedelta]:
    """By how much each time that was noted of ``key`` is later by the clock as it is now."""
    ahead, seen = _ahead(context), context.ahead.get(key, {})

    def jump(stamp: str) -> timedelta:
        by = ahead - seen.get(stamp, ahead)
        return by if abs(by) >= JUMP else timedelta()

    return jump


def _ahead(context: Context) -> timedelta:
    """The machine's clock less the monotonic one: it changes when somebody sets the one, and never by itself."""
    return timedelta(seconds=context.now().timestamp() - context.clock())
