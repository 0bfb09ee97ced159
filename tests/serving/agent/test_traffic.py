"""What clients ask during a roll-out, counted on the real Triton: theirs, since the window began, and nothing else."""

import asyncio

import numpy as np
import pytest
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

from gravswell.serving.agent.health import InferenceCounts
from gravswell.serving.agent.traffic import NOTHING, Count
from gravswell.serving.agent.triton import TritonControl
from gravswell.serving.contracts import Canary, DesiredModel, ModelReport, Traffic

from .running import Running, until
from .versions import WIDTH, picky_graph, publish

BAD = 1000.0
"""What :func:`picky_graph` cannot take."""


def loaded(running: Running) -> int | None:
    found = running.report_of("scale")
    return found.loaded_version if found is not None else None


def ask(address: str, value: float, times: int) -> None:
    with http.InferenceServerClient(address) as client:
        for _ in range(times):
            x = np.full((1, WIDTH), value, np.float32)
            tensor = http.InferInput("x", list(x.shape), "FP32")
            tensor.set_data_from_numpy(x)
            try:
                client.infer("scale", [tensor])
            except InferenceServerException:
                assert value == BAD


async def test_requests_of_the_window_are_counted_and_the_agents_own_are_not(agent, triton, repository):
    first = publish(repository, "scale", 1, 1.0)
    second = publish(repository, "scale", 2, 2.0, graph=picky_graph(2.0))

    def told() -> Traffic | None:
        found = running.report_of("scale")
        return found.traffic if found is not None else None

    def counted(window: str) -> tuple[int, int] | None:
        found = told()
        return (found.succeeded, found.failed) if found is not None and found.window == window else None

    async def asked(value: float, times: int) -> None:
        await asyncio.to_thread(ask, triton.http_address, value, times)

    def rolling(window: str, *pods: str) -> DesiredModel:
        canary = Canary(version=2, digest=second, pods=pods, window=window, seconds=0.1)
        return DesiredModel(name="scale", version=1, digest=first, canary=canary)

    async with agent() as running:
        running.desire(DesiredModel(name="scale", version=1, digest=first))
        await running.serves("scale", 1)
        await asked(1.0, 5)
        assert told() is None, "nothing is counted at rest"

        running.desire(rolling("w1"))  # another replica's turn: this one is what that is compared with
        await until(lambda: counted("w1") == (0, 0), "the window has begun, and what was asked before is not in it")
        await asked(1.0, 7)
        await until(lambda: counted("w1") == (7, 0), "what clients asked is told")
        found = told()
        assert found is not None
        assert 0 < found.seconds < 7

        running.desire(rolling("w2", "agent"))  # its own turn
        await until(lambda: counted("w2") == (0, 0), "the new version serves, and its proofs are not counted")
        assert running.ledger.works["scale"].model.version == 2
        await asked(2.0, 3)
        await asked(BAD, 4)
        await until(lambda: counted("w2") == (3, 4), "failures are told, too")
        own = running.ledger.serving["scale"].probed_at
        await until(lambda: running.ledger.serving["scale"].probed_at > own, "the agent probes")
        await asyncio.sleep(0.5)  # several looks
        # Just now Triton may have counted a probe whose answer the agent waits for; what was counted never goes again.
        await until(lambda: counted("w2") == (3, 4), "the agent's own are not told")

        running.desire(DesiredModel(name="scale", version=1, digest=first))  # rolled back
        await running.serves("scale", 1)
        assert told() is None
        running.desire(rolling("w3", "agent"))  # and tried again: Triton counts the version from its new load on
        await until(lambda: counted("w3") == (0, 0), "the version is loaded again")
        await asked(2.0, 2)
        await until(lambda: counted("w3") == (2, 0), "only what was asked since")


async def test_counts_are_of_what_is_loaded_and_of_the_window_whatever_happens_in_it(
    agent, triton, repository, monkeypatch
):
    first, second = (publish(repository, "scale", number, float(number)) for number in (1, 2))

    def rolling(*pods: str, seconds: float = 0.1) -> DesiredModel:
        canary = Canary(version=2, digest=second, pods=pods, window="w", seconds=seconds)
        return DesiredModel(name="scale", version=1, digest=first, canary=canary)

    def counted(report: ModelReport | None) -> int | None:
        return report.traffic.succeeded if report is not None and report.traffic is not None else None

    async with agent() as running:
        running.desire(DesiredModel(name="scale", version=1, digest=first))
        await running.serves("scale", 1)
        running.desire(rolling())
        await until(lambda: counted(running.report_of("scale")) == 0, "the window has begun")
        await asyncio.to_thread(ask, triton.http_address, 1.0, 9)
        await until(lambda: counted(running.report_of("scale")) == 9, "what was asked of the old version is told")
        counts, looking = TritonControl.counts, asyncio.Event()

        async def slow(self: TritonControl, model: str, version: int) -> InferenceCounts:
            found = await counts(self, model, version)
            looking.set()
            await until(lambda: running.ledger.works["scale"].model.version == 2, "the new version is wanted")
            return found

        monkeypatch.setattr(TritonControl, "counts", slow)  # a look at the old version is under way
        await asyncio.wait_for(looking.wait(), 60)
        running.desire(rolling("agent", seconds=600.0))  # in place of a replica that was lost; no look for long
        await until(lambda: loaded(running) == 2, "the new version serves")
        assert counted(running.report_of("scale")) is None, "what was asked of the old version is not the new one's"
        await asyncio.to_thread(ask, triton.http_address, 2.0, 4)
        running.desire(rolling("agent"))
        await until(lambda: counted(running.report_of("scale")) == 4, "all that was asked of it, from its load on")

    async with agent() as running:  # it has not looked at Triton yet when it hears of the roll-out
        await until(lambda: counted(running.report_of("scale")) is not None, "it counts again")
        assert counted(running.report_of("scale")) == 0, "how much of that was in the window, it cannot know"


@pytest.mark.parametrize(
    ("looks", "own", "succeeded", "failed"),
    [
        ([(5, 1)], (0, 0), 5, 1),
        ([(5, 1), (9, 1)], (2, 0), 7, 1),
        ([(5, 1), (2, 0)], (0, 0), 7, 1),  # Triton began anew
        ([(1, 0)], (2, 0), 0, 0),  # told by us before Triton has counted it
    ],
)
def test_counts_add_up_over_loads(looks, own, succeeded, failed):
    count = Count("w", "key", NOTHING, NOTHING)
    for ok, bad in looks:
        count.add(InferenceCounts(ok, bad, ok * 10**9))
    traffic = count.traffic(InferenceCounts(*own, own[0] * 10**9))
    assert (traffic.succeeded, traffic.failed, traffic.seconds) == (succeeded, failed, float(succeeded))
