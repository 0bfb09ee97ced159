"""Where the time of a replica's start goes, as its agent sees it: each moment is one stage's, until it is ready."""

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from gravswell.serving.agent.work import Work
from gravswell.serving.contracts import Start, StartStage


def now() -> datetime:
    """The wall clock, in UTC, to the millisecond."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


_ORDER = (StartStage.DOWNLOAD, StartStage.LOAD, StartStage.WARM_UP)


def stage_of(works: Iterable[Work]) -> StartStage:
    """What a start waits for: the earliest stage that a model which was not tried yet is in."""
    stages = {work.stage for work in works if not work.attempted}
    return next((stage for stage in _ORDER if stage in stages), StartStage.START)


class Startup:
    """The account of one replica's start. It is closed for good when the replica is first ready.

    ``before`` is what an earlier agent of the same pod noted: a container that restarts is no start of the replica, and
    what was noted of one that was not over goes on.
    """

    def __init__(self, before: Start | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        began = now()
        self.told = before or Start(began=began, since=began)
        """The account so far, up to the last change of the stage."""

    def look(self, works: Iterable[Work], *, ready: bool, downloaded: int) -> bool:
        """Take note of what is under way now, ``downloaded`` bytes in all so far; True where the stage is a new one."""
        told = self.told
        if told.stage is None:
            return False
        stage = None if ready else stage_of(works)
        if stage is told.stage:
            return False
        seconds, passed = dict(told.seconds), self._clock()
        if told.stage is not StartStage.START:  # which is what the others leave
            seconds[told.stage] = round(seconds.get(told.stage, 0.0) + passed - self._since, 3)
        self._since = passed
        self.told = Start(began=told.began, stage=stage, since=now(), seconds=seconds, downloaded=downloaded)
        return True
