"""Where the time of a replica's start went, or goes."""

from datetime import UTC, datetime, timedelta

import pytest

from gravswell.serving.contracts import ModelReport, ModelState, Report, Start, StartStage
from gravswell_operator.api.startup import Stage, StartupStatus
from gravswell_operator.conditions import Reason
from gravswell_operator.state import PodTimes, Problem
from gravswell_operator.state import pod as parse_pod
from gravswell_operator.statuses.serverview import ServerView
from gravswell_operator.statuses.startup import SHOWN_AFTER, advance

T0 = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATE = T0 + timedelta(hours=1)


def at(seconds: float | None) -> int | None:
    return None if seconds is None else int(T0.timestamp() + seconds)


def times(created=0, scheduled=None, prepared=None, started=None, ready=None, triton=None) -> PodTimes:
    return PodTimes(at(created), at(scheduled), at(prepared), at(started), at(ready), at(triton))


def report(pod: str, start: Start | None, *models: ModelReport) -> Report:
    return Report(pod=pod, start=start, models=models)


def start(began: float, since: float, stage: StartStage | None = None, **seconds: float) -> Start:
    spent = {StartStage(name): value for name, value in seconds.items()}
    moment = T0 + timedelta(seconds=since)
    return Start(began=T0 + timedelta(seconds=began), stage=stage, since=moment, seconds=spent, downloaded=104_857_600)


@pytest.fixture
def view(resource):
    def make(*pods, reports=(), before: StartupStatus | None = None, **parts):
        server = resource("InferenceServer")
        if before is not None:
            server = server.model_copy(update={"status": server.status.model_copy(update={"startup": before})})
        said = {one.pod: one for one in reports}
        return ServerView(server=server, repository=None, pool=None, pods=pods, reports=said, **parts)

    return make


def stages(status: StartupStatus | None) -> dict[str, float]:
    assert status is not None
    return {stage.name.value: stage.seconds for stage in status.stages}


COLD = times(scheduled=40, prepared=42, started=60, ready=75)
OVER = start(61, 73.5, Download=4.2, Load=3.1, WarmUp=0.4)


def test_every_second_of_a_start_is_of_one_stage(view, pod):
    said = advance(view(pod(times=COLD), reports=[report("p-1", OVER)]), LATE).status
    assert stages(said) == {
        "Provisioning": 40.0,
        "Volumes": 2.0,
        "Image": 18.0,
        "Start": 5.8,
        "Download": 4.2,
        "Load": 3.1,
        "WarmUp": 0.4,
    }
    assert said is not None
    assert (said.stage, said.seconds, said.blocker, said.downloaded) == (Stage.READY, 73.5, "", 104_857_600)
    assert sum(stages(said).values()) == pytest.approx(said.seconds)
    assert (said.started, said.since) == ("2026-01-02T03:04:05Z", "2026-01-02T03:05:18Z")


def test_an_agent_that_says_nothing_of_starts_leaves_them_to_the_pod(view, pod):
    said = advance(view(pod(times=COLD)), LATE).status
    assert stages(said) == {"Provisioning": 40.0, "Volumes": 2.0, "Image": 18.0, "Start": 15.0}
    assert said is not None
    assert (said.seconds, said.downloaded) == (75.0, 0)


def test_a_start_is_over_when_its_agent_has_said_so(view, pod):
    said = report("p-1", start(61, 70, StartStage.WARM_UP, Download=4.2), WAITING)
    found = advance(view(pod(times=COLD), reports=[said]), LATE).status
    assert found is not None
    assert (found.stage, found.seconds) == (Stage.WARM_UP, None)


WAITING = ModelReport(name="digits", state=ModelState.DOWNLOADING, desired_version=3)


