"""The operator is killed at random moments of a busy time: what is there in the end is what had been there without."""

import asyncio
import json
import multiprocessing
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gravswell_operator.runtime import Config, run_operator

from ..operating import ROOT

SEED = 20261122
KILLS = 25
SERVERS = 5
SETTLED_SECONDS = 180
ALIVE_SECONDS = (0.05, 1.5)
"""How long an operator may live: from before its first look to well after its first writes."""
MANAGED = "app.kubernetes.io/managed-by=gravswell"
OWN = ("isrv", "mdl", "mr")
CHILDREN = ("deployments", "services", "configmaps", "serviceaccounts", "roles", "rolebindings", "pdb", "statefulsets")
_GIVEN = {"clusterIP", "clusterIPs", "nodePort", "healthCheckNodePort", "pod", "lastTransitionTime"}
"""What the API server and the clock choose, another value each time."""


def operate(kubeconfig: str) -> None:
    """The operator in a process of its own. Without a lease, whose time a killed holder keeps it from the next."""
    asyncio.run(run_operator(Config(kubeconfig=Path(kubeconfig)), asyncio.Event()))


@pytest.fixture
def mortal(cluster, operator, monkeypatch):
    """Starts operators that can be killed, with everything imported already, in place of the one of all tests."""
    # They import :func:`operate` by its name, and a dependency's ``tests`` may be on the path where ours are not.
    monkeypatch.syspath_prepend(ROOT)
    assert operator.stop() == 0
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gravswell_operator.runtime"])
    started = []

    def start():
        process = context.Process(target=operate, args=(str(cluster.kubeconfig),), daemon=True)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join(30)
    operator.start()


def be_busy(world, pause):
    """What users do; the same each time, ``pause`` seconds apart."""
    world.make_repository()
    random_ = random.Random(SEED)
    for step in range(8 * SERVERS):
        name = f"server-{step % SERVERS}"
        action = random_.choice(["replicas", "memory", "delete a child", "model"])
        if step < SERVERS or action == "replicas":
            world.make_server(name, replicas=random_.randint(1, 3))
        elif action == "memory":
            world.make_server(name, memory=f"{random_.randint(2, 5)}Gi", replicas=1)
        elif action == "model":
            world.make_model(f"of-{name}", serverRef={"name": name})
        else:
            world.delete(*random_.choice([("svc", name), ("cm", f"{name}-desired"), ("role", f"{name}-agent")]))
        time.sleep(pause)
    world.delete("isrv", "server-0")


def state(world) -> dict[str, Any]:
    """Everything of ours in the namespace, without what another run gives other values."""
    found: dict[str, Any] = {}
    for kind in OWN:
        for body in world.objects(kind):
            status = body.get("status") or {}
            status = {k: v for k, v in status.items() if v != []}  # the same as none, and not written anew for it
            found[f"{kind} {body['metadata']['name']}"] = _settled({**body["spec"], "status": status})
    for kind in CHILDREN:
        for body in world.objects(kind, selector=MANAGED):
            owners = [(o["kind"], o["name"]) for o in body["metadata"].get("ownerReferences") or ()]
            content = {k: _settled(v) for k, v in body.items() if k not in ("metadata", "status")}
            found[f"{kind} {body['metadata']['name']}"] = [owners, body["metadata"]["labels"], content]
    for server in {b["metadata"]["name"] for b in world.objects("isrv")}:
        found[f"pods {server}"] = len(world.pods(server))
    return found


def _settled(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _settled(v) for k, v in value.items() if k not in _GIVEN}
    return [_settled(v) for v in value] if isinstance(value, list) else value


def settled_state(world, process):
    """The state, once it stays the same for seconds, no replica is missing and nothing of ``server-0`` is left."""
    until = time.monotonic() + SETTLED_SECONDS
    before = state(world)
    while True:
        time.sleep(3)
        assert process.is_alive(), f"the operator ended by itself with {process.exitcode}"
        after = state(world)
        missing = _unsettled(world, before, after)
        if not missing:
            return after
        told = json.dumps(missing, sort_keys=True, indent=1)
        assert time.monotonic() < until, f"not settled within {SETTLED_SECONDS} s: {told}"
        before = after


def _unsettled(world, before, after) -> dict[str, Any]:
    """What still changes, with both its states, and what else is not as it is in the end."""
    missing = {
        name: [before.get(name), after.get(name)]
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    }
    for name, server in after.items():
        if name.startswith("isrv "):
            said = [c["reason"] for c in server["status"].get("conditions", ()) if c["type"] == "Progressing"]
            if said != ["RolledOut"] or not server["status"].get("observedGeneration"):
                missing[f"not rolled out: {name}"] = server["status"]
    left = world.objects(*CHILDREN, "pods", selector="gravswell.dev/server=server-0")
    if left:
        missing["left of server-0"] = [f"{body['kind']} {body['metadata']['name']}" for body in left]
    return missing


def clear(world):
    for kind in OWN:
        world.delete(kind)
    world.until(lambda: not world.objects(*CHILDREN, "pods", selector=MANAGED), 180)


def test_the_end_is_the_same_however_often_it_is_killed(world, mortal):
    process = mortal()
    be_busy(world, pause=0.2)
    undisturbed = settled_state(world, process)
    clear(world)
    process.kill()
    process.join()

    random_ = random.Random(SEED)
    with ThreadPoolExecutor(1) as users:
        busy = users.submit(be_busy, world, 0.5)
        for _ in range(KILLS):
            process = mortal()
            time.sleep(random_.uniform(*ALIVE_SECONDS))
            assert process.is_alive(), f"it ended by itself with {process.exitcode}"
            process.kill()
            process.join()
        busy.result()
    disturbed = settled_state(world, mortal())
    assert disturbed.keys() == undisturbed.keys()
    differ = {name: [disturbed[name], undisturbed[name]] for name in disturbed if disturbed[name] != undisturbed[name]}
    assert not differ, json.dumps(differ, sort_keys=True, indent=1)
