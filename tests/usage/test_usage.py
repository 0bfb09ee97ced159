"""Who uses what, from what the objects say; and what replicas say of their GPUs."""

import io

import pytest
from aiohttp import web
from rich.console import Console

from gravswell.errors import UnavailableError
from gravswell_operator import names
from gravswell_operator.api import InferenceServer, Model
from gravswell_operator.api.inferenceserver import RankStatus
from gravswell_operator.api.rollout import RolloutState
from gravswell_operator.api.startup import Stage, StartupStatus
from gravswell_operator.commands.top import follow, shown
from gravswell_operator.state import PodState
from gravswell_operator.usage import ModelUse, ReplicaUse, RolloutUse, ServerUse, Usage, read_gpu_use, use_of

READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Serving",
    "message": "",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}
REFUSED = {**READY, "status": "False", "reason": "NotPlaced", "message": "d asks for 9 devices"}


def server(*models, devices=(), conditions=(READY,), gpus=4):
    """Of ``models``: name → replicas that serve it."""
    return InferenceServer.model_validate(
        {
            "metadata": {"name": "s", "namespace": "ns"},
            "spec": {
                "repositoryRef": {"name": "r"},
                "nodePoolRef": {"name": "p"},
                "tag": "24.08",
                "replicas": 2,
                "gpus": gpus,
            },
            "status": {
                "conditions": conditions,
                "models": [{"name": name, "version": 3, "replicas": replicas} for name, replicas in models],
                "devices": [{"device": device, "models": names} for device, names in enumerate(devices)],
            },
        }
    )


def model(entry, *replicas, conditions=(READY,), **status):
    return Model.model_validate(
        {
            "metadata": {"name": f"m-{entry}", "namespace": "ns"},
            "spec": {"serverRef": {"name": "s"}, "entry": entry},
            "status": {"conditions": conditions, "replicas": replicas, **status},
        }
    )


def pod(name, *, ready=True):
    return PodState(name, ready=ready, terminating=False, finished=False, problem=None, node="node-1")


def test_each_replica_has_what_its_models_say_of_it():
    failing = {"pod": "p-2", "state": "Failed", "version": 2, "message": "model.onnx differs"}
    declared = model("a", {"pod": "p-1", "state": "Serving", "version": 3}, failing)
    told = server(("a", 1), ("b", 2), ("c", 1), devices=(["a"], ["a", "b"], [], []))
    use = use_of(told, [declared, model("d", conditions=[REFUSED])], [pod("p-1"), pod("p-2", ready=False)])
    b, c = ModelUse("b", 3, "Serving", (1,)), ModelUse("c", 3, "", ())
    assert use.replicas == (
        ReplicaUse("p-1", "node-1", True, (ModelUse("a", 3, "Serving", (0, 1)), b, c)),
        ReplicaUse("p-2", "node-1", False, (ModelUse("a", 2, "Failed", (0, 1), "model.onnx differs"), b, c)),
    )
    assert use.unserved == (ModelUse("d", None, "NotPlaced", (), "d asks for 9 devices"),)
    assert (use.ready, use.reason, use.gpus) == (True, "Serving", 4)


def test_a_model_that_the_servers_status_has_no_room_for_says_itself_where_it_is():
    cut = server(*((f"m{number:03}", 1) for number in range(100)), devices=(["m000"], [], [], []))
    serving = {"pod": "p-1", "state": "Serving", "version": 3}
    beyond = model("m100", serving, desiredVersion=3, placement={"devices": [1]})
    use = use_of(cut, [beyond], [pod("p-1")])
    assert use.unserved == ()
    assert use.replicas[0].models[-1] == ModelUse("m100", 3, "Serving", (1,))


def test_without_the_pods_the_models_know_the_replicas():
    use = use_of(server(("a", 1)), [model("a", {"pod": "p-1", "state": "Serving", "version": 3})], [])
    assert [replica.pod for replica in use.replicas] == ["p-1"]


def test_before_the_operator_has_looked():
    use = use_of(server(conditions=()), [model("a", conditions=())], [])
    assert (use.ready, use.message) == (False, "the operator has not looked at it yet")
    assert use.unserved == (ModelUse("a", None, "", (), "the operator has not looked yet"),)


CANARY = {
    "strategy": "Canary",
    "state": "Paused",
    "from": 1,
    "to": 2,
    "step": 1,
    "steps": 2,
    "weight": 10,
    "progress": "1/2 Paused, weight 10%",
    "message": "step 1 of 2 waits for somebody",
    "started": "2026-01-01T00:00:00Z",
    "since": "2026-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    ("rollout", "row"),
    [
        (CANARY, ["a 1 → 2 1/2 Paused, weight 10%: step 1 of 2 waits for somebody"]),
        (
            {**CANARY, "state": "RolledBack", "progress": "0/2 RolledBack", "message": "it fails too many requests"},
            ["a 1 → 2 0/2 RolledBack: it fails too many requests"],
        ),
        ({**CANARY, "state": "Complete"}, []),
        (None, []),
    ],
)
def test_a_change_of_version_is_shown_with_its_weight_until_it_is_complete(rollout, row):
    replicas = [{"pod": f"p-{number}", "state": "Serving", "version": number} for number in (1, 2)]
    use = use_of(server(("a", 2), gpus=0), [model("a", *replicas, rollout=rollout)], [pod("p-1"), pod("p-2")])
    console = Console(file=io.StringIO(), width=160)
    console.print(shown(Usage((use,)), "ns"))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[2:] == [*row, "p-1 CPU a 1 Serving", "p-2 CPU a 2 Serving"]


