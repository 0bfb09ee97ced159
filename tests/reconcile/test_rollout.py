"""Roll-outs in the engine: the Model's reconcile takes the steps, the server's tells the agents, and neither waits."""

from datetime import timedelta

import pytest

from gravswell.kube.errors import ApiUnavailableError
from gravswell.serving.contracts import DESIRED_KEY, Desired, ModelReport, ModelState, Report, Traffic
from gravswell_operator.cluster import resources

from .conftest import World, serve

STEPS = [{"replicas": 1, "pause": "10m"}, {"replicas": "50%", "pause": "Manual"}, {"replicas": "75%", "pause": "0s"}]
CANARY = {
    "strategy": "Canary",
    "canary": {"steps": STEPS, "judge": {"minRequests": 10}, "progressDeadline": "5m"},
}
NAMES = ("p-1", "p-2", "p-3", "p-4")


class Rollouts:
    """Four replicas, whose agents do at once what they are told."""

    def __init__(self, world):
        self.world = world
        self.asked = {}
        """What clients asked of the pods of a version since its window began: succeeded, failed."""
        self.failing = None
        """A reason: every agent that is told version 2 fails with it."""

    async def begin(self, versions=(1, 2), **rollout):
        world = self.world
        world.own(resources.MODEL, {"spec": {"entry": "my-model", "rollout": rollout or CANARY}})
        await world.settle()
        world.publish(1)
        await world.settle()
        for name in NAMES:
            self.pod(name)
        await self.settle()
        if versions != (1,):
            world.publish(2, 1)
            await self.settle()

    def pod(self, name, *, ready=True, deleted=False):
        metadata = {"name": name, "namespace": "ns", "labels": {"gravswell.dev/server": "server"}}
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        status = {"phase": "Running", "conditions": conditions}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": status}
        self.world.see(resources.POD, body, deleted=deleted)

    @property
    def told(self):
        found = self.world.get("ConfigMap", "server-desired")
        return Desired.model_validate_json(found["data"][DESIRED_KEY])

    def versions(self):
        """What each replica is told, by name."""
        (model,) = self.told.models
        return {name: model.on(name).version for name in NAMES}

    def new(self):
        return [name for name, version in self.versions().items() if version == 2]

    @property
    def status(self):
        return self.world.get("Model", "model")["status"]["rollout"]

    def report(self, name):
        (model,) = self.told.models
        own, canary = model.on(name), model.canary
        failed = self.failing is not None and own.version == 2
        loaded = 1 if failed else own.version
        traffic = None
        if canary is not None:
            succeeded, bad = self.asked.get(loaded, (0, 0))
            traffic = Traffic(window=canary.window, succeeded=succeeded, failed=bad)
        said = ModelReport(
            name="my-model",
            state=ModelState.FAILED if failed else ModelState.SERVING,
            desired_version=own.version,
            desired_digest=own.digest,
            loaded_version=loaded,
            loaded_digest=f"{loaded:064x}",
            reason=self.failing if failed else "",
            message="out of tune" if failed else "",
            verified=not failed,
            traffic=traffic,
        )
        return Report(pod=name, ready=True, models=(said,)).to_json()

    async def settle(self):
        """Until neither the operator nor an agent has anything new to say."""
        world = self.world
        for _ in range(20):
            await world.settle()
            found = world.get("ConfigMap", "server-report")
            pods = [n for n in NAMES if world.get("Pod", n) is not None]
            data = {**found.get("data", {}), **{name: self.report(name) for name in pods}}
            if data == found.get("data"):
                return
            world.see(resources.CONFIG_MAP, {**found, "data": data})
        raise AssertionError("it never settles")

    async def pass_by(self, **span):
        """Time passes; what is due by then is done."""
        self.world.pass_by(**span)
        await self.settle()

    def condition(self, type_="Ready"):
        found = self.world.condition("Model", "model", type_)
        return found["status"], found["reason"]


@pytest.fixture
def rollouts(served):
    return Rollouts(served)


