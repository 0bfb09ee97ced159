"""Agents, Tritons and backend processes that end while models serve. On the real Triton."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

from gravswell.serving.agent import steps, view
from gravswell.serving.agent.ledger import MOST_DEATHS
from gravswell.serving.agent.triton import TritonControl
from gravswell.serving.agent.work import Pace
from gravswell.serving.contracts import PRIVATE_PREFIX, DesiredModel, ModelState, Reason, Verification
from gravswell.serving.triton import EmbeddedTriton

from .running import KEY, PATIENCE, MakeAgent, Running, start_triton, until
from .traffic import Traffic
from .versions import WIDTH, config_text, publish


def model(version: int, digest: str, **more: object) -> DesiredModel:
    return DesiredModel(name="scale", version=version, digest=digest, **more)  # type: ignore[arg-type]


def deadly(loaded: Path) -> str:
    """A model that serves when it is loaded for the first time, which ``loaded`` tells, and then kills its server."""
    return f"""
import os, pathlib, signal

class TritonPythonModel:
    def initialize(self, args):
        seen = pathlib.Path({str(loaded)!r})
        if seen.exists():
            os.kill(os.getppid(), signal.SIGKILL)
        seen.touch()
"""


def stubs(triton: EmbeddedTriton) -> list[int]:
    """Process ids of the backend processes, one for each instance."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it may end while we look
            if process.name.isdigit() and b"triton_python_backend_stub" in (process / "cmdline").read_bytes():
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == triton.process.pid:
                    found.append(int(process.name))
    return found


def loads(triton: EmbeddedTriton) -> int:
    """How often Triton has loaded the model."""
    return triton.process.log.read_text().count("successfully loaded 'scale'")


def serves(running: Running, triton: EmbeddedTriton) -> bool:
    """Whether the pod is ready with this Triton: the ledger alone may still speak of the one before."""
    return running.ledger.ready and loads(triton) > 0


def ended(triton: EmbeddedTriton) -> bool:
    return triton.process.returncode is not None


def answer(triton: EmbeddedTriton) -> float:
    """The factor that one request's answer shows."""
    with http.InferenceServerClient(triton.http_address) as client:
        tensor = http.InferInput("x", [1, WIDTH], "FP32")
        tensor.set_data_from_numpy(np.full((1, WIDTH), 3.0, np.float32))
        return float(client.infer("scale", [tensor]).as_numpy("y")[0, 0] / 3.0)


async def test_an_agent_that_restarts_adopts_what_is_loaded(agent: MakeAgent, triton, repository):
    digest = publish(repository, "scale", 1, 1.0)
    async with agent() as running:
        running.desire(model(1, digest))
        await running.serves("scale", 1)
    with Traffic("scale", http_address=triton.http_address, grpc_address=triton.grpc_address) as traffic:
        await until(lambda: len(traffic.answers) > 20, "answers flow without an agent")
        running.desired_file.unlink()  # its source does not answer: it goes on with what it saw last
        async with agent() as again:
            again.revision = running.revision
            assert not again.ledger.ready
            report = await again.serves("scale", 1)
            await until(lambda: again.ledger.ready, "the adopted model is proven")
            assert report.loaded_digest == digest
            assert loads(triton) == 1
            assert set(report.seconds) <= {"prove"}, "nothing was fetched, verified or loaded"
    assert traffic.errors == []


async def test_what_changed_while_the_agent_was_away_is_caught_up(agent: MakeAgent, triton, repository, models):
    first, second = publish(repository, "scale", 1, 1.0), publish(repository, "scale", 2, 2.0)
    async with agent() as running:
        running.desire(model(1, first))
        await running.serves("scale", 1)
    name = "gravswell-proof-0123456789abcdef"
    leftover = models / name / "1"
    shutil.copytree(models / "scale/1", leftover)
    (leftover.parent / "config.pbtxt").write_text(config_text(name, kind="KIND_CPU"))
    triton.control.load(name, None, 60)  # an agent was killed amid a golden proof
    running.desire(model(2, second))
    async with agent() as again:
        again.revision = running.revision
        await again.serves("scale", 2)
        assert answer(triton) == 2.0
        await until(lambda: len(stubs(triton)) == 1, "the leftover's process is gone, and that of the first version")
        await until(lambda: not leftover.parent.exists(), "and so is its folder")


