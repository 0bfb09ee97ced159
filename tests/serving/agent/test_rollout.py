"""Versions come, go back and are broken while clients never pause. On the real Triton."""

import asyncio
import contextlib
import errno

import aiohttp
import pytest

from gravswell.serving.agent import patience, private, steps
from gravswell.serving.agent.folder import ModelFolder
from gravswell.serving.agent.triton import TritonControl
from gravswell.serving.contracts import DesiredModel, ModelState, Reason, Verification

from .running import until
from .traffic import Traffic
from .versions import SLEEPER, endless_graph, failing_graph, flip_a_bit, publish, scaling_graph


def model(version: int, digest: str | None, **more: object) -> DesiredModel:
    return DesiredModel(name="scale", version=version, digest=digest, **more)  # type: ignore[arg-type]


async def test_versions_switch_and_broken_ones_do_not_and_no_request_fails(agent, triton, repository, models):
    first = publish(repository, "scale", 1, 1.0)
    second = publish(repository, "scale", 2, 2.0)
    flipped = publish(repository, "scale", 3, 3.0)
    flip_a_bit(repository / "scale/3/model.onnx")
    lying = publish(repository, "scale", 4, 4.0, golden_factor=4.5)
    unloadable = publish(repository, "scale", 5, 5.0, graph=b"no graph at all")
    last = publish(repository, "scale", 6, 6.0)

    def numbers() -> list[str]:
        return sorted(path.name for path in (models / "scale").iterdir() if path.is_dir())

    async with agent() as running:
        running.desire(model(1, first))
        report = await running.serves("scale", 1)
        assert report.verified
        assert report.loaded_digest == first
        assert set(report.seconds) == {"download", "verify", "load", "prove"}

        with Traffic("scale", http_address=triton.http_address, grpc_address=triton.grpc_address) as traffic:
            await until(lambda: len(traffic.answers) > 20, "answers flow")
            assert set(traffic.answers) == {1.0}

            running.desire(model(2, second))
            await running.serves("scale", 2)
            await until(lambda: traffic.last == 2.0, "the second version answers")

            running.desire(model(1, first))  # rolled back: it is still here, nothing is fetched
            (repository / "scale/1/model.onnx").rename(repository / "gone.onnx")
            report = await running.serves("scale", 1)
            assert set(report.seconds) == {"load", "prove"}
            await until(lambda: traffic.last == 1.0, "the first version answers again")

            for version, digest, reason, words in (
                (3, flipped, Reason.HASH_MISMATCH, "sha256"),
                (4, lying, Reason.GOLDEN_MISMATCH, "golden sample 0: output y"),
                (5, unloadable, Reason.LOAD_FAILED, "scale/5/model.onnx"),
                (7, "0" * 64, Reason.VERSION_NOT_FOUND, "published are 6, 5, 4, 3, 2, 1"),
                (6, "1" * 64, Reason.DIGEST_MISMATCH, "was replaced"),
            ):
                answered = len(traffic.answers)
                running.desire(model(version, digest))
                report = await running.settled("scale", version)
                assert (report.state, report.reason) == (ModelState.FAILED, reason), report.message
                assert words in report.message
                assert (report.loaded_version, report.loaded_digest) == (1, first)
                assert running.ledger.ready, "a broken version must not make the pod unready"
                await until(lambda seen=answered: len(traffic.answers) > seen + 20, "answers flow on")
                assert set(traffic.answers[answered:]) == {1.0}

            running.desire(model(6, last))
            await running.serves("scale", 6)
            await until(lambda: traffic.last == 6.0, "the sixth version answers")

        assert traffic.errors == []
        assert set(traffic.answers) == {1.0, 2.0, 6.0}, "no broken version ever answered"
        await until(lambda: numbers() == ["1", "6"], "what serves and the one before stay, the others go")
        await until(lambda: not list(models.glob("gravswell-proof-*")), "golden proofs leave nothing behind")


