"""The agent's small parts: key, state, endpoint, golden batches."""

import stat
from pathlib import Path

import numpy as np
import pytest

from gravswell.errors import InvalidInputError, NotFoundError, UnavailableError
from gravswell.quiver.config import parse_config
from gravswell.quiver.golden import Sample
from gravswell.serving.agent.folder import ModelFolder
from gravswell.serving.agent.key import make_key, read_key
from gravswell.serving.agent.ledger import MOST_DEATHS, Ledger
from gravswell.serving.agent.prove import prove
from gravswell.serving.agent.server import Endpoint, metrics
from gravswell.serving.agent.state import REMEMBERED, AgentState
from gravswell.serving.agent.triton import TritonControl
from gravswell.serving.agent.view import View
from gravswell.serving.agent.work import Pace, Work
from gravswell.serving.contracts import DesiredModel, ModelReport, ModelState, Reason, Report
from gravswell.serving.golden import Golden, read_golden

from .versions import publish


def test_an_earlier_version_that_ends_triton_gets_a_few_chances(tmp_path: Path):
    model = DesiredModel(name="m", version=2, digest="2" * 64)
    ledger = Ledger(View(TritonControl("127.0.0.1:9")), ModelFolder(tmp_path), Pace(), cpu_only=True, doubted=set())
    work = Work(model)
    tries = []
    for _ in range(MOST_DEATHS + 1):
        tries.append(ledger.facts(model, None).restorable)
        ledger.killed("m")
        assert not ledger.facts(model, None).restorable, "the wanted one goes first"
        ledger.fail(work, Reason.REPOSITORY_UNAVAILABLE, "away")
    assert tries == [True] * MOST_DEATHS + [False]
    ledger.restored("m")
    assert ledger.facts(model, None).restorable


def test_a_key_is_made_once_and_only_its_group_reads_it(tmp_path: Path):
    path = tmp_path / "key"
    assert make_key(path)
    key = read_key(path)
    assert len(key) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o440
    assert not make_key(path), "a pod whose init container runs again keeps its key"
    assert read_key(path) == key
    assert [item.name for item in tmp_path.iterdir()] == ["key"]


def test_a_key_that_cannot_be_had_says_why(tmp_path: Path):
    with pytest.raises(NotFoundError, match="its folder must exist"):
        make_key(tmp_path / "absent/key")
    with pytest.raises(InvalidInputError, match=rf"{tmp_path} is a folder: name a file in it, as {tmp_path}/key"):
        make_key(tmp_path)
    with pytest.raises(NotFoundError, match="gravswell agent init"):
        read_key(tmp_path / "absent")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(InvalidInputError, match="is empty"):
        read_key(tmp_path / "empty")


def test_the_state_survives_and_damage_begins_it_anew(tmp_path: Path):
    path = tmp_path / "state.json"
    assert AgentState.read(path) == AgentState()
    state = AgentState()
    for version in (1, 2, 3, 1, 4, 5, 6):
        state.served(DesiredModel(name="m", version=version, digest=str(version) * 64))
    assert [model.version for model in state.recent["m"]] == [6, 5, 4, 1][:REMEMBERED]
    model = state.recent["m"][0]
    state.verify(model, "2.51.0")
    state.doubted.add("gravswell-member-m-1")
    state.write(path)
    found = AgentState.read(path)
    assert found == state
    assert found.verified_by("2.51.0") == {model.digest}
    assert found.verified_by("2.52.0") == set(), "another Triton must reproduce them itself"
    found.forget_verified(keep=())
    assert found.verified_by("2.51.0") == set()
    path.write_text("{")
    assert AgentState.read(path) == AgentState()


async def test_a_taken_port_is_said():
    async with Endpoint("127.0.0.1:0", {}) as first:
        with pytest.raises(UnavailableError, match="choose another --listen"):
            async with Endpoint(first.address, {}):
                pass


def test_metrics_are_prometheus_text():
    failed = ModelReport(
        name='a"b', state=ModelState.FAILED, desired_version=2, loaded_version=1, seconds={"load": 0.25}
    )
    lines = metrics(Report(pod="p", ready=True, triton="2.51.0", models=(failed,))).splitlines()
    assert "gravswell_agent_ready 1" in lines
    assert 'gravswell_model_loaded_version{model="a\\"b"} 1' in lines
    assert 'gravswell_model_failed{model="a\\"b"} 1' in lines
    assert 'gravswell_model_stage_seconds{model="a\\"b",stage="load"} 0.25' in lines


class EchoTriton:
    """Answers every inference with its inputs as outputs, and notes what travelled."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    async def infer(self, _model, _version, inputs, outputs, *, limit):
        self.asked.append(inputs["x"].shape)
        return dict.fromkeys(outputs, inputs["x"])


@pytest.mark.parametrize(
    ("config", "shape", "asked"),
    [
        ("dims: [ -1, 4 ]", (7, 4), [(7, 4)]),
        ("dims: [ 4 ]", (7, 4), [(3, 4), (3, 4), (1, 4)]),
        ("dims: [ 1 ] reshape { shape: [] }", (7,), [(3, 1), (3, 1), (1, 1)]),
        ("dims: [ 1 ]", (), [(1,)]),
    ],
    ids=["no batching", "more rows than a batch", "a scalar for each row", "a scalar"],
)
async def test_samples_travel_as_the_config_declares(config: str, shape: tuple[int, ...], asked: list[tuple[int, ...]]):
    batched = len(asked) > 1
    message = parse_config(
        f'name: "m" max_batch_size: {3 if batched else 0} input {{ name: "x" data_type: TYPE_FP32 {config} }}'
    )
    x = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    triton = EchoTriton()
    await prove(triton, message, "m", 1, Golden([Sample({"x": x}, {"y": x})], None, None, {}), limit=1.0)
    assert triton.asked == asked


def test_the_smallest_sample_is_the_probe(repository: Path):
    publish(repository, "m", 1, 1.0)
    golden = read_golden(repository / "m/1")
    assert golden is not None
    assert (golden.rtol, golden.atol) == (1e-4, 1e-5)
    assert [len(sample.inputs["x"]) for sample in golden.samples] == [1, 3]
    assert [len(sample.inputs["x"]) for sample in golden.smallest().samples] == [1]
    assert read_golden(repository / "m") is None
