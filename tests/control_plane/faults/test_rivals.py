"""Two operators at once: exactly one acts, however the other was stopped, and whatever the clocks on the wall say."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from gravswell_operator.cluster.lease import LEASE_SECONDS

from ..operating import OperatorProcess, wait_until
from .busy import assert_same
from .proxy import Proxy, Seen

WAIT_SECONDS = 180
LOST = 7
"""How an operator ends that has lost its lease."""

_JUMPING = """
import datetime, itertools
from gravswell_operator import runtime
jumps = itertools.cycle(map(lambda hours: datetime.timedelta(hours=hours), (0, 36, -36, 1, -1)))
runtime._now = lambda: datetime.datetime.now(datetime.UTC) + next(jumps)
from gravswell.cli import main
main()
"""


class Jumping(OperatorProcess):
    """An operator whose clock on the wall jumps by hours whenever it looks at it."""

    program = ("-c", _JUMPING)


@dataclass
class Rival:
    """An operator, and its own way to the API server."""

    process: OperatorProcess
    proxy: Proxy

    def waits(self) -> bool:
        return self.process.log.exists() and "holds the lease" in self.process.log.read_text()

    def writes(self, since: float = 0.0) -> list[Seen]:
        """What it changed, or tried to, but for the lease."""
        return [s for s in list(self.proxy.seen) if s.at >= since and s.asked.writes and s.asked.plural != "leases"]

    def renewals(self) -> list[float]:
        """When it wrote the lease, or tried to."""
        return [s.at for s in list(self.proxy.seen) if s.asked.writes and s.asked.plural == "leases"]


class Rivals:
    """Operators that are started by the test, in place of the one of all tests."""

    def __init__(self, cluster, kubeconfig: Path, folder: Path, stack: ExitStack) -> None:
        self._cluster, self._kubeconfig, self._folder, self._stack = cluster, kubeconfig, folder, stack
        self.all: list[Rival] = []

    def start(self, kind: type[OperatorProcess] = OperatorProcess) -> Rival:
        number = len(self.all)
        proxy = self._stack.enter_context(Proxy(self._cluster))
        process = kind(proxy.kubeconfig(self._kubeconfig, self._folder / str(number)), self._folder / f"{number}.log")
        process.start(wait=False)
        self.all.append(Rival(process, proxy))
        return self.all[-1]


@pytest.fixture
def rivals(cluster, kubeconfig, operator, tmp_path) -> Iterator[Rivals]:
    operator.end()
    with ExitStack() as stack:
        made = Rivals(cluster, kubeconfig, tmp_path, stack)
        yield made
        for rival in made.all:
            child = rival.process._child
            if child is not None and child.running:
                child.process.send_signal(signal.SIGCONT)  # where the test failed before it did
                rival.process.stop()  # which gives the lease back: the next operator need not wait for its time to pass
            log = rival.process.log.read_text()
            assert "a fault of the operator" not in log, log
    operator.begin()


def test_one_that_was_stopped_does_nothing_once_another_has_the_lease(busy, undisturbed, rivals):
    first = rivals.start()
    wait_until(first.process.is_ready, WAIT_SECONDS)
    second = rivals.start()
    wait_until(second.waits, WAIT_SECONDS)
    with ThreadPoolExecutor(1) as users:
        working = users.submit(busy.work, 0.8)
        time.sleep(4)
        wait_until(first.writes, WAIT_SECONDS)
        assert not second.writes()
        child = first.process._child
        child.process.send_signal(signal.SIGSTOP)
        wait_until(second.process.is_ready, WAIT_SECONDS)
        assert second.renewals()[0] - first.renewals()[-1] >= LEASE_SECONDS
        wait_until(second.writes, WAIT_SECONDS)
        assert max(seen.at for seen in first.writes()) < min(seen.at for seen in second.writes())
        child.process.send_signal(signal.SIGCONT)
        awake = time.monotonic()
        assert child.process.wait(WAIT_SECONDS) == LOST, first.process.log.read_text()[-2000:]
        assert not [str(seen.asked) for seen in first.writes(awake)]
        # And one that is killed gives nothing back: the next one waits for its time to pass.
        third = rivals.start()
        wait_until(third.waits, WAIT_SECONDS)
        second.process.stop(signal.SIGKILL)
        killed = time.monotonic()
        wait_until(third.process.is_ready, WAIT_SECONDS)
        working.result()
    assert min(seen.at for seen in third.writes()) > killed
    assert_same(busy.settled(lambda: None), undisturbed.state)


def test_a_clock_on_the_wall_that_jumps_makes_no_second_leader(busy, undisturbed, rivals):
    leader = rivals.start(Jumping)
    wait_until(leader.process.is_ready, WAIT_SECONDS)
    other = rivals.start()
    wait_until(other.waits, WAIT_SECONDS)
    begin = time.monotonic()
    busy.work(0.2)
    assert_same(busy.settled(lambda: None), undisturbed.state)
    time.sleep(max(0.0, LEASE_SECONDS + 5 - (time.monotonic() - begin)))
    assert leader.process.is_ready()
    assert not other.process.is_ready()
    assert not other.writes()
    assert leader.process.stop() == 0
    wait_until(other.process.is_ready, WAIT_SECONDS)