async def test_a_triton_that_restarted_since_the_last_look_takes_no_traffic(
    agent: MakeAgent, repository, models, ports, monkeypatch
):
    monkeypatch.setattr(view, "ASK_SECONDS", PATIENCE)  # what is asked is answered, however busy the machine is
    digest = publish(repository, "scale", 1, 1.0)
    with start_triton(models, ports=ports) as old:
        place = {"triton_http": old.http_address, "triton_grpc": old.grpc_address}
        async with agent(**place) as before:
            before.desire(model(1, digest))
            await before.serves("scale", 1)
        async with (
            agent(**place, pace=Pace(tick=3600.0), interval=3600.0) as running,
            aiohttp.ClientSession() as client,
        ):

            async def readyz() -> int:
                async with client.get(f"http://{running.server.address}/readyz") as answer:
                    return answer.status

            running.revision = before.revision
            await running.serves("scale", 1)
            assert await readyz() == 200
            old.stop()
            with start_triton(models, ports=ports) as new:
                assert running.ledger.ready, "the agent has not looked"
                assert await readyz() == 503
                await until(lambda: running.ledger.ready and loads(new), "it looks at once, not an hour later")
                assert await readyz() == 200


async def test_a_triton_that_restarts_is_filled_again(agent: MakeAgent, repository, models, ports):
    """At once, also where what is wanted failed and is tried again much later."""
    first = publish(repository, "scale", 1, 1.0)
    broken = publish(repository, "scale", 2, 2.0, golden_factor=2.5)
    with start_triton(models, ports=ports) as old:
        patient = Pace(tick=0.5, first_retry=300.0)
        async with agent(triton_http=old.http_address, triton_grpc=old.grpc_address, pace=patient) as running:
            running.desire(model(1, first))
            await running.serves("scale", 1)
            running.desire(model(2, broken))
            assert (await running.settled("scale", 2)).reason == Reason.GOLDEN_MISMATCH

            old.stop()
            await until(lambda: running.server.report().triton == "", "it is seen that Triton is gone")
            report = running.server.report()
            assert not report.ready, "the pod is unready without Triton"
            assert report.models[0].loaded_version is None
            repository.rename(repository.with_name("away"))  # a restart needs no repository
            with start_triton(models, ports=ports) as new:
                await until(lambda: running.ledger.ready, "the last good version serves again")
                assert answer(new) == 1.0
                found = running.report_of("scale")
                assert (found.loaded_version, found.loaded_digest) == (1, first)
                await until(
                    lambda: running.report_of("scale").state is ModelState.FAILED, "the broken one is still told"
                )


async def test_an_earlier_version_that_ends_triton_does_not_keep_the_wanted_one_away(
    agent: MakeAgent, repository, models, ports, tmp_path: Path
):
    """It loads once; whenever it is loaded again it takes the server with it."""
    first = publish(repository, "scale", 1, 1.0, golden=False, python=deadly(tmp_path / "loaded"))
    second = publish(repository, "scale", 2, 2.0)
    with start_triton(models, ports=ports) as old:
        async with agent(triton_http=old.http_address, triton_grpc=old.grpc_address) as running:
            running.desire(model(1, first, verification=Verification.HASHES))
            await running.serves("scale", 1)
            old.stop()
            await until(lambda: not running.ledger.ready, "the pod is unready without Triton")
            running.desire(model(2, second))
            for ends in range(MOST_DEATHS):
                with start_triton(models, ports=ports) as new:
                    await until(lambda new=new: serves(running, new) or ended(new), "it serves or ends")
                    if not ended(new):
                        assert await asyncio.to_thread(answer, new) == 2.0
                        assert ends == 1, "the first server was killed, and no other"
                        return
            pytest.fail("every server was killed")


async def test_a_wanted_version_that_ends_triton_is_given_up(
    agent: MakeAgent, repository, models, ports, tmp_path: Path
):
    first = publish(repository, "scale", 1, 1.0)
    (tmp_path / "loaded").touch()
    second = publish(repository, "scale", 2, 2.0, python=deadly(tmp_path / "loaded"))
    with start_triton(models, ports=ports) as old:
        async with agent(triton_http=old.http_address, triton_grpc=old.grpc_address) as running:
            running.desire(model(1, first))
            await running.serves("scale", 1)
            running.desire(model(2, second))
            await until(lambda: ended(old), "its verification ends the server")
            for _ in range(MOST_DEATHS):
                with start_triton(models, ports=ports) as new:
                    await until(
                        lambda new=new: (
                            ended(new)
                            or (serves(running, new) and "it is not tried again" in running.report_of("scale").message)
                        ),
                        "it ends, or serves without the version",
                    )
                    if not ended(new):
                        report = running.report_of("scale")
                        assert (report.state, report.reason) == (ModelState.FAILED, Reason.LOAD_FAILED)
                        assert await asyncio.to_thread(answer, new) == 1.0
                        return
            pytest.fail("every server was ended")