def test_a_weight_is_a_number_of_its_own_for_programs():
    (told,) = use_of(server(("a", 1)), [model("a", rollout=CANARY)], []).rollouts
    assert told == RolloutUse(
        "a", 1, 2, RolloutState.PAUSED, "1/2 Paused, weight 10%", 10, "step 1 of 2 waits for somebody"
    )


METRICS = """\
nv_gpu_utilization{gpu_uuid="GPU-b"} 0.25
nv_gpu_utilization{gpu_uuid="GPU-a"} 0.75
"""


async def test_replicas_in_reach_say_how_much_their_gpus_are_used():
    async def metrics(request):
        return web.Response(text=METRICS if request.host.startswith("127.0.0.81") else "nothing of GPUs")

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        for host in ("127.0.0.81", "127.0.0.82"):
            await web.TCPSite(runner, host, names.PORT_METRICS).start()
        use = await read_gpu_use(["127.0.0.81", "127.0.0.82", "127.0.0.83"])
    finally:
        await runner.cleanup()
    assert use == [(75.0, 25.0), None, None]


A, B = ModelUse("a", 3, "Serving", (0, 1)), ModelUse("b", None, "Loading", (1,))
EVERYWHERE = ModelUse("c", 2, "Failed", (), "model.onnx differs")


@pytest.mark.parametrize(
    ("gpus", "replica", "rows"),
    [
        (4, ReplicaUse("p-1", "n", True, (A, B), (75.0, 25.4, 0.0, 0.0)), [
            "p-1, GPUs 75, 25, 0, 0 % in use 0 a 3 Serving", "1 a 3 Serving", "b - Loading", "2-3 free",
        ]),
        (2, ReplicaUse("p-1", "n", True, (A, EVERYWHERE)), [
            "p-1 0-1 a 3 Serving", "all c 2 Failed: model.onnx differs",
        ]),
        (0, ReplicaUse("p-1", "n", False, (EVERYWHERE,)), ["p-1 CPU c 2 Failed: model.onnx differs"]),
        (1, ReplicaUse("p-1", "n", False, ()), ["p-1"]),
    ],
)  # fmt: skip
def test_a_row_for_each_model_on_each_device(gpus, replica, rows):
    use = ServerUse("ns", "s", True, "Serving", "", gpus, False, (replica,), ())
    console = Console(width=200, no_color=True)
    with console.capture() as captured:
        console.print(shown(Usage((use,), ("a note",)), "ns"))
    lines = [" ".join(line.split()) for line in captured.get().splitlines()]
    assert lines[0] == "server replica GPU model version state"
    assert lines[2:] == [*rows, "a note"]


async def test_the_live_view_goes_on_while_the_api_server_is_away():
    def use(reason):
        return Usage((ServerUse("ns", "s", True, reason, "", 0, False, (), ()),))

    answers = iter([use("Starting"), UnavailableError("no answer"), use("Serving")])

    async def look():
        answer = next(answers, None)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            raise KeyError("the end")
        return answer

    screen = io.StringIO()
    with pytest.raises(KeyError):
        await follow(look, "ns", 0.01, Console(file=screen, force_terminal=True, width=100))
    text = screen.getvalue()
    assert text.index("Starting") < text.index("no answer; shown is what was there before") < text.index("Serving")


def test_ranks_are_told_by_their_numbers_and_what_one_lacks():
    lacks = {0: "there is no pod s-0", 1: "no GPU"}
    ranks = tuple(
        RankStatus(rank=rank, pod=f"s-{rank}", address=f"s-{rank}.s-headless.ns.svc:8000", ready=False, message=lack)
        for rank, lack in lacks.items()
    )
    told = server(("a", 1))
    status = told.status.model_copy(update={"ranks": ranks})
    use = use_of(told.model_copy(update={"status": status}), [], [pod("s-1", ready=False)])
    assert [(replica.rank, replica.ready, replica.lacks) for replica in use.replicas] == [
        (0, False, "there is no pod s-0"),
        (1, False, "no GPU"),
    ]
    console = Console(file=io.StringIO(), width=200)
    console.print(shown(Usage((use,)), "ns"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "0 of 2 ready" in text
    assert "s-1 (rank 1)" in text
    assert "no GPU" in text


@pytest.mark.parametrize(("stage", "is_shown"), [("Image", True), ("Ready", False)])
def test_a_replica_that_starts_says_what_it_waits_for(stage, is_shown):
    start = StartupStatus(
        pod="s-1",
        started="2026-01-01T00:00:00Z",
        stage=Stage(stage),
        since="2026-01-01T10:20:30Z",
        blocker="node n pulls the images",
    )
    told = server()
    use = use_of(told.model_copy(update={"status": told.status.model_copy(update={"startup": start})}), [], [])
    assert use.startup is not None
    assert use.startup["stage"] == stage
    console = Console(file=io.StringIO(), width=160)
    console.print(shown(Usage((use,)), "ns"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("s-1 starts: Image since 10:20:30 UTC" in text) is is_shown
    assert ("node n pulls the images" in text) is is_shown
