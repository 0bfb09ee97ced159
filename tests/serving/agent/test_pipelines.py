"""Pipelines come, go and break while clients never pause; their members are loaded beside them. On the real Triton."""

import asyncio
import contextlib
import os
import re
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest

from gravswell import quiver as qv
from gravswell.names import MEMBER_PREFIX
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving.agent import members
from gravswell.serving.agent.folder import ModelFolder
from gravswell.serving.agent.members import PipelineMembers
from gravswell.serving.agent.state import AgentState
from gravswell.serving.agent.supply import fetch, servable_config
from gravswell.serving.agent.triton import TritonControl
from gravswell.serving.contracts import DesiredModel, ModelState, Reason
from gravswell.serving.triton import EmbeddedTriton

from ...pipelines.serving import functions
from ..triton.conftest import ROWS, ask
from .running import KEY, MakeAgent, Running, until
from .traffic import Traffic
from .versions import flip_a_bit, publish_member, publish_pipeline, scaling_graph


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "RELEASE_SECONDS", 1.0)


def model(name: str, version: int, digest: str) -> DesiredModel:
    return DesiredModel(name=name, version=version, digest=digest)


def there(triton: EmbeddedTriton) -> list[str]:
    """The models that Triton has, members by the names of their entries."""
    found = {row.name for row in triton.control.index() if row.state == "READY"}
    return sorted(re.sub(rf"^{MEMBER_PREFIX}(.+)-[0-9a-f]{{32}}$", r"member \1", name) for name in found)


def loads(triton: EmbeddedTriton, entry: str) -> int:
    """How often Triton has loaded a member."""
    return len(re.findall(rf"successfully loaded '{MEMBER_PREFIX}{entry}-", triton.process.log.read_text()))


def called_as(triton: EmbeddedTriton, entry: str) -> str:
    """What a member is called here, which nobody is told."""
    return next(row.name for row in triton.control.index() if row.name.startswith(f"{MEMBER_PREFIX}{entry}-"))


def backend_process(name: str) -> int:
    """The process that computes what is loaded under ``name``."""
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it may end while we look
            if process.name.isdigit() and name.encode() in (process / "cmdline").read_bytes():
                return int(process.name)
    pytest.fail(f"{name} has no process")


async def failed(running: Running, name: str, version: int) -> str:
    """Why that version is not served."""
    report = await running.settled(name, version)
    assert report.state is ModelState.FAILED, report
    assert MEMBER_PREFIX not in report.message
    return f"{report.reason}: {report.message}"


async def test_a_pipeline_changes_its_members_and_no_request_fails(
    agent: MakeAgent, triton: EmbeddedTriton, repository: Path, models: Path
):
    first, other = publish_member(repository, "first", 1, 2.0), publish_member(repository, "first", 2, 5.0)
    second = publish_member(repository, "second", 1, 3.0)
    broken = publish_member(repository, "broken", 1, 1.0, graph=b"no graph at all")
    one = publish_pipeline(repository, "chain", 1, 6.0, first, second)
    two = publish_pipeline(repository, "chain", 2, 15.0, other, second)
    three = publish_pipeline(repository, "chain", 3, 3.0, broken, second)
    lying = publish_pipeline(repository, "chain", 4, 7.0, first, second)
    async with agent() as running:
        running.desire(model("chain", 1, one))
        report = await running.serves("chain", 1)
        assert report.verified
        assert there(triton) == ["chain", "member first", "member second"]

        with Traffic("chain", http_address=triton.http_address, grpc_address=triton.grpc_address) as traffic:
            await until(lambda: len(traffic.answers) > 20, "answers flow")
            running.desire(model("chain", 2, two))
            await running.serves("chain", 2)
            await until(lambda: traffic.last == 15.0, "the second version answers")

            running.desire(model("chain", 3, three))
            reason = await failed(running, "chain", 3)
            assert reason.startswith("LoadFailed: its member broken/1: broken/1/model.onnx"), reason
            running.desire(model("chain", 4, lying))
            assert (await failed(running, "chain", 4)).startswith("GoldenMismatch: ")
            assert running.report_of("chain").loaded_version == 2
            assert running.ledger.ready

            running.desire(model("chain", 2, two))
            await running.serves("chain", 2)
            await until(lambda: there(triton) == ["chain", "member first", "member second"], "the others are unloaded")
            answered = len(traffic.answers)
            await until(lambda: len(traffic.answers) > answered + 20, "answers flow on")
        assert traffic.errors == []
        assert set(traffic.answers) == {6.0, 15.0}
        assert loads(triton, "second") == 1, "it was shared, and never loaded again"

        repository.rename(repository.with_name("away"))  # noqa: ASYNC240  a rename waits for nothing
        running.desire(model("chain", 1, one))  # rolled back: all that it is made of is still here
        await running.serves("chain", 1)
    loaded = [loads(triton, entry) for entry in ("first", "second")]
    async with agent() as again:
        again.revision = running.revision
        report = await again.serves("chain", 1)
        assert set(report.seconds) <= {"prove"}, "nothing was fetched, verified or loaded"
        assert [loads(triton, entry) for entry in ("first", "second")] == loaded
        again.desire()
        await until(lambda: there(triton) == [], "members go after the last who called them")
        await until(lambda: [path.name for path in models.iterdir()] == [".gravswell"], "and so do their files")
        await until(lambda: not list((models / ".gravswell/staged").iterdir()), "all of them")