async def test_a_copy_that_went_bad_on_this_machine_is_fetched_again(agent, repository, models):
    first, second = publish(repository, "scale", 1, 1.0), publish(repository, "scale", 2, 2.0)
    async with agent() as running:
        for version, digest in ((1, first), (2, second)):
            running.desire(model(version, digest))
            await running.serves("scale", version)
        (models / "scale/1/model.onnx").write_bytes(b"a bad sector")
        running.desire(model(1, first))
        report = await running.settled("scale", 1)
        assert report.reason == Reason.LOAD_FAILED
        assert "fetched again" in report.message
        assert report.loaded_version == 2
        await until(lambda: running.report_of("scale").state is ModelState.SERVING, "the sound copy serves")
        report = running.report_of("scale")
        assert (report.loaded_version, report.loaded_digest, report.verified) == (1, first, True)


async def test_a_fault_in_house_keeping_ends_nothing(agent, repository, monkeypatch, caplog):
    digests = {number: publish(repository, "scale", number, float(number)) for number in (1, 2, 3)}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ModelFolder, "remove", full)
    async with agent() as running:
        for number, digest in digests.items():
            running.desire(model(number, digest))
            await running.serves("scale", number)
        await until(lambda: "the removal of what is not needed failed" in caplog.text, "it is told")
        beat = running.reconciler.beat
        await until(lambda: running.reconciler.beat > beat, "the loop goes round")

        async def garbled(*_: object) -> None:
            raise KeyError("version")

        monkeypatch.setattr(TritonControl, "version", garbled)
        await until(lambda: "the look at Triton failed" in caplog.text, "it is told")
        beat = running.reconciler.beat
        await until(lambda: running.reconciler.beat > beat, "the loop goes round")
        assert running.ledger.ready


async def _readiness(address: str, seen: set[int]) -> None:
    """Ask ``/readyz`` again and again."""
    async with aiohttp.ClientSession() as client:
        while True:
            async with client.get(f"http://{address}/readyz") as answer:
                seen.add(answer.status)


@pytest.mark.parametrize("verification", [Verification.GOLDEN, Verification.HASHES])
async def test_a_pod_stays_ready_while_versions_switch(agent, repository, monkeypatch, verification):
    digests = {number: publish(repository, "scale", number, float(number)) for number in (1, 2, 3)}
    async with agent() as running:
        running.desire(model(1, digests[1], verification=verification))
        await running.serves("scale", 1)
        statuses: set[int] = set()
        asking = asyncio.create_task(_readiness(running.server.address, statuses))
        running.desire(model(2, digests[2], verification=verification))
        await running.serves("scale", 2)
        # A machine on which no answer comes in time: the switch is done, and slow is not wrong.
        monkeypatch.setattr(steps, "PROBE_SECONDS", 1e-4)
        running.desire(model(3, digests[3], verification=verification))
        await until(lambda: running.report_of("scale").loaded_version == 3, "the third version takes traffic")
        if verification is Verification.GOLDEN:
            await running.serves("scale", 3)
        else:
            assert (await running.settled("scale", 3)).reason == Reason.NO_ANSWER
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        assert statuses == {200}


async def test_a_new_version_that_answers_wrongly_costs_the_trust_it_inherited(agent, repository):
    good = publish(repository, "scale", 1, 1.0)
    broken = publish(repository, "scale", 2, 2.0, graph=failing_graph())
    async with agent() as running:
        running.desire(model(1, good))
        await running.serves("scale", 1)
        running.desire(model(2, broken, verification=Verification.HASHES))
        report = await running.settled("scale", 2)
        assert (report.reason, report.loaded_version) == (Reason.INFERENCE_FAILED, 2)
        assert not running.ledger.ready


async def test_a_proof_without_an_answer_is_told_once_and_blocks_nothing(agent, triton, repository, monkeypatch):
    monkeypatch.setattr(private, "PROOF_SECONDS", 5.0)
    monkeypatch.setattr(private, "END_SECONDS", 1.0)
    endless = publish(repository, "endless", 1, 1.0, graph=endless_graph())
    sound = publish(repository, "scale", 1, 1.0)
    async with agent() as running:
        running.desire(DesiredModel(name="endless", version=1, digest=endless), model(1, sound))
        report = await running.settled("endless", 1)
        assert (report.state, report.reason) == (ModelState.FAILED, Reason.NO_ANSWER)
        assert "no answer to its golden inputs within 5 s" in report.message
        await running.serves("scale", 1)
        assert running.ledger.ready
        await until(
            lambda: "earlier golden proof" in running.report_of("endless").message, "no second proof beside the first"
        )
        assert running.ledger.triton_version, "what never ends is no sign that Triton is gone"
        assert running.ledger.ready
    log = triton.process.log.read_text()
    assert log.count("successfully loaded 'gravswell-proof-" + endless[:16]) == 1