async def test_a_canary_that_is_good_goes_through_its_steps(rollouts):
    await rollouts.begin(**CANARY)
    assert rollouts.new() == ["p-1"]
    assert rollouts.condition() == ("True", "Serving")
    assert rollouts.condition("Progressing") == ("True", "RollingOut")
    status = rollouts.status
    assert (status["from"], status["to"], status["step"], status["steps"]) == (1, 2, 1, 3)
    assert (status["state"], status["replicasUpdated"], status["replicas"]) == ("Progressing", 1, 1)
    assert status["progress"] == "1/4 Progressing"

    rollouts.asked = {1: (100, 0), 2: (9, 0)}
    await rollouts.pass_by(minutes=9)
    assert rollouts.new() == ["p-1"], "its pause is not over"
    await rollouts.pass_by(minutes=2)
    assert rollouts.new() == ["p-1"], "too few requests"
    assert "asked 90% of the 10 requests" in rollouts.status["message"]
    rollouts.asked[2] = (10, 0)
    await rollouts.settle()
    assert rollouts.new() == ["p-1", "p-2"]
    assert rollouts.status["state"] == "Paused"
    assert rollouts.condition("Progressing") == ("True", "RolloutPaused")
    await rollouts.pass_by(days=3)
    assert rollouts.new() == ["p-1", "p-2"], "it waits for somebody"

    rollouts.world.change(resources.MODEL, "model", rollout={**CANARY, "promote": 2})
    await rollouts.settle()
    assert rollouts.new() == list(NAMES)
    assert not rollouts.told.canaries
    status = rollouts.status
    assert (status["state"], status["replicasUpdated"], status["from"]) == ("Complete", 4, 1)
    assert rollouts.condition() == ("True", "Serving")
    told = [event for event in rollouts.world.events.told if event.startswith("Model")]
    assert [
        reason for event in told if (reason := event.split()[1]) in ("RollingOut", "RolloutPaused", "Promoted")
    ] == [
        "RollingOut",
        "RollingOut",
        "RolloutPaused",
        "Promoted",
    ]


async def test_at_rest_nothing_is_written(rollouts):
    await rollouts.begin(**CANARY)
    rollouts.world.api.writes.clear()
    await rollouts.pass_by(minutes=5)
    rollouts.world.restart()
    await rollouts.settle()
    assert [write for write in rollouts.world.api.writes if not write.startswith("get")] == []
    assert rollouts.new() == ["p-1"], "a restart forgets nothing"


class Kill:
    """Ends the operator before its request ``number``: nothing of it reaches the API server from there on."""

    def __init__(self, rollouts, number):
        self.rollouts, self.number, self.requests = rollouts, number, 0
        rollouts.world.api.refuse = self._refuse

    def _refuse(self, _words):
        self.requests += 1
        return ApiUnavailableError("killed") if self.requests >= self.number else None

    @property
    def killed(self):
        return self.requests >= self.number

    async def settle(self):
        """Where the operator is killed meanwhile, another one is started, with nothing but what is stored."""
        await self.rollouts.settle()
        if self.killed:
            self.rollouts.world.api.refuse = lambda _: None
            self.rollouts.world.restart()
            await self.rollouts.settle()


async def _through_all_steps(rollouts, settle):
    """Which replicas serve version 2, time after time."""
    seen = [rollouts.new()]
    rollouts.world.publish(2, 1)
    await settle()
    seen.append(rollouts.new())
    rollouts.asked = {1: (100, 0), 2: (10, 0)}
    for minutes in (1, 11, 1, 11):
        rollouts.world.pass_by(minutes=minutes)
        await settle()
        seen.append(rollouts.new())
    rollouts.world.change(resources.MODEL, "model", rollout={**CANARY, "promote": 2})
    await settle()
    return [*seen, rollouts.new()]


async def _and_back(rollouts, settle):
    rollouts.world.publish(2, 1)
    await settle()
    seen = [rollouts.new()]
    rollouts.asked = {1: (100, 0), 2: (8, 2)}
    for minutes in (1, 60):
        rollouts.world.pass_by(minutes=minutes)
        await settle()
        seen.append(rollouts.new())
    return seen


@pytest.mark.parametrize("story", [_through_all_steps, _and_back])
async def test_an_operator_that_is_killed_before_any_request_goes_on_where_it_stood(manifest, story):
    async def told(number):
        rollouts = Rollouts(serve(World(manifest)))
        await rollouts.begin(versions=(1,))
        kill = Kill(rollouts, number)
        seen = await story(rollouts, kill.settle)
        return kill, (seen, rollouts.told, rollouts.status, rollouts.condition())

    undisturbed, expected = await told(10**9)
    assert undisturbed.requests > 5
    for number in range(1, undisturbed.requests + 1):
        kill, found = await told(number)
        assert kill.killed
        assert found == expected, f"killed before request {number}"