async def test_a_member_whose_process_died_is_loaded_again(agent: MakeAgent, triton: EmbeddedTriton, repository: Path):
    first, second = publish_member(repository, "first", 1, 2.0), publish_member(repository, "second", 1, 3.0)
    digest = publish_pipeline(repository, "chain", 1, 6.0, first, second)
    async with agent() as running:
        running.desire(model("chain", 1, digest))
        await running.serves("chain", 1)
        os.kill(backend_process(called_as(triton, "second")), signal.SIGKILL)
        await until(lambda: loads(triton, "second") == 2, "the member is loaded again")
        await until(lambda: running.ledger.ready, "the pipeline is proven again")
        with Traffic("chain", http_address=triton.http_address, grpc_address=triton.grpc_address) as traffic:
            await until(lambda: len(traffic.answers) > 5, "answers flow")
        assert (set(traffic.answers), traffic.errors) == ({6.0}, [])


async def test_what_is_exported_is_served_and_shares_what_it_calls(
    agent: MakeAgent, triton: EmbeddedTriton, repository: Path
):
    """Python with a loop and an ensemble, and their member's entry beside them at another version."""
    repo = qv.ModelRepository(repository)
    repo.add("double").export_version(onnx.load_from_string(scaling_graph(2.0)))
    for pipeline in (functions.power, functions.four):
        repo.add(pipeline.name, qv.Platform.PIPELINE).export_version(pipeline)
    repo.models["double"].export_version(onnx.load_from_string(scaling_graph(-2.0)))
    reader = RepositoryReader(repository)
    power, four, double = (
        model(name, number, reader.version(name, number).digest or "")
        for name, number in (("power", 1), ("four", 1), ("double", 2))
    )
    async with agent() as running:
        running.desire(power, four, double)
        for wanted in (power, four, double):
            assert (await running.serves(wanted.name, wanted.version)).verified
        assert there(triton) == ["double", "four", "member double", "power"]
        assert loads(triton, "double") == 1
        running.desire(power)
        await until(lambda: there(triton) == ["member double", "power"], "what is still called stays")
        answer = await asyncio.to_thread(ask, triton.grpc_address, "power", x=ROWS)
        np.testing.assert_array_equal(answer["z"], ROWS * 16)


@qv.pipeline(inputs={"x": ("FP32", (None, 4))}, output_names=["y"])
def late(x, *, double):
    """Imports a package when it is called."""
    import pyclipper  # noqa: PLC0415

    return double(x) * np.float32(pyclipper.Area([(0, 0), (1, 0), (1, 1), (0, 1)]))


async def test_packages_that_a_server_lacks_are_told_with_the_way_out(agent: MakeAgent, repository: Path):
    """An agent installs nothing: its server is an image."""
    repo = qv.ModelRepository(repository)
    repo.add("double").export_version(onnx.load_from_string(scaling_graph(2.0)))
    async with agent() as running:
        for pipeline in (functions.packaged, late):
            entry = repo.add(pipeline.name, qv.Platform.PIPELINE)
            entry.export_version(pipeline)
            running.desire(model(pipeline.name, 1, entry.versions[0].digest or ""))
            reason = await failed(running, pipeline.name, 1)
            assert "No module named 'pyclipper'" in reason
            told = r"requirements\.txt this server lacks pyclipper==[\d.a-z]+: .*put it into the image"
            assert re.search(told, reason)


async def test_a_member_that_came_after_the_last_look_is_not_withdrawn(
    agent: MakeAgent, triton: EmbeddedTriton, repository: Path, models: Path
):
    """Its folder gone, Triton would no longer show it, and nobody would unload it."""
    first = publish_member(repository, "first", 1, 2.0)
    digest = publish_pipeline(repository, "chain", 1, 4.0, first, first)
    async with agent() as running:
        running.desire(model("chain", 1, digest))
        await running.serves("chain", 1)
    folder = ModelFolder(models)
    folder.prepare()
    async with TritonControl(triton.http_address, key=KEY) as control:
        await PipelineMembers(control, folder, cpu_only=True, key=KEY).release((), (), settled=True)
    assert there(triton) == ["chain", "member first"]
    assert (models / called_as(triton, "first")).is_dir()