async def test_proofs_that_hang_hold_up_neither_other_models_nor_their_successors(agent, repository, monkeypatch):
    monkeypatch.setattr(private, "OVERDUE_SECONDS", 2.0)
    monkeypatch.setattr(private, "END_SECONDS", 1.0)
    stuck = [
        DesiredModel(name=name, version=1, digest=publish(repository, name, 1, 1.0, graph=endless_graph()))
        for name in ("a-stuck", "b-stuck")  # as many as there are places, and the first to come
    ]
    assert len(stuck) >= private.PARALLEL_PROOFS
    sound = publish(repository, "scale", 1, 1.0)
    async with agent() as running:
        running.desire(*stuck, model(1, sound))
        assert (await running.serves("scale", 1)).verified
        await until(lambda: running.ledger.ready, "the pod is ready")
        for one in stuck:
            assert running.report_of(one.name).state is ModelState.VERIFYING, "they are at it still, for five minutes"
        mended = stuck[0].model_copy(update={"version": 2, "digest": publish(repository, "a-stuck", 2, 2.0)})
        running.desire(mended, stuck[1], model(1, sound))
        await running.serves("a-stuck", 2)
        running.desire(model(1, sound))
        await until(lambda: [one.name for one in running.server.report().models] == ["scale"], "the others are gone")
        assert running.ledger.ready


@pytest.mark.parametrize("verification", [Verification.GOLDEN, Verification.HASHES])
async def test_loads_that_never_end_hold_up_neither_other_models_nor_readiness(
    agent, triton, repository, monkeypatch, verification
):
    """Under a private name, and under the model's own."""
    monkeypatch.setattr(patience, "LOAD_OVERDUE_SECONDS", 6.0)
    stuck = [
        DesiredModel(
            name=name, version=1, digest=publish(repository, name, 1, 1.0, python=SLEEPER), verification=verification
        )
        for name in ("a-stuck", "b-stuck")  # as many as there are places, and the first to come
    ]
    assert len(stuck) >= max(private.PARALLEL_PROOFS, steps.PARALLEL_LOADS)
    sound = publish(repository, "scale", 1, 1.0)
    async with agent() as running:
        running.desire(*stuck, model(1, sound))
        await running.serves("scale", 1)
        await until(lambda: running.ledger.ready, "the pod is ready")
        under_way = ModelState.VERIFYING if verification is Verification.GOLDEN else ModelState.LOADING
        for one in stuck:
            assert running.report_of(one.name).state is under_way, "they are at it still, for an hour"
            name = f"gravswell-proof-{one.digest[:16]}" if verification is Verification.GOLDEN else one.name
            began = f"loading: {name}:1"
            await until(lambda began=began: began in triton.process.log.read_text(), "and not behind one another")
        mended = stuck[0].model_copy(update={"version": 2, "digest": publish(repository, "a-stuck", 2, 2.0)})
        running.desire(mended, stuck[1], model(1, sound))
        if verification is Verification.GOLDEN:
            await running.serves("a-stuck", 2)
        else:  # the name is Triton's until the load ends
            report = await running.settled("a-stuck", 2)
            assert (report.state, report.reason) == (ModelState.FAILED, Reason.NO_ANSWER)
            assert "restart the pod" in report.message
        running.desire(model(1, sound))
        await until(lambda: [one.name for one in running.server.report().models] == ["scale"], "the others are gone")
        assert running.ledger.ready
        if verification is Verification.GOLDEN:
            running.desire(stuck[1], model(1, sound))
            report = await running.settled("b-stuck", 1)
            assert (report.state, report.reason) == (ModelState.FAILED, Reason.NO_ANSWER), "no second load beside it"
            assert running.ledger.ready


