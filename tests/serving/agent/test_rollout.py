"""Versions come, go back and are broken while clients never pause. On the real Triton."""

import aiohttp

from gravswell.serving.agent.folder import ModelFolder
from gravswell.serving.contracts import DesiredModel, ModelState, Reason, Verification

from .conftest import until
from .traffic import Traffic
from .versions import flip_a_bit, publish, scaling_graph


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
        assert set(report.seconds) == {"download", "verify", "load"}

        with Traffic("scale", http_address=triton.http_address, grpc_address=triton.grpc_address) as traffic:
            await until(lambda: len(traffic.answers) > 20, "answers flow")
            assert set(traffic.answers) == {1.0}

            running.desire(model(2, second))
            await running.serves("scale", 2)
            await until(lambda: traffic.last == 2.0, "the second version answers")

            running.desire(model(1, first))  # rolled back: it is still here, nothing is fetched
            (repository / "scale/1/model.onnx").rename(repository / "gone.onnx")
            report = await running.serves("scale", 1)
            assert set(report.seconds) == {"load"}
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
                assert running.reconciler.ready, "a broken version must not make the pod unready"
                await until(lambda seen=answered: len(traffic.answers) > seen + 20, "answers flow on")
                assert set(traffic.answers[answered + 2 :]) == {1.0}

            running.desire(model(6, last))
            await running.serves("scale", 6)
            await until(lambda: traffic.last == 6.0, "the sixth version answers")

        assert traffic.errors == []
        assert set(traffic.answers) == {1.0, 2.0, 6.0}, "no broken version ever answered"
        await until(lambda: numbers() == ["1", "6"], "what serves and the one before stay, the others go")
    assert not list(models.glob("gravswell-proof-*")), "golden proofs leave nothing behind"


async def test_a_version_that_heals_is_taken(agent, repository):
    digest = publish(repository, "scale", 1, 1.0)
    path = repository / "scale/1/model.onnx"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])  # an upload that is not complete yet
    async with agent() as running:
        running.desire(model(1, digest))
        report = await running.settled("scale", 1)
        assert report.reason == Reason.HASH_MISMATCH
        assert not running.reconciler.ready
        path.write_bytes(sound)
        await until(lambda: running.report_of("scale").state is ModelState.SERVING, "the healed version serves")
        assert running.reconciler.ready


async def test_models_come_and_go(agent, triton, repository, models):
    digests = {name: publish(repository, name, 1, factor) for name, factor in (("a", 1.0), ("b", 2.0))}

    def desired(name: str) -> DesiredModel:
        return DesiredModel(name=name, version=1, digest=digests[name])

    async with agent() as running, aiohttp.ClientSession() as client:
        url = f"http://{running.server.address}"
        async with client.get(f"{url}/readyz") as answer:
            assert answer.status == 503
        running.desire()
        await until(lambda: running.reconciler.ready, "nothing desired, Triton answers: ready")

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
        assert running.reconciler.ready


async def test_instances_change_without_a_new_version(agent, triton, repository):
    digest = publish(repository, "scale", 1, 1.0)
    async with agent() as running:
        running.desire(model(1, digest))
        await running.serves("scale", 1)
        with Traffic("scale", http_address=triton.http_address, grpc_address=triton.grpc_address) as traffic:
            running.desire(model(1, digest, instances=2))

            def counted() -> bool:
                loaded = running.reconciler.serving.get("scale")
                return loaded is not None and loaded.proven and loaded.loaded.key != before

            before = running.reconciler.serving["scale"].loaded.key
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
        assert running.reconciler.ready
        away.rename(repository)
        publish(repository, "other", 2, 2.0)
        await until(
            lambda: running.report_of("other").reason == Reason.VERSION_NOT_FOUND, "the repository is asked again"
        )


async def test_no_room_is_said_before_a_download(agent, repository, monkeypatch):
    digest = publish(repository, "scale", 1, 1.0)
    monkeypatch.setattr(ModelFolder, "free_bytes", lambda _: 1000)
    async with agent() as running:
        running.desire(model(1, digest))
        report = await running.settled("scale", 1)
        assert report.reason == Reason.NO_SPACE
        assert "give the server more model storage" in report.message
