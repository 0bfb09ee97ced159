"""Random orders of events, answers, refusals, lost answers and lists: once it is quiet, what is there is right.

Right is what an operator that begins anew finds nothing to change in.
"""

import asyncio
import copy
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gravswell.kube import errors
from gravswell.kube.watch import Listed
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.queue import work
from gravswell_operator.cluster.resources import ResourceType
from gravswell_operator.handlers.children import take_all
from gravswell_operator.reconcile.engine import OUTAGE_SECONDS

from .conftest import Api, World, serve

STEPS = 200
WORKERS = 3
KINDS = {resource.kind: resource for resource in (*resources.WATCHED, *resources.OPTIONAL)}
CHILDREN = [("Service", "ns", "server"), ("ConfigMap", "ns", "server-desired"), ("Role", "ns", "server-agent")]

Call = Callable[[], Awaitable[Any]]


class SlowApi(Api):
    """Answers when the test says so, and remembers what watches have to tell."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, Call, asyncio.Future[Any]]] = []
        self.events: defaultdict[str, list[tuple[dict[str, Any], bool]]] = defaultdict(list)
        """By kind: the object, and whether it was deleted."""
        self.at_once = False

    def store(self, body: dict[str, Any]) -> dict[str, Any]:
        key = (body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"])
        old = self.objects.get(key)
        if body["kind"] == "Deployment":
            seen = old["metadata"]["generation"] if old is not None else 0
            body["metadata"]["generation"] = seen + (old is None or old["spec"] != body["spec"])
        if old is not None and _without_version(old) == _without_version(body):
            return copy.deepcopy(old)
        stored = super().store(body)
        self.events[body["kind"]].append((stored, False))
        return copy.deepcopy(stored)

    def vanish(self, key: tuple[str, str, str]) -> None:
        body = self.objects.pop(key, None)
        if body is not None:
            gone = {**body, "metadata": {**body["metadata"], "resourceVersion": str(next(self._versions))}}
            self.events[key[0]].append((gone, True))

    async def _later(self, verb: str, call: Call) -> Any:
        if self.at_once:
            return await call()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked.append((verb, call, answer))
        return await answer

    async def get(self, *what: Any) -> dict[str, Any]:
        return await self._later("get", lambda: Api.get(self, *what))  # type: ignore[no-any-return]

    async def apply(self, *what: Any, **how: Any) -> dict[str, Any]:
        return await self._later("apply", lambda: Api.apply(self, *what, **how))  # type: ignore[no-any-return]

    async def apply_status(self, *what: Any) -> dict[str, Any]:
        return await self._later("status", lambda: Api.apply_status(self, *what))  # type: ignore[no-any-return]

    async def delete(self, resource: ResourceType, namespace: str, name: str, uid: str) -> None:
        async def call() -> None:
            self._request("delete", resource, name)
            self.vanish((resource.kind, namespace, name))

        await self._later("delete", call)

    async def answer(self, number: int, fault: str = "") -> None:
        """Answer one request; with a ``fault`` it is ``cut`` before it is done or ``lost`` after, or a ``conflict``."""
        verb, call, answer = self.asked.pop(number)
        if fault == "cut":
            answer.set_exception(errors.ApiUnavailableError("no answer"))
        elif fault == "conflict" and verb != "get":
            answer.set_exception(errors.ApiConflictError("the object has been modified"))
        else:
            try:
                said = await call()
            except (errors.ApiConflictError, errors.ApiNotFoundError) as error:
                answer.set_exception(error)
            else:
                if fault:
                    answer.set_exception(errors.ApiUnavailableError("the answer is lost"))
                else:
                    answer.set_result(said)


def _without_version(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "metadata": {k: v for k, v in body["metadata"].items() if k != "resourceVersion"}}


class Cluster:
    """What happens around the operator, one thing after the other."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.random = world, random.Random(seed)
        self.api = world.api = SlowApi()
        world.restart()
        serve(world)
        for events in self.api.events.values():
            events.clear()  # they were seen
        self.faults = self.random.choice([0.2, 0.4, 0.7])

    @asynccontextmanager
    async def reconciling(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work(self.world.context.queue, self.world.engine.handle)) for _ in range(WORKERS)]
        try:
            yield
            assert not [task for task in tasks if task.done()]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def pass_by(self, seconds: float = 0.0) -> None:
        self.world.time += seconds
        self.world.context.queue._wakeup.set()
        for _ in range(10):  # what is ready runs
            await asyncio.sleep(0)

    async def happen(self, *, edits: bool = True) -> None:
        """One thing."""
        chance = self.random.choice
        others = ["list", "user"] if edits else []
        match chance(["answer"] * 8 + ["event"] * 6 + ["controller"] * 4 + ["time"] * 2 + others):
            case "answer" if self.api.asked:
                fault = chance(["cut", "lost", "conflict"]) if self.random.random() < self.faults else ""
                await self.api.answer(self.random.randrange(len(self.api.asked)), fault)
            case "event":
                if waiting := [kind for kind, events in self.api.events.items() if events]:
                    self.tell(chance(waiting))
            case "controller":
                self.control()
            case "list":
                self.list_all(chance(list(KINDS)))
            case "user":
                self.use()
            case "time":
                await self.pass_by(chance([0.02, 0.1, 0.5]))
        await self.pass_by()

    def tell(self, kind: str) -> None:
        body, deleted = self.api.events[kind].pop(0)
        self.world.context.observe(KINDS[kind], copy.deepcopy(body), deleted=deleted)

    def list_all(self, kind: str) -> None:
        """A watch was broken, and begins anew."""
        self.api.events[kind].clear()
        items = [copy.deepcopy(body) for (k, _, _), body in self.api.objects.items() if k == kind]
        take_all(self.world.context, KINDS[kind], Listed(items, str(next(self.api._versions))))

    def use(self) -> None:
        server = self.world.get("InferenceServer", "server")
        assert server is not None
        change = self.random.choice(
            [{"replicas": self.random.randint(1, 3)}, {"memory": "3Gi"}, {"memory": "4Gi"}, {"suspend": True}, {}]
        )
        if change:
            generation = server["metadata"]["generation"] + 1
            spec = {**server["spec"], "suspend": False, **change}
            self.api.store({**server, "metadata": {**server["metadata"], "generation": generation}, "spec": spec})
        else:
            self.api.vanish(self.random.choice(CHILDREN))

    def control(self) -> None:
        """One step of the Deployments' controller."""
        for (kind, _, _), body in list(self.api.objects.items()):
            if kind != "Deployment":
                continue
            wanted, status = body["spec"].get("replicas", 1), dict(body.get("status") or {})
            if status.get("observedGeneration") != body["metadata"]["generation"]:
                status |= {"observedGeneration": body["metadata"]["generation"], "updatedReplicas": 0}
            elif status["updatedReplicas"] < wanted:
                status["updatedReplicas"] += 1
            else:
                status |= {"updatedReplicas": wanted, "replicas": wanted, "readyReplicas": wanted}
            self.api.store({**copy.deepcopy(body), "status": status})

    async def become_quiet(self) -> None:
        """Nothing fails and nobody does anything any more, for a little longer than the longest wait."""
        end = self.world.time + OUTAGE_SECONDS + 10
        while self.world.time < end:
            self.control()
            for kind in list(self.api.events):
                while self.api.events[kind]:
                    self.tell(kind)
            while self.api.asked:
                await self.api.answer(0)
                await self.pass_by()
            await self.pass_by(0.25)


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_comes_in_whatever_order_the_end_is_right(world, seed):
    cluster = Cluster(world, seed)
    async with cluster.reconciling():
        for _ in range(STEPS):
            await cluster.happen()
        for _ in range(STEPS):  # it goes on failing when all has been said
            await cluster.happen(edits=False)
        await cluster.become_quiet()
    server = world.get("InferenceServer", "server")
    if not server["spec"].get("suspend"):
        assert world.condition("InferenceServer", "server", "Progressing")["reason"] == "RolledOut"
    cluster.api.at_once = True
    cluster.api.writes.clear()
    world.restart()
    await world.settle()
    assert cluster.api.writes == []