async def test_a_pod_waits_for_a_proof_that_is_not_overdue(agent, repository, monkeypatch):
    """Else clients of the second model would be sent to a pod that is about to serve it."""
    monkeypatch.setattr(private, "OVERDUE_SECONDS", 60.0)
    monkeypatch.setattr(private, "PROOF_SECONDS", 8.0)
    monkeypatch.setattr(private, "END_SECONDS", 1.0)
    stuck = publish(repository, "stuck", 1, 1.0, graph=endless_graph())
    sound = publish(repository, "scale", 1, 1.0)
    async with agent() as running:
        running.desire()  # as while the repository is not listed yet: that nothing was tried is no first load
        await until(lambda: running.ledger.desired is not None, "nothing is desired")
        running.desire(model(1, sound), DesiredModel(name="stuck", version=1, digest=stuck))
        await running.serves("scale", 1)
        while running.report_of("stuck").state is not ModelState.FAILED:
            assert not running.ledger.ready
            await asyncio.sleep(0.1)
        assert running.ledger.ready


async def test_what_a_load_under_way_replaces_is_not_called_verified(agent, repository, monkeypatch):
    """Ranks that go back to it would be opened, and the load of what they leave takes it from their clients."""
    digests = {number: publish(repository, "scale", number, float(number)) for number in (1, 2)}
    load, has_loaded, may_end = TritonControl.load, asyncio.Event(), asyncio.Event()

    async def slow(self: TritonControl, name: str, config: str) -> None:
        await load(self, name, config)
        if name == "scale" and digests[2] in config:
            has_loaded.set()
            await may_end.wait()

    async with agent() as running:
        running.desire(model(1, digests[1]))
        assert (await running.serves("scale", 1)).verified
        monkeypatch.setattr(TritonControl, "load", slow)
        running.desire(model(2, digests[2]))
        await asyncio.wait_for(has_loaded.wait(), 60)
        assert running.report_of("scale").verified, "the earlier version is, until the answer is here"
        running.desire(model(1, digests[1]))
        await until(lambda: running.server.report().revision == running.revision, "the agent knows of the way back")
        assert not running.report_of("scale").verified
        may_end.set()
        assert (await running.serves("scale", 1)).verified


async def test_a_version_that_heals_is_taken(agent, repository):
    digest = publish(repository, "scale", 1, 1.0)
    path = repository / "scale/1/model.onnx"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])  # an upload that is not complete yet
    async with agent() as running:
        running.desire(model(1, digest))
        report = await running.settled("scale", 1)
        assert report.reason == Reason.HASH_MISMATCH
        assert not running.ledger.ready
        path.write_bytes(sound)
        await until(lambda: running.report_of("scale").state is ModelState.SERVING, "the healed version serves")
        assert running.ledger.ready


