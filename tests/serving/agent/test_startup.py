"""Where the time of a replica's start goes, as its agent tells it. On the real Triton."""

import os
import time
from datetime import UTC, datetime

from gravswell.serving.agent.startup import Startup
from gravswell.serving.agent.work import Work
from gravswell.serving.contracts import DesiredModel, Report, Start, StartStage

from .running import PATIENCE, start_triton, until
from .test_restarts import model
from .versions import publish


def work(stage: StartStage, *, attempted: bool = False) -> Work:
    return Work(DesiredModel(name="m", version=1), stage=stage, attempted=attempted)


def test_each_moment_counts_for_the_earliest_stage_that_a_model_is_in():
    now = [0.0]
    startup = Startup(clock=lambda: now[0])

    def look(passed: float, *works: Work, ready: bool = False, downloaded: int = 0) -> bool:
        now[0] += passed
        return startup.look(works, ready=ready, downloaded=downloaded)

    assert startup.told.stage is StartStage.START
    assert not look(1, work(StartStage.START)), "nothing new"
    assert look(1, work(StartStage.DOWNLOAD), work(StartStage.LOAD))
    assert not look(2, work(StartStage.DOWNLOAD), work(StartStage.WARM_UP)), "the other one's is later"
    assert look(1, work(StartStage.START), work(StartStage.WARM_UP), downloaded=7)
    tried = work(StartStage.WARM_UP, attempted=True)
    assert look(0.5, work(StartStage.START), tried), "nobody waits for what was tried"
    assert look(4, work(StartStage.LOAD))
    assert look(0.25, work(StartStage.DOWNLOAD), downloaded=9)
    assert look(0.5, work(StartStage.START), ready=True, downloaded=10)
    over = startup.told
    assert over.seconds == {StartStage.DOWNLOAD: 3.5, StartStage.WARM_UP: 0.5, StartStage.LOAD: 0.25}
    assert (over.stage, over.downloaded) == (None, 10)
    assert not look(9, work(StartStage.DOWNLOAD))
    assert startup.told is over, "what comes later is no part of the start"


def test_an_agent_that_comes_again_goes_on_with_the_account():
    began = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    half = Start(began=began, stage=StartStage.LOAD, since=began, seconds={StartStage.DOWNLOAD: 4.0}, downloaded=3)
    startup = Startup(half)
    assert startup.look([work(StartStage.START)], ready=True, downloaded=3)
    assert startup.told.began == began
    assert startup.told.seconds[StartStage.DOWNLOAD] == 4.0
    assert Report.model_validate_json(Report(pod="p", start=startup.told).to_json()).start == startup.told
    assert Report.model_validate_json('{"pod": "p"}').start is None, "of an agent of an earlier release"


async def test_a_start_is_told_once_and_for_good(agent, triton, repository):
    digest = publish(repository, "scale", 1, 1.0)
    size = sum(path.stat().st_size for path in (repository / "scale/1").iterdir())
    began = time.monotonic()
    async with agent() as running:
        assert running.server.report().start.stage is StartStage.START
        running.desire(model(1, digest))
        report = await running.serves("scale", 1)
        await until(lambda: running.server.report().ready, "it is ready")
        passed = time.monotonic() - began
        start = running.server.report().start
        assert start.stage is None
        assert set(start.seconds) == {StartStage.DOWNLOAD, StartStage.LOAD, StartStage.WARM_UP}
        assert sum(start.seconds.values()) <= (start.since - start.began).total_seconds() + 0.01
        assert (start.since - start.began).total_seconds() <= passed + 0.01
        assert start.downloaded == report.downloaded == size
        assert report.seconds["download"] >= start.seconds[StartStage.DOWNLOAD] - 0.1
        loading = start.seconds[StartStage.LOAD] + start.seconds[StartStage.WARM_UP]
        assert report.seconds["verify"] + report.seconds["load"] + report.seconds["prove"] >= loading - 0.1
        assert start.began <= report.loaded_at <= start.since

        second = publish(repository, "scale", 2, 2.0)
        running.desire(model(2, second))
        await running.serves("scale", 2)
        assert running.server.report().start == start, "a roll-out is no start"
    async with agent() as running:
        await until(lambda: running.server.report().ready, "it is ready again")
        assert running.server.report().start == start, "nor is an agent's restart"


async def test_what_a_triton_of_before_had_loaded_is_older_than_the_one_of_now(agent, repository, models, ports):
    digest = publish(repository, "scale", 1, 1.0)
    with start_triton(models, ports=ports) as first:
        async with agent(triton_http=first.http_address, triton_grpc=first.grpc_address) as running:
            running.desire(model(1, digest))
            before = (await running.serves("scale", 1)).loaded_at
            os.kill(first.process.pid, 9)
            assert first.process.wait(PATIENCE)
            again = datetime.now(UTC)
            assert before < again
            with start_triton(models, ports=ports):

                def is_loaded() -> bool:
                    said = running.report_of("scale")
                    return said.loaded_at is not None and said.loaded_at != before

                await until(is_loaded, "it is loaded again")
                assert running.report_of("scale").loaded_at > again
