"""Canaries on a real API server: which replicas are told what, over restarts and lost pods, and by hand."""

import json

import pytest
from typer.testing import CliRunner

from gravswell.cli.app import _assemble, app
from gravswell.serving.contracts import DESIRED_KEY, Desired, Traffic

CANARY = {"strategy": "Canary", "canary": {"steps": [{"replicas": "25%", "pause": "Manual"}]}}


class Canary:
    """Four replicas, and what their agents are told."""

    def __init__(self, world):
        self.world = world

    @property
    def models(self):
        """What the agents are told; nothing before they are."""
        found = self.world.get("configmap", "server-desired")
        text = (found or {}).get("data", {}).get(DESIRED_KEY)
        return Desired.model_validate_json(text).models if text else ()

    @property
    def told(self):
        (model,) = self.models
        return model

    def new(self, version):
        """The pods that are told a version."""
        model = self.told
        return [pod for pod in self.world.pods() if model.on(pod).version == version]

    def obey(self):
        """As the agents: each replica serves what it is told, and tells that it was asked ten times."""
        model = self.told
        asked = {}
        if model.canary is not None:
            asked = {"traffic": Traffic(window=model.canary.window, succeeded=9, failed=1, seconds=0.09)}
        # The old version's first: what it fails is allowed to the new one, too, and the operator may look at any time.
        for pod in sorted(self.world.pods(), key=lambda pod: model.on(pod).version):
            self.world.report(pod, model.on(pod).version, **asked)

    @property
    def status(self):
        return self.world.get("model", "digits")["status"].get("rollout", {})

    def state(self, state):
        self.world.until(lambda: self.status.get("state") == state)
        return self.status

    def run(self, *arguments):
        """``gravswell rollout``, as a user; its JSON."""
        where = ["-n", self.world.namespace, "--kubeconfig", str(self.world.cluster.kubeconfig)]
        done = CliRunner().invoke(app, ["rollout", *arguments, "digits", *where, "-o", "json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def text(self, *arguments):
        """What a person reads."""
        where = ["-n", self.world.namespace, "--kubeconfig", str(self.world.cluster.kubeconfig)]
        done = CliRunner().invoke(app, ["rollout", *arguments, "digits", *where])
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    def refused(self, *arguments):
        where = ["-n", self.world.namespace, "--kubeconfig", str(self.world.cluster.kubeconfig)]
        done = CliRunner().invoke(app, ["rollout", *arguments, *where])
        return str(done.exception)


@pytest.fixture
def canary(world):
    _assemble()
    world.make_repository()
    world.make_server(replicas=4)
    world.make_model(rollout=CANARY)
    world.publish(1)
    world.until(lambda: len(world.pods()) == 4)
    world.rolled_out()
    made = Canary(world)
    world.until(lambda: [model.version for model in made.models] == [1])
    made.obey()
    world.condition("model", "digits", status="True")
    return made


def test_a_canary_by_hand(canary, operator):
    world = canary.world
    assert "has no canary that is Progressing or Paused" in canary.refused("abort", "digits")
    assert "there is no Model other" in canary.refused("status", "other")
    world.publish(1, 2)
    world.until(lambda: canary.new(2))
    (picked,) = canary.new(2)
    assert canary.state("Progressing")["message"].startswith("step 1 of 1")
    canary.obey()
    canary.state("Paused")
    world.condition("model", "digits", "Progressing", status="True", reason="RolloutPaused")
    assert world.condition("model", "digits")["status"] == "True", "three serve the old version, and one the new"
    assert "1/4 Paused" in world.kubectl("get", "mdl", "digits")
    shown = canary.run("status")
    assert (shown["version"], shown["rollout"]["to"], shown["rollout"]["state"]) == (1, 2, "Paused")
    counts = {"succeeded": 9, "failed": 1, "seconds": 0.09}
    assert shown["new"] == counts
    assert shown["old"] == {"succeeded": 27, "failed": 3, "seconds": pytest.approx(0.27)}
    assert "1 of 10 failed, 10 ms on average, in this step" in canary.text("status")

    before = world.get("configmap", "server-desired")["metadata"]["resourceVersion"]
    operator.restart()
    world.until(lambda: operator.has_looked("InferenceServer"))
    assert world.get("configmap", "server-desired")["metadata"]["resourceVersion"] == before

    world.delete("pod", picked)  # another one takes its turn
    world.until(lambda: picked not in world.pods() and len(world.pods()) == 4)
    world.until(lambda: len(canary.new(2)) == 1)
    assert canary.state("Progressing")["step"] == 1
    canary.obey()
    canary.state("Paused")

    assert canary.run("abort")["rollout"]["to"] == 2
    world.condition("model", "digits", status="False", reason="RolledBack")
    world.until(lambda: canary.new(2) == [])  # the server learns of it from its Model
    canary.obey()
    world.until(lambda: canary.status["replicasUpdated"] == 0)

    canary.run("retry")
    world.until(lambda: len(canary.new(2)) == 1)
    canary.obey()
    canary.state("Paused")
    canary.run("promote")
    world.until(lambda: len(canary.new(2)) == 4)
    canary.obey()
    assert canary.state("Complete")["replicasUpdated"] == 4
    world.condition("model", "digits", status="True")

    def events():
        return {e["reason"] for e in world.objects("events") if e["involvedObject"].get("kind") == "Model"}

    world.until(lambda: {"RollingOut", "RolloutPaused", "RolledBack", "Promoted"} <= events())


def test_it_is_explained(canary):
    text = canary.world.kubectl("explain", "model.spec.rollout.canary", "--recursive=false")
    assert "steps" in text
    assert "progressDeadline" in text
    assert "Default: 30m" in text