async def test_models_come_and_go(agent, triton, repository, models):
    digests = {name: publish(repository, name, 1, factor) for name, factor in (("a", 1.0), ("b", 2.0))}

    def desired(name: str) -> DesiredModel:
        return DesiredModel(name=name, version=1, digest=digests[name])

    async with agent() as running, aiohttp.ClientSession() as client:
        url = f"http://{running.server.address}"
        async with client.get(f"{url}/readyz") as answer:
            assert answer.status == 503
        running.desire()
        await until(lambda: running.ledger.desired is not None, "it is known that nothing is desired")
        await until(lambda: running.ledger.triton_version, "Triton answers")
        async with client.get(f"{url}/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "no model is desired\n")

        running.desire(desired("a"), desired("b"))
        await running.serves("a", 1)
        await running.serves("b", 1)
        assert [served.name for served in triton.served()] == ["a", "b"]

        running.desire(desired("b"))
        await until(lambda: [served.name for served in triton.served()] == ["b"], "a is unloaded")
        await until(lambda: not (models / "a").exists(), "a's files are gone")
        async with client.get(f"{url}/readyz") as answer:
            assert (answer.status, await answer.text()) == (200, "ready\n")
        async with client.get(f"{url}/livez") as answer:
            assert answer.status == 200
        async with client.get(f"{url}/report") as answer:
            report = await answer.json()
        assert report["ready"]
        assert report["triton"] == "2.51.0"
        assert [one["name"] for one in report["models"]] == ["b"]
        async with client.get(f"{url}/metrics") as answer:
            assert 'gravswell_model_loaded_version{model="b"} 1' in await answer.text()

        running.desire()
        await until(lambda: not running.ledger.ready, "with its last model it leaves traffic")


async def test_verification_is_what_the_model_demands(agent, repository):
    no_golden = publish(repository, "scale", 1, 1.0, golden=False)
    wrong_golden = publish(repository, "scale", 2, 2.0, golden_factor=9.0)
    theirs = repository / "scale/3"
    theirs.mkdir()
    (theirs / "model.onnx").write_bytes(scaling_graph(3.0))

    async with agent() as running:
        running.desire(model(1, no_golden))
        assert (await running.settled("scale", 1)).reason == Reason.UNVERIFIED
        running.desire(model(1, no_golden, verification=Verification.HASHES))
        assert not (await running.serves("scale", 1)).verified
        running.desire(model(2, wrong_golden, verification=Verification.HASHES))
        await running.serves("scale", 2)

        running.desire(model(3, None, verification=Verification.HASHES))
        assert (await running.settled("scale", 3)).reason == Reason.UNVERIFIED
        running.desire(model(3, None, verification=Verification.NONE))
        report = await running.serves("scale", 3)
        assert report.loaded_digest is None
        assert running.ledger.ready


async def test_instances_change_without_a_new_version(agent, triton, repository):
    digest = publish(repository, "scale", 1, 1.0)
    async with agent() as running:
        running.desire(model(1, digest))
        await running.serves("scale", 1)
        with Traffic("scale", http_address=triton.http_address, grpc_address=triton.grpc_address) as traffic:
            running.desire(model(1, digest, instances=2))

            def counted() -> bool:
                loaded = running.ledger.serving.get("scale")
                return loaded is not None and loaded.proven and loaded.loaded.key != before

            before = running.ledger.serving["scale"].loaded.key
            await until(counted, "the model is loaded with two instances")
            await until(lambda: len(traffic.answers) > 20, "answers flow")
        assert traffic.errors == []


async def test_the_repository_does_not_matter_after_the_start(agent, triton, repository):
    digest = publish(repository, "scale", 1, 1.0)
    async with agent() as running:
        running.desire(model(1, digest))
        await running.serves("scale", 1)
        away = repository.with_name("away")
        repository.rename(away)
        running.desire(model(1, digest), DesiredModel(name="other", version=1, digest="0" * 64))
        report = await running.settled("other", 1)
        assert report.reason == Reason.REPOSITORY_NOT_FOUND
        assert running.ledger.ready
        away.rename(repository)
        publish(repository, "other", 2, 2.0)
        await until(
            lambda: running.report_of("other").reason == Reason.VERSION_NOT_FOUND, "the repository is asked again"
        )


@pytest.mark.parametrize("action", ["expose", "place"])
async def test_a_disk_that_gets_full_is_told_and_the_version_served_once_there_is_room(
    agent, repository, monkeypatch, action
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    digest = publish(repository, "scale", 1, 1.0)
    async with agent() as running:
        with monkeypatch.context() as patch:
            patch.setattr(ModelFolder, action, full)
            running.desire(model(1, digest))
            report = await running.settled("scale", 1)
            assert (report.state, report.reason) == (ModelState.FAILED, Reason.NO_SPACE)
            assert "give the server more model storage" in report.message
        await until(lambda: running.report_of("scale").state is ModelState.SERVING, "there is room")


async def test_no_room_is_said_before_a_download(agent, repository, monkeypatch):
    digest = publish(repository, "scale", 1, 1.0)
    monkeypatch.setattr(ModelFolder, "free_bytes", lambda _: 1000)
    async with agent() as running:
        running.desire(model(1, digest))
        report = await running.settled("scale", 1)
        assert report.reason == Reason.NO_SPACE
        assert "give the server more model storage" in report.message