async def test_a_member_that_an_earlier_agent_loaded_is_doubted_too(
    agent: MakeAgent, triton: EmbeddedTriton, repository: Path, models: Path
):
    first = publish_member(repository, "first", 1, 2.0)
    wanted = model("chain", 1, publish_pipeline(repository, "chain", 1, 2.0, first))
    async with agent() as running:
        running.desire(wanted)
        await running.serves("chain", 1)
    folder = ModelFolder(models)
    folder.prepare()
    source = folder.find(wanted)
    assert source is not None
    async with TritonControl(triton.http_address, key=KEY) as control:
        members = PipelineMembers(control, folder, cpu_only=True, key=KEY)
        members.doubt(folder.members_of(wanted)[0], wanted)
        await members.ready(wanted, servable_config(source, "chain"))
    assert loads(triton, "first") == 2


async def test_an_agent_that_restarts_still_doubts_what_an_earlier_one_found_damaged(
    agent: MakeAgent, triton: EmbeddedTriton, repository: Path, models: Path, monkeypatch: pytest.MonkeyPatch
):
    """The files here are sound again by then: only what Triton has loaded is not."""
    monkeypatch.setattr(members, "RELEASE_SECONDS", 3600.0)
    first = publish_member(repository, "first", 1, 2.0)
    wanted = model("chain", 1, publish_pipeline(repository, "chain", 1, 2.0, first))
    folder = ModelFolder(models)
    folder.prepare()
    fetch(str(repository), wanted, folder, wanted=lambda: True)
    source = folder.find(folder.members_of(wanted)[0])
    assert source is not None
    (source / "model.onnx").write_bytes(scaling_graph(3.0))
    away = repository.with_name("away")
    async with agent() as running:
        (repository / "first").rename(away)
        running.desire(wanted)
        await until(lambda: loads(triton, "first") == 1, "the damaged files are loaded")
        await until(lambda: folder.state_file.exists() and AgentState.read(folder.state_file).doubted, "that is seen")
    away.rename(repository / "first")
    async with agent() as again:
        again.revision = running.revision
        await again.serves("chain", 1)
        assert loads(triton, "first") == 2
        await until(lambda: not AgentState.read(folder.state_file).doubted, "it is trusted again")


async def test_a_pipeline_with_devices_has_its_members_there(
    agent: MakeAgent, triton: EmbeddedTriton, repository: Path
):
    first = publish_member(repository, "first", 1, 2.0)
    digests = {name: publish_pipeline(repository, name, 1, 2.0, first) for name in ("anywhere", "placed")}
    async with agent() as running:

        async def placed_on(gpus: tuple[int, ...] | None, copies: int) -> None:
            anywhere, placed = (model(name, 1, digest) for name, digest in digests.items())
            running.desire(anywhere, placed.model_copy(update={"gpus": gpus}))
            for name in digests:
                await running.serves(name, 1)
            await until(
                lambda: there(triton).count("member first") == copies, "each has the members that it is to have"
            )
            for name in digests:
                np.testing.assert_array_equal(ask(triton.grpc_address, name, x=ROWS)["y"], ROWS * 2)

        await placed_on(None, 1)
        await placed_on((0,), 2)
        await placed_on(None, 1)


async def test_the_members_of_a_pipeline_are_on_its_devices(agent: MakeAgent, repository: Path):
    first = publish_member(repository, "first", 1, 2.0)
    digest = publish_pipeline(repository, "chain", 1, 2.0, first)
    async with agent(cpu_only=False) as running:
        running.desire(model("chain", 1, digest).model_copy(update={"gpus": (2, 3)}))
        report = await running.settled("chain", 1)
    assert (report.state, report.reason) == (ModelState.FAILED, Reason.LOAD_FAILED)
    assert report.message.startswith("its member first/1: ")
    assert "gpu id 2" in report.message


async def test_a_member_that_cannot_be_had_is_named(agent: MakeAgent, repository: Path, models: Path):
    first, second = publish_member(repository, "first", 1, 2.0), publish_member(repository, "second", 1, 3.0)
    digest = publish_pipeline(repository, "chain", 1, 6.0, first, second)
    graph = (repository / "second/1/model.onnx").read_bytes()
    flip_a_bit(repository / "second/1/model.onnx")
    async with agent() as running:
        running.desire(model("chain", 1, digest))
        assert (await failed(running, "chain", 1)).startswith("HashMismatch: its member second/1: ")
        (repository / "second/1/model.onnx").write_bytes(graph)
        await until(lambda: running.report_of("chain").state is ModelState.SERVING, "the sound member is fetched")
        others = publish_pipeline(repository, "chain", 2, 6.0, first, second.model_copy(update={"digest": "0" * 64}))
        running.desire(model("chain", 2, others))
        reason = await failed(running, "chain", 2)
        assert reason.startswith(f"{Reason.DIGEST_MISMATCH}: its member second/1: "), reason
        assert running.report_of("chain").loaded_version == 1
