"""The operator is killed at random moments of a busy time: what is there in the end is what had been there without.

``GRAVSWELL_TEST_KILLS=300`` kills it that often, over as much busy time more.
"""

import asyncio
import multiprocessing
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gravswell_operator.desired.objects import Options
from gravswell_operator.runtime import DEFAULT_IMAGE, Config, run_operator

from ..operating import ROOT
from .busy import OWN, assert_same

SEED = 20261122
ROUND = 25
KILLS = int(os.environ.get("GRAVSWELL_TEST_KILLS", ROUND))
ALIVE_SECONDS = (0.05, 1.5)
"""How long an operator may live: from before its first look to well after its first writes."""


def operate(kubeconfig: str) -> None:
    """The operator in a process of its own. Without a lease, whose time a killed holder keeps it from the next."""
    options = Options(image=DEFAULT_IMAGE, network_policies=())  # as the one of all tests
    asyncio.run(run_operator(Config(kubeconfig=Path(kubeconfig), options=options), asyncio.Event()))


@pytest.fixture
def mortal(kubeconfig, operator, monkeypatch):
    """Starts operators that can be killed, with everything imported already, in place of the one of all tests."""
    # They import :func:`operate` by its name, and a dependency's ``tests`` may be on the path where ours are not.
    monkeypatch.syspath_prepend(ROOT)
    operator.end()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gravswell_operator.runtime"])
    started = []

    def start():
        process = context.Process(target=operate, args=(str(kubeconfig),), daemon=True)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join(30)
    operator.begin()


@pytest.mark.timeout(600 + 15 * KILLS)
def test_the_end_is_the_same_however_often_it_is_killed(busy, undisturbed, mortal):
    def work():
        for round_ in range(max(1, KILLS // ROUND)):
            if round_:  # all goes, and comes again under the same names while the last of it is still there
                busy.delete("gpunodepool", busy.pool)
                for kind in OWN:
                    busy.delete(kind)
            busy.work(0.5)

    random_ = random.Random(SEED)
    with ThreadPoolExecutor(1) as users:
        busy_time = users.submit(work)
        kills = 0
        while kills < KILLS or not busy_time.done():
            process = mortal()
            time.sleep(random_.uniform(*ALIVE_SECONDS))
            assert process.is_alive(), f"it ended by itself with {process.exitcode}"
            process.kill()
            process.join()
            kills += 1
        busy_time.result()
    process = mortal()
    begin = time.monotonic()
    state = busy.settled(lambda: _require(process))
    print(f"seed {SEED}: {kills} kills, settled after {time.monotonic() - begin:.0f} s")
    assert_same(state, undisturbed.state)


def _require(process):
    assert process.is_alive(), f"the operator ended by itself with {process.exitcode}"
