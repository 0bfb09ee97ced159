"""Random edits of all kinds on the real control plane: once it is quiet, what is there is what ``gravswell plan`` says.

Hypothesis chooses the edits, the same ones each time, and each kind of them before one comes again.
``GRAVSWELL_TEST_EXAMPLES=50`` has it choose more, and others.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from gravswell.errors import GravswellError
from gravswell_operator import api
from gravswell_operator.api.manifest import parse
from gravswell_operator.desired.diff import difference
from gravswell_operator.desired.objects import Options
from gravswell_operator.plan import plan
from gravswell_operator.runtime import DEFAULT_IMAGE

from ..operating import conditions, wait_until
from ..reconciling.conftest import World
from .busy import CHILDREN, MANAGED, OWN
from .conftest import QUIET_SECONDS, Supervised
from .proxy import Proxy

EXAMPLES = int(os.environ.get("GRAVSWELL_TEST_EXAMPLES", "0"))
STEPS = 40
SEED = 58
WAIT_SECONDS = 120
OPTIONS = Options(image=DEFAULT_IMAGE, network_policies=())

SERVERS, REPOSITORIES, MODELS = st.sampled_from("ab"), st.sampled_from(["models", "other"]), st.sampled_from("mn")
REPLICAS = st.integers(0, 3)


KINDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {}
"""What there is to do, by name, and what its arguments may be."""
LOOKS = {"settle", "restart"}
"""Those of them that change nothing."""


def edit(**arguments: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Of what changes something."""

    def of(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def edited(self: "Edits", **drawn: Any) -> None:
            self.edited = True
            function(self, **drawn)

        KINDS[function.__name__] = arguments
        return edited

    return of


def look(function: Callable[["Edits"], None]) -> Callable[["Edits"], None]:
    """Of what looks whether all is as it must be; to look again at what nobody has touched shows nothing."""

    @wraps(function)
    def looked(self: "Edits") -> None:
        function(self)
        self.edited = False

    KINDS[function.__name__] = {}
    return looked


class Edits(RuleBasedStateMachine):
    """What users and others do, one thing at once after the other: the operator is still at work on the last."""

    world: World
    operator: Supervised
    proxy: Proxy
    done: ClassVar = set[str]()
    """What was ever chosen."""
    edited = False
    """Since it was last looked at in quiet."""
    left: frozenset[str] = frozenset()
    """What was not chosen since all was."""

    # What users apply.

    @initialize()
    def begin(self) -> None:
        """One of each, for what is done to it."""
        self.world.make_pool()
        self.world.make_repository("models")
        self.world.make_server("a", models="All")
        self.world.make_model("m", serverRef={"name": "a"})
        self.world.publish(1, 2, repository="models")

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """Any of what there is to do; all of it before one of it again, so that none is left out."""
        if not (open_ := self.open()):
            self.left = frozenset(KINDS)
            open_ = self.open()
        kind = data.draw(st.sampled_from(open_), label="what")
        self.left -= {kind}
        self.done.add(kind)
        getattr(self, kind)(**{name: data.draw(values, label=name) for name, values in KINDS[kind].items()})

    def open(self) -> list[str]:
        return sorted(self.left if self.edited else self.left - LOOKS)

    @edit(name=REPOSITORIES, url=st.sampled_from(["file:///srv/models", "file:///srv/more"]), suspend=st.booleans())
    def repository(self, name: str, url: str, suspend: bool) -> None:
        self.world.make_repository(name, url=url, suspend=suspend)

    @edit(name=SERVERS, repository=REPOSITORIES, replicas=REPLICAS, gpus=st.integers(0, 2), suspend=st.booleans())
    def server(self, name: str, repository: str, replicas: int, gpus: int, suspend: bool) -> None:
        on = {"nodePoolRef": {"name": self.world.pool}, "gpus": gpus} if gpus else {}
        self.world.make_server(name, repositoryRef={"name": repository}, replicas=replicas, suspend=suspend, **on)

    @edit(name=SERVERS, most=st.integers(2, 4), models=st.sampled_from(["All", "Declared"]))
    def autoscaled(self, name: str, most: int, models: str) -> None:
        """Whoever had a number of replicas before hands them over."""
        self.refused(lambda: self.world.patch("isrv", name, {"spec": {"replicas": None}}))
        self.world.make_server(name, autoscaling={"minReplicas": 1, "maxReplicas": most}, models=models)

    @edit(name=MODELS, server=SERVERS, version=st.sampled_from(["latest", 1, 2, "champion"]), suspend=st.booleans())
    def model(self, name: str, server: str, version: str | int, suspend: bool) -> None:
        self.refused(lambda: self.world.make_model(name, serverRef={"name": server}, version=version, suspend=suspend))

    @edit(size=st.integers(0, 3), suspend=st.booleans())
    def pool(self, size: int, suspend: bool) -> None:
        self.world.make_pool(size=size, suspend=suspend)

    @edit(name=SERVERS, replicas=REPLICAS)
    def scale(self, name: str, replicas: int) -> None:
        """As ``kubectl scale`` does."""
        if (found := self.world.get("isrv", name)) is not None and "replicas" in found["spec"]:
            self.world.patch("isrv", name, {"spec": {"replicas": replicas}}, subresource="scale")

    @edit(kind=st.sampled_from(OWN), name=st.sampled_from(["a", "b", "m", "n", "models", "other"]))
    def delete(self, kind: str, name: str) -> None:
        self.world.delete(kind, name)

    @edit()
    def delete_pool(self) -> None:
        self.world.delete("gpunodepool", self.world.pool)

    # What others do.

    @edit(name=REPOSITORIES, url=st.sampled_from(["file:///srv/models", "file:///srv/more"]), last=st.integers(0, 2))
    def publish(self, name: str, url: str, last: int) -> None:
        if self.world.get("configmap", f"{name}-listing") is not None:
            self.world.publish(*range(1, last + 1), repository=name, url=url)

    @edit(kind=st.sampled_from(CHILDREN), number=st.integers(0, 3))
    def delete_child(self, kind: str, number: int) -> None:
        for body in self.world.objects(kind, selector=MANAGED)[number : number + 1]:
            self.world.delete(kind, body["metadata"]["name"])

    @edit(kind=st.sampled_from(["services", "deployments", "roles", "pdb"]), number=st.integers(0, 3))
    def touch_child(self, kind: str, number: int) -> None:
        for body in self.world.objects(kind, selector=MANAGED)[number : number + 1]:
            change: dict[str, Any] = {"metadata": {"labels": {"app.kubernetes.io/name": "touched"}}}
            self.refused(lambda body=body, change=change: self.world.patch(kind, body["metadata"]["name"], change))

    # What holds.

    @look
    def settle(self) -> None:
        self.until_quiet()
        self.check()

    @look
    def restart(self) -> None:
        """Started again, it writes nothing at all."""
        self.until_quiet()
        before, stood = len(self.proxy.seen), self.own()
        self.operator.restart()
        self.until_quiet()
        changed = [(was, now) for was, now in zip(stood, self.own(), strict=True) if was != now]
        assert self.writes(before) == [], json.dumps(changed)
        self.check()

    @invariant()
    def alive(self) -> None:
        assert self.operator.running

    def teardown(self) -> None:
        try:
            if self.edited:
                self.restart()
        finally:
            for kind in OWN:
                self.world.delete(kind)
            self.delete_pool()
        self.world.until(lambda: not self.world.objects(*CHILDREN, selector=MANAGED), WAIT_SECONDS)

    @staticmethod
    def refused(act: Callable[[], None]) -> None:
        """Do it; the API server may refuse it: what it is about is not there, or must not change so."""
        try:
            act()
        except GravswellError:
            return

    def writes(self, since: int) -> list[str]:
        asked = [seen.asked for seen in self.proxy.seen[since:]]
        return [str(a) for a in asked if a.writes and a.plural != "leases"]

    def until_quiet(self) -> None:
        """Nothing was changed for a while, and nothing waits; the controllers of others have gone round, too."""
        until = time.monotonic() + WAIT_SECONDS
        while True:
            before = len(self.proxy.seen)
            time.sleep(QUIET_SECONDS)
            wait_until(self.operator.is_ready, WAIT_SECONDS)
            waiting = self.operator.metric("gravswell_queue_length")
            others = [*self.orphans(), *self.undecided(), *self.moving()]
            if not (written := self.writes(before)) and not waiting and not others:
                return
            assert time.monotonic() < until, f"not quiet: {written}; {waiting} waiting; {others}"

    def undecided(self) -> Iterator[str]:
        """HorizontalPodAutoscalers that their controller, which comes every 15 s, has not looked at as they are."""
        for body in self.world.objects("hpa", selector=MANAGED):
            if body.get("status", {}).get("conditions") is None:
                yield f"hpa {body['metadata']['name']} is undecided"

    def moving(self) -> Iterator[str]:
        """Pods that come or go, and Deployments whose controller has not said the last of theirs."""
        pods = self.world.objects("pods")
        ready = set[str]()
        for pod in pods:
            name, found = pod["metadata"]["name"], {kind: c["status"] for kind, c in conditions(pod).items()}
            if "deletionTimestamp" in pod["metadata"] or "PodScheduled" not in found:
                yield f"pod {name} comes or goes"
            elif found.get("Ready") == "True":
                ready.add(name)
            elif found["PodScheduled"] == "True":
                yield f"pod {name} starts"
        for body in self.world.objects("deployments", selector=MANAGED):
            labels, said = body["spec"]["selector"]["matchLabels"], body["status"]
            names = {p["metadata"]["name"] for p in pods if labels.items() <= p["metadata"]["labels"].items()}
            there = (body["metadata"]["generation"], len(names), len(names & ready))
            if there != (said.get("observedGeneration"), said.get("replicas", 0), said.get("readyReplicas", 0)):
                yield f"deployment {body['metadata']['name']} is not {there}: {said}"

    def own(self) -> list[dict[str, Any]]:
        found = [body for kind in OWN for body in self.world.objects(kind)]
        pool = self.world.get("gpunodepool", self.world.pool)
        return [*found, *([pool] if pool is not None else [])]

    def children(self) -> Iterator[dict[str, Any]]:
        for kind in CHILDREN:
            yield from self.world.objects(kind, selector=MANAGED)

    def orphans(self) -> Iterator[str]:
        """Children whose owner is not there, or is another one of its name."""
        uids = {body["metadata"]["uid"] for body in self.own()}
        for body in self.children():
            owners = [o["uid"] for o in body["metadata"].get("ownerReferences") or () if o.get("controller")]
            if len(owners) != 1 or owners[0] not in uids:
                yield f"{body['kind']} {body['metadata']['name']}"

    def check(self) -> None:
        own = self.own()
        for body in own:
            self.check_status(body)
        there = {(body["kind"], body["metadata"]["name"]): body for body in self.children()}
        said = ("apiVersion", "kind", "metadata", "spec")
        planned = plan([parse({key: body[key] for key in said}) for body in own], OPTIONS)
        held = {f"{b['kind']} {self.world.namespace}/{b['metadata']['name']}" for b in own if _is_held(b)}
        for found in planned.objects:
            if isinstance(found.resource, api.Model | api.GPUNodePool) or found.resource.spec.suspend:
                continue
            uid = found.resource.metadata.uid
            wanted = {(child["kind"], child["metadata"]["name"]): child for child in found.children}
            have = {key: body for key, body in there.items() if body["metadata"]["ownerReferences"][0]["uid"] == uid}
            if not wanted or found.title in held:
                continue  # something it refers to is not there, or has another url: it stays as it is
            assert have.keys() == wanted.keys(), found.title
            for key, child in wanted.items():
                if key[0] != "ConfigMap":  # what they hold depends on what is listed and reported
                    assert difference(child, have[key]) is None, (found.title, key, difference(child, have[key]))

    @staticmethod
    def check_status(body: dict[str, Any]) -> None:
        generation, status = body["metadata"]["generation"], body.get("status") or {}
        told = json.dumps(body, indent=1)
        assert status.get("observedGeneration") == generation, told
        found = conditions(body)
        if body["spec"].get("suspend") and body["kind"] != "Model":
            found = {"Suspended": found["Suspended"]}  # the others stay as they were
        assert all(c["observedGeneration"] == generation for c in found.values()), told
        assert "Ready" in found or body["spec"].get("suspend"), told


def _is_held(body: dict[str, Any]) -> bool:
    """Whether a server waits until its repository's new url is listed and has what is served."""
    ready = conditions(body).get("Ready", {})
    return ready.get("reason") in ("NotResolvedYet", "ModelsUnresolved") and "new url" in ready.get("message", "")


@pytest.mark.timeout(300 + 240 * (EXAMPLES or 3))
def test_whatever_is_edited_what_is_there_is_what_is_planned(world, operator, proxy):
    Edits.world, Edits.operator, Edits.proxy = world, operator, proxy
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Edits if EXAMPLES else seed(SEED)(Edits),
        settings=settings(
            max_examples=EXAMPLES or 3,
            stateful_step_count=STEPS,
            database=None,
            phases=(Phase.generate,),  # to make it smaller would take as long again for each attempt
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    assert Edits.done == KINDS.keys(), "not everything was done: Hypothesis takes fewer steps than it is told"