async def test_a_version_that_cannot_be_fetched_yet_holds_up_nobody_who_has_an_earlier_one(
    agent: MakeAgent, repository, models, ports, monkeypatch
):
    """Agent and Triton restart while the repository neither answers nor refuses; then Triton alone, amid the fetch."""
    first, second = publish(repository, "scale", 1, 1.0), publish(repository, "scale", 2, 2.0)
    with start_triton(models, ports=ports) as old:
        async with agent(triton_http=old.http_address, triton_grpc=old.grpc_address) as running:
            running.desire(model(1, first))
            await running.serves("scale", 1)
        running.desire(model(2, second))
    answers, fetch = threading.Event(), steps.supply.fetch

    def waiting(*given: object, **named: object) -> int:
        answers.wait()
        return fetch(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(steps.supply, "fetch", waiting)
    with start_triton(models, ports=ports) as new, contextlib.ExitStack() as at_last:
        at_last.callback(answers.set)
        async with agent(triton_http=new.http_address, triton_grpc=new.grpc_address) as again:
            again.revision = running.revision
            await until(lambda: again.ledger.ready, "the earlier version serves again")
            assert answer(new) == 1.0
            await until(lambda: again.report_of("scale").state is ModelState.DOWNLOADING, "the wanted one is fetched")
            assert again.ledger.ready
            new.stop()
            await until(lambda: not again.ledger.ready, "the pod is unready without Triton")
            with start_triton(models, ports=ports) as newest:
                await until(lambda: again.ledger.ready, "the earlier version serves again, though the fetch waits on")
                assert answer(newest) == 1.0
                assert again.report_of("scale").state is ModelState.DOWNLOADING
                answers.set()
                await again.serves("scale", 2)
                assert answer(newest) == 2.0


@pytest.mark.parametrize("instances", [1, 2], ids=["the only process", "one of two"])
async def test_a_dead_backend_process_is_replaced(agent: MakeAgent, triton, repository, instances):
    digest = publish(repository, "scale", 1, 1.0)
    async with agent() as running:
        running.desire(model(1, digest, instances=instances))
        await running.serves("scale", 1)
        processes = stubs(triton)
        assert len(processes) == instances
        os.kill(processes[0], signal.SIGKILL)
        assert [served.name for served in triton.served()] == ["scale"], "Triton still says ready"
        await until(lambda: loads(triton) == 2, "the model is loaded again")
        await until(lambda: running.ledger.ready, "the model is proven again")
        assert [answer(triton) for _ in range(6)] == [1.0] * 6
        await running.serves("scale", 1)


async def test_a_dead_backend_whose_files_went_bad_gets_others(agent: MakeAgent, triton, repository, models):
    digest = publish(repository, "scale", 1, 1.0)
    async with agent() as running:
        running.desire(model(1, digest))
        await running.serves("scale", 1)
        (models / "scale/1/model.onnx").write_bytes(b"a bad sector")
        os.kill(stubs(triton)[0], signal.SIGKILL)
        await until(lambda: running.report_of("scale").state is ModelState.FAILED, "it does not load again")
        assert "fetched again" in running.report_of("scale").message
        await until(lambda: running.report_of("scale").state is ModelState.SERVING, "the sound copy serves")
        assert running.ledger.ready
        assert await asyncio.to_thread(answer, triton) == 1.0


async def test_a_dead_backend_of_an_unknown_load_holds_up_no_version(agent: MakeAgent, triton, repository, models):
    """Its agent lost its memory, and the version that died is not known any more."""
    first, second = publish(repository, "scale", 1, 1.0), publish(repository, "scale", 2, 2.0)
    async with agent() as running:
        running.desire(model(1, first))
        await running.serves("scale", 1)
    (models / ".gravswell/state.json").unlink()
    os.kill(stubs(triton)[0], signal.SIGKILL)
    away = repository.rename(repository.with_name("away"))
    running.desire(model(2, second))
    async with agent() as again:
        again.revision = running.revision
        assert (await again.settled("scale", 2)).reason == Reason.REPOSITORY_NOT_FOUND
        away.rename(repository)
        await until(lambda: again.report_of("scale").state is ModelState.SERVING, "the second version serves")
        assert await asyncio.to_thread(answer, triton) == 2.0


@pytest.mark.parametrize("stage", [ModelState.VERIFYING, ModelState.LOADING])
async def test_a_triton_that_is_killed_amid_a_load(agent: MakeAgent, repository, models, ports, monkeypatch, stage):
    digest = publish(repository, "scale", 1, 1.0)
    with start_triton(models, ports=ports) as old:
        load, killed = TritonControl.load, []

        async def loaded(control: TritonControl, name: str, config: str) -> None:
            if name.startswith(PRIVATE_PREFIX) is (stage is ModelState.VERIFYING) and not killed:
                killed.append(name)
                asyncio.get_running_loop().call_later(0.2, os.killpg, old.process.pid, signal.SIGKILL)
            await load(control, name, config)

        monkeypatch.setattr(TritonControl, "load", loaded)
        async with agent(triton_http=old.http_address, triton_grpc=old.grpc_address) as running:
            running.desire(model(1, digest))
            await until(lambda: bool(killed), "it is killed")
            await until(lambda: running.report_of("scale").reason == Reason.TRITON_UNAVAILABLE, "that is told")
            assert not running.ledger.ready
            with start_triton(models, ports=ports) as new:
                await running.serves("scale", 1)
                assert await asyncio.to_thread(answer, new) == 1.0
                await until(lambda: not list(models.glob(f"{PRIVATE_PREFIX}*")), "the broken proof leaves nothing")


async def test_a_slow_model_is_left_alone(agent: MakeAgent, triton, repository, monkeypatch):
    digest = publish(repository, "scale", 1, 1.0)
    async with agent() as running:
        running.desire(model(1, digest))
        await running.serves("scale", 1)
        processes = stubs(triton)
        monkeypatch.setattr(steps, "PROBE_SECONDS", 1e-4)  # no answer comes so soon
        await _looked_after(running, 5)
        assert running.ledger.ready
        assert running.report_of("scale").state is ModelState.SERVING
        assert stubs(triton) == processes
        assert loads(triton) == 1


async def test_a_busy_model_is_not_probed(agent: MakeAgent, triton, repository, monkeypatch):
    probes = []

    async def probed(*_: object) -> None:
        probes.append(time.monotonic())

    digest = publish(repository, "scale", 1, 1.0)
    async with agent(pace=Pace(tick=0.5, probe=4.0)) as running:  # others are answered between any two looks
        running.desire(model(1, digest))
        await running.serves("scale", 1)
        with Traffic("scale", http_address=triton.http_address, grpc_address=triton.grpc_address) as traffic:
            await until(lambda: len(traffic.answers) > 20, "answers flow")
            await _looked_after(running, 1)
            monkeypatch.setattr(steps.Steps, "infer", probed)
            await _looked_after(running, 3)
        assert traffic.errors == []
        assert probes == []


async def _looked_after(running: Running, times: int) -> None:
    for _ in range(times):
        seen = running.ledger.serving["scale"].probed_at
        await until(lambda: running.ledger.serving["scale"].probed_at > seen, "it is looked after")  # noqa: B023


def test_the_command_serves_the_latest_and_ends_on_sigterm(triton, repository, models, tmp_path: Path):
    publish(repository, "scale", 1, 1.0)
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    command = [sys.executable, "-m", "gravswell", "agent", "run", "--repository", str(repository)]
    command += ["--models", str(models), "--listen", "127.0.0.1:0", "--device", "cpu", "--follow-latest"]
    command += ["--triton-http", triton.http_address, "--triton-grpc", triton.grpc_address]
    command += ["--key-file", str(key_file), "--interval", "0.2"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log)
    try:
        _wait_for(triton, 1.0, tmp_path / "log")
        publish(repository, "scale", 2, 2.0)
        _wait_for(triton, 2.0, tmp_path / "log")
        process.terminate()
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
        assert answer(triton) == 2.0, "what is loaded stays when the agent goes"
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in (tmp_path / "log").read_text()


def _wait_for(triton: EmbeddedTriton, factor: float, log: Path) -> None:
    deadline = time.monotonic() + 90
    seen: float | str = ""
    while seen != factor:
        assert time.monotonic() < deadline, f"{seen}\n{log.read_text()}"
        time.sleep(0.1)
        try:
            seen = answer(triton)
        except InferenceServerException as error:
            seen = str(error)