async def test_one_that_fails_requests_is_rolled_back_by_itself_and_not_tried_again(rollouts):
    await rollouts.begin(**CANARY)
    rollouts.asked = {1: (100, 0), 2: (8, 2)}
    await rollouts.settle()
    assert rollouts.new() == []
    assert rollouts.condition() == ("False", "RolledBack")
    assert "2 of 10 failed" in rollouts.world.condition("Model", "model")["message"]
    assert "Model RolledBack" in rollouts.world.events.told
    assert rollouts.world.condition("InferenceServer", "server", "ModelsResolved")["status"] == "True"
    assert (rollouts.status["state"], rollouts.status["replicas"]) == ("RolledBack", 0)

    rollouts.asked = {}
    rollouts.world.restart()
    await rollouts.pass_by(hours=2)
    assert rollouts.new() == [], "it is remembered"
    rollouts.world.publish(3, 2, 1)
    await rollouts.settle()
    assert rollouts.status["to"] == 3, "another version is another matter"


async def test_what_clients_do_wrong_with_both_is_no_fault_of_the_replica_that_tells_first(rollouts):
    await rollouts.begin(**CANARY)
    rollouts.asked = {1: (1, 0), 2: (5, 5)}
    await rollouts.settle()
    assert rollouts.new() == ["p-1"]
    assert "what the old version was asked in the same time is waited for" in rollouts.status["message"]
    rollouts.asked = {1: (50, 50), 2: (5, 5)}
    await rollouts.pass_by(seconds=5)
    await rollouts.pass_by(minutes=11)
    assert rollouts.new() == ["p-1", "p-2"]


@pytest.mark.parametrize("old", [(1, 0), (10, 0)])
async def test_one_that_fails_is_rolled_back_when_the_old_one_was_asked_enough_or_had_the_time_to_tell(rollouts, old):
    await rollouts.begin(**CANARY)
    rollouts.asked = {1: old, 2: (5, 5)}
    await rollouts.settle()
    enough = 3 * old[0] >= CANARY["canary"]["judge"]["minRequests"]
    assert (rollouts.new() == []) == enough
    await rollouts.pass_by(seconds=11)
    assert rollouts.new() == []
    assert "fails too many requests" in rollouts.status["message"]


async def test_one_that_was_rolled_back_is_tried_again_when_the_spec_changes(rollouts):
    await rollouts.begin(**CANARY)
    rollouts.failing = "GoldenMismatch"
    rollouts.world.see(resources.CONFIG_MAP, rollouts.world.get("ConfigMap", "server-desired"))
    for name in NAMES:
        found = rollouts.world.get("ConfigMap", "server-report")
        rollouts.world.see(resources.CONFIG_MAP, {**found, "data": {**found["data"], name: rollouts.report(name)}})
    await rollouts.settle()
    assert rollouts.condition() == ("False", "RolledBack")
    assert "GoldenMismatch: out of tune" in rollouts.status["message"]

    rollouts.failing = None
    await rollouts.pass_by(hours=1)
    before = rollouts.status["started"]
    rollouts.world.change(resources.MODEL, "model", rollout={**CANARY, "attempt": 1})
    await rollouts.settle()
    assert rollouts.new() == ["p-1"]
    assert rollouts.status["started"] > before


async def test_one_that_does_not_serve_in_time_is_rolled_back(rollouts):
    rollouts.failing = "NoSpace"  # may pass, and is waited for
    await rollouts.begin(**CANARY)
    assert rollouts.new() == ["p-1"]
    assert rollouts.status["state"] == "Progressing"
    await rollouts.pass_by(minutes=6)
    assert rollouts.new() == []
    assert "progressDeadline 5m has passed" in rollouts.status["message"]
    assert "out of tune" in rollouts.status["message"]