@pytest.mark.parametrize(
    ("pod_times", "expected"),
    [
        (times(scheduled=1, started=3, ready=4), {"Provisioning": 1.0, "Image": 2.0, "Start": 70.5}),
        # Every container was started again, so their first begin is the agent's own.
        (times(scheduled=1, prepared=2), {"Provisioning": 1.0, "Volumes": 1.0, "Image": 59.0, "Start": 12.5}),
        # The node was started again, and made the network anew.
        (
            times(scheduled=1, prepared=500, started=9, ready=600),
            {"Provisioning": 1.0, "Volumes": 8.0, "Image": 0.0, "Start": 64.5},
        ),
        # The clocks of the control plane and of the node differ.
        (
            times(scheduled=9, prepared=5, started=7),
            {"Provisioning": 7.0, "Volumes": 0.0, "Image": 0.0, "Start": 66.5},
        ),
    ],
    ids=["no network told", "restarted containers", "restarted node", "clocks that differ"],
)
def test_what_the_pod_does_not_tell_is_not_made_up(view, pod, pod_times, expected):
    said = advance(view(pod(ready=False, times=pod_times), reports=[report("p-1", start(61, 73.5))]), LATE).status
    assert stages(said) == expected
    assert said is not None
    assert said.seconds == 73.5


NO_NODE = Problem(Reason.POD_UNSCHEDULABLE, "pod p-1 cannot be scheduled: 0/3 nodes are available")
NO_IMAGE = Problem(Reason.IMAGE_PULL_FAILED, "container triton of pod p-1: no such image")


@pytest.mark.parametrize(
    ("pod_times", "problem", "said", "stage", "since", "passed", "words"),
    [
        (times(), None, None, Stage.PROVISIONING, 0, {}, "pod p-1 waits for the scheduler"),
        (times(), NO_NODE, None, Stage.PROVISIONING, 0, {}, NO_NODE.message),
        (
            times(scheduled=9),
            None,
            None,
            Stage.VOLUMES,
            9,
            {"Provisioning": 9.0},
            "node n mounts the volumes of pod p-1",
        ),
        (
            times(scheduled=9, prepared=11),
            None,
            None,
            Stage.IMAGE,
            11,
            {"Provisioning": 9.0, "Volumes": 2.0},
            "node n pulls the images of pod p-1",
        ),
        (
            times(scheduled=9, prepared=11),
            NO_IMAGE,
            None,
            Stage.IMAGE,
            11,
            {"Provisioning": 9.0, "Volumes": 2.0},
            NO_IMAGE.message,
        ),
        (
            times(scheduled=9, started=11),
            None,
            None,
            Stage.START,
            11,
            {"Provisioning": 9.0, "Image": 2.0},
            "the agent of pod p-1 has not reported yet",
        ),
        (
            times(scheduled=9, started=11),
            None,
            report("p-1", start(12, 12, StartStage.START)),
            Stage.START,
            12,
            {"Provisioning": 9.0, "Image": 2.0},
            "was not told yet what to serve",
        ),
        (
            times(scheduled=9, started=11),
            None,
            report("p-1", start(12, 14.5, StartStage.DOWNLOAD), WAITING),
            Stage.DOWNLOAD,
            14,
            {"Provisioning": 9.0, "Image": 2.0, "Start": 3.5},
            "version 3 of digits: Downloading",
        ),
        (
            times(scheduled=9, started=11),
            None,
            report("p-1", start(12, 30, StartStage.WARM_UP, Download=10.0, Load=4.0), WAITING),
            Stage.WARM_UP,
            30,
            {"Provisioning": 9.0, "Image": 2.0, "Start": 5.0, "Download": 10.0, "Load": 4.0},
            "version 3 of digits: Downloading",
        ),
    ],
)
def test_what_is_under_way_has_a_blocker_in_words(view, pod, pod_times, problem, said, stage, since, passed, words):
    unready = pod(ready=False, times=pod_times, problem=problem, node="n")
    found = advance(view(unready, reports=[said] if said is not None else []), LATE)
    assert found.status is not None
    assert (found.status.stage, found.status.seconds, found.after) == (stage, None, None)
    assert datetime.fromisoformat(found.status.since) == T0 + timedelta(seconds=since)
    assert stages(found.status) == passed
    assert words in found.status.blocker


def test_the_pool_says_why_no_node_comes(view, pod, resource):
    away = {
        "type": "Ready",
        "status": "False",
        "reason": "NodesPending",
        "message": "node-b: its machine is being made",
    }
    away |= {"lastTransitionTime": "2026-01-02T03:04:05Z"}
    pool = resource("GPUNodePool", {"status": {"conditions": [away]}})
    made = view(pod(ready=False, times=times()))
    found = advance(ServerView(**{**vars(made), "pool": pool}), LATE).status
    assert found is not None
    assert found.blocker.endswith("GPUNodePool pool: node-b: its machine is being made")


