"""What a reconcile leaves out because it was compared before, it would not have written either."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gravswell_operator import names
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Record
from gravswell_operator.reconcile import apply

from .conftest import World, serve

CHILDREN = (
    (resources.DEPLOYMENT, "server"),
    (resources.SERVICE, "server"),
    (resources.SERVICE, "server-headless"),
    (resources.CONFIG_MAP, "server-desired"),
    (resources.ROLE, "server-agent"),
    (resources.DISRUPTION_BUDGET, "server"),
)

steps = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), st.sampled_from(["2Gi", "3Gi"])),
        st.tuples(st.just("publish"), st.integers(1, 3)),
        st.tuples(st.just("move"), st.sampled_from(["account", None])),
        st.tuples(st.just("drift"), st.sampled_from(CHILDREN)),
        st.tuples(st.just("label"), st.sampled_from(CHILDREN)),
        st.tuples(st.just("status"), st.sampled_from(CHILDREN)),
        st.tuples(st.just("remove"), st.sampled_from(CHILDREN)),
        st.tuples(st.just("wake"), st.none()),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=12,
)


def do(world: World, what, how) -> None:
    """One thing happens in the cluster."""
    if what == "edit":
        world.change(resources.INFERENCE_SERVER, "server", memory=how)
    elif what == "publish":
        world.publish(*range(1, how + 1))
    elif what == "move":
        world.change(resources.MODEL_REPOSITORY, "models", serviceAccountName=how)
    elif what == "wake":
        world.context.queue.add(next(r.key for r in world.context.cache.all(resources.INFERENCE_SERVER)))
    elif what == "restart":
        world.restart()
    elif (body := world.get(how[0].kind, how[1])) is None:
        return
    elif what == "remove":
        world.remove(*how)
    elif what == "status":
        world.see(how[0], {**body, "status": {"observedGeneration": len(world.api.writes)}})
    elif what == "label":
        labels = {**body["metadata"]["labels"], names.LABEL_ROLE: "somebody-elses"}
        world.see(how[0], {**body, "metadata": {**body["metadata"], "labels": labels}})
    else:
        field = next(f for f in ("spec", "data", "rules") if f in body)
        world.see(how[0], {**body, field: [] if field == "rules" else {}})


async def writes_of(world: World, what) -> list[list[str]]:
    """What was written after each step."""
    serve(world).own(resources.INFERENCE_SERVER, {"spec": {"nodePoolRef": None, "gpus": 0, "models": "All"}})
    await world.settle()
    made = []
    for step in (("publish", 1), *what):
        world.api.writes.clear()
        do(world, *step)
        await world.settle()
        made.append(sorted(world.api.writes))
    return made


@given(steps)
@settings(max_examples=40)
async def test_the_same_is_written_as_by_comparing_every_child_each_time(manifest, what):
    short = await writes_of(World(manifest), what)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Record, "found_equal", lambda *_: None)
        patched.setattr(apply, "is_settled", lambda *_: False)
        full = await writes_of(World(manifest), what)
    assert short == full


@pytest.mark.parametrize("child", CHILDREN, ids=lambda child: f"{child[0].kind}-{child[1]}")
@pytest.mark.parametrize("what", ["drift", "label", "remove"])
async def test_what_somebody_changes_of_a_child_at_rest_is_mended(world, what, child):
    made = await writes_of(world, [("wake", None), (what, child), ("wake", None)])
    assert made[1] == []
    assert f"apply {child[0].kind} {child[1]}" in made[2]
    assert made[3] == []