async def test_an_abort_ends_it_and_stays(rollouts):
    await rollouts.begin(**CANARY)
    rollouts.world.change(resources.MODEL, "model", rollout={**CANARY, "abort": 2})
    await rollouts.settle()
    assert rollouts.condition() == ("False", "RolledBack")
    rollouts.world.change(resources.MODEL, "model", rollout={**CANARY, "abort": 2, "attempt": 5})
    await rollouts.settle()
    assert rollouts.new() == []
    rollouts.world.change(resources.MODEL, "model", rollout={**CANARY, "abort": 2}, version=1)
    await rollouts.settle()
    assert rollouts.condition() == ("True", "Serving"), "what serves is what is asked for again"


async def test_replicas_that_come_and_go_change_no_more_than_they_must(rollouts):
    await rollouts.begin(**CANARY)
    rollouts.asked = {1: (100, 0), 2: (10, 0)}
    await rollouts.pass_by(minutes=11)
    assert rollouts.new() == ["p-1", "p-2"]
    rollouts.pod("p-1", ready=False)  # perhaps because of the new version: it must not go round
    await rollouts.settle()
    assert rollouts.new() == ["p-1", "p-2"]
    rollouts.pod("p-4", deleted=True)
    await rollouts.settle()
    assert rollouts.new() == ["p-1", "p-2"]
    rollouts.pod("p-1", deleted=True)
    await rollouts.settle()
    assert rollouts.new() == ["p-2"], "half of the two that are left"
    rollouts.pod("p-1")
    await rollouts.settle()
    assert rollouts.new() == ["p-1", "p-2"], "two of three"


async def test_a_strategy_that_is_removed_and_comes_back_changes_nothing_more(rollouts):
    await rollouts.begin(**CANARY)
    rollouts.world.change(resources.MODEL, "model", rollout={})  # at once is the default
    await rollouts.settle()
    assert rollouts.new() == list(NAMES)
    assert rollouts.status["state"] == "Complete"
    rollouts.world.change(resources.MODEL, "model", rollout=CANARY)
    await rollouts.settle()
    assert rollouts.new() == list(NAMES)
    assert rollouts.condition() == ("True", "Serving")


async def test_a_version_that_leaves_and_comes_back_is_tried_anew(rollouts):
    await rollouts.begin(**CANARY)
    first = rollouts.status["started"]
    rollouts.asked = {1: (100, 0), 2: (10, 0)}
    await rollouts.pass_by(minutes=11)
    assert rollouts.new() == ["p-1", "p-2"]
    rollouts.world.publish(1)  # somebody has removed it
    await rollouts.settle()
    assert rollouts.new() == []
    assert rollouts.condition() == ("True", "Serving")
    rollouts.world.publish(2, 1)
    await rollouts.settle()
    assert rollouts.new() == ["p-1"]
    assert rollouts.status["step"] == 1
    assert rollouts.status["started"] > first


async def test_a_model_that_is_deleted_in_a_canary_and_applied_again_begins_anew(rollouts):
    await rollouts.begin(**CANARY)
    first = rollouts.status["started"]
    rollouts.world.now += timedelta(minutes=1)
    rollouts.world.remove(resources.MODEL, "model")
    rollouts.world.own(resources.MODEL, {"spec": {"entry": "my-model", "rollout": CANARY}})  # before anybody looked
    await rollouts.settle()
    assert rollouts.new() == ["p-1"]
    assert rollouts.status["started"] > first

    rollouts.world.remove(resources.MODEL, "model")
    await rollouts.world.settle()
    assert rollouts.told.models == (), "nobody asks for it any more"
    rollouts.world.own(resources.MODEL, {"spec": {"entry": "my-model", "rollout": CANARY}})
    await rollouts.settle()
    assert rollouts.new() == list(NAMES), "nothing served that it could be held against"


async def test_all_at_once_is_told_too(rollouts):
    await rollouts.begin(strategy="Immediate")
    assert rollouts.new() == list(NAMES)
    status = rollouts.status
    assert (status["strategy"], status["from"], status["to"], status["state"]) == ("Immediate", 1, 2, "Complete")
    assert status["progress"] == "4/4 Complete"


async def test_a_suspended_canary_stands_still(rollouts):
    await rollouts.begin(**CANARY)
    rollouts.world.change(resources.MODEL, "model", suspend=True)
    rollouts.asked = {1: (100, 0), 2: (1, 100)}
    await rollouts.pass_by(hours=2)
    assert rollouts.new() == ["p-1"]
    rollouts.world.change(resources.MODEL, "model", suspend=False)
    await rollouts.settle()
    assert rollouts.new() == []