def test_a_start_of_a_moment_is_told_when_it_is_over(view, pod):
    young = pod(ready=False, times=times())
    found = advance(view(young), T0 + timedelta(seconds=1))
    assert (found.status, found.after) == (None, SHOWN_AFTER - 1)
    assert advance(view(young), T0 + timedelta(seconds=SHOWN_AFTER)).status is not None
    before = advance(view(pod("p-0", times=times(-99, -98, -97, -96, -95))), LATE).status
    assert advance(view(young, before=before), T0 + timedelta(seconds=1)).status == before
    assert advance(view(young), T0 - timedelta(seconds=60)).status is not None, (
        "a clock that was set back hides nothing"
    )


def test_what_was_told_of_a_start_stays(view, pod):
    told = advance(view(pod(times=COLD), reports=[report("p-1", OVER)]), LATE).status
    flapped = pod(times=times(scheduled=40, prepared=42, started=60, ready=9000))
    crashed = pod(ready=False, times=times(scheduled=40), problem=Problem(Reason.CRASH_LOOP, "it ends"))
    older = pod("p-0", times=times(-500, -499, -499, -498, -490))
    for pods in ([flapped], [crashed], [older, flapped], []):
        assert advance(view(*pods, before=told), LATE).status == told
    newer = pod("p-2", times=times(100, 101, 102, 103, 109))
    replaced = advance(view(flapped, newer, before=told), LATE).status
    assert replaced is not None
    assert (replaced.pod, replaced.seconds) == ("p-2", 9.0)


def test_it_is_written_together_with_what_the_controller_counts(view, pod, workload):
    assert advance(view(pod(times=COLD), workload=workload(1, 0)), LATE).status is None
    assert advance(view(pod(times=COLD), workload=workload(1, 1)), LATE).status is not None


def test_of_several_the_one_under_way_for_longest_and_then_the_slowest_of_the_last(view, pod):
    first = pod("p-1", ready=False, times=times(0, 1))
    second = pod("p-2", ready=False, times=times(0, 2))
    third = pod("p-3", times=times(7, 8, 8, 9, 10))
    found = advance(view(third, second, first), LATE).status
    assert found is not None
    assert (found.pod, found.stage) == ("p-1", Stage.VOLUMES)
    done = [pod("p-1", times=times(0, 1, 1, 2, 30)), pod("p-2", times=times(0, 2, 2, 3, 20))]
    over = advance(view(*done, before=found), LATE).status
    assert over is not None
    assert (over.pod, over.seconds) == ("p-1", 30.0)
    gone = advance(view(before=found), LATE).status
    assert gone is None, "a start that was under way goes with its pod"


def test_the_times_of_a_pod_are_read_from_its_status():
    ran = {"running": {"startedAt": "2026-01-02T03:04:15Z"}}
    ended = {"terminated": {"startedAt": "2026-01-02T03:04:14Z", "exitCode": 1}}
    true = {"status": "True"}
    body = {
        "metadata": {"name": "p", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "status": {
            "conditions": [
                {"type": "PodScheduled", "lastTransitionTime": "2026-01-02T03:04:06Z", **true},
                {"type": "PodReadyToStartContainers", "lastTransitionTime": "2026-01-02T03:04:07Z", **true},
                {"type": "Ready", "lastTransitionTime": "2026-01-02T03:04:30Z", "status": "False"},
            ],
            "containerStatuses": [
                {"name": "triton", "state": ran, "restartCount": 0},
                {"name": "agent", "state": ended, "restartCount": 0},
            ],
        },
    }
    assert parse_pod(body).times == times(scheduled=1, prepared=2, started=10, triton=10)
    first, second = body["status"]["containerStatuses"]
    body["status"]["containerStatuses"] = [{**first, "restartCount": 2}, second]
    assert parse_pod(body).times.started == at(9), "when one that was started again began first is not known"
    body["status"]["containerStatuses"] = [first, {**second, "state": {"waiting": {"reason": "ContainerCreating"}}}]
    assert parse_pod(body).times.started is None
    assert parse_pod({"metadata": {"name": "p"}}).times == PodTimes()
