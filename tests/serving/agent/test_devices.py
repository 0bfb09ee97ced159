"""The devices that a model was given reach the real Triton, which has none here and says which ones it lacks."""

import hashlib
from pathlib import Path

import pytest

from gravswell.quiver.manifest import MANIFEST, VERSION_CONFIG, FileRecord, Manifest, digest_of
from gravswell.serving.contracts import DesiredModel, ModelState, Reason, Verification

from .versions import config_text, publish


@pytest.mark.parametrize("verification", [Verification.HASHES, Verification.GOLDEN])
async def test_triton_is_told_the_model_s_devices_for_the_proof_and_for_traffic(agent, repository, verification):
    digest = publish(repository, "scale", 1, 1.0)
    async with agent(cpu_only=False) as running:
        running.desire(DesiredModel(name="scale", version=1, digest=digest, verification=verification, gpus=(2, 3)))
        report = await running.settled("scale", 1)
    assert (report.state, report.reason) == (ModelState.FAILED, Reason.LOAD_FAILED)
    assert "gpu id 2" in report.message


async def test_where_the_node_has_none_the_model_is_served_all_the_same(agent, repository):
    digest = publish(repository, "scale", 1, 1.0)
    async with agent() as running:
        running.desire(DesiredModel(name="scale", version=1, digest=digest, gpus=(2, 3)))
        assert (await running.serves("scale", 1)).verified


@pytest.mark.parametrize("cpu_only", [False, True])
async def test_a_server_with_gpus_is_held_to_their_arithmetic_and_one_without_to_the_framework_s(
    agent, repository, cpu_only
):
    publish(repository, "scale", 1, 1.003, golden_factor=1.0)  # off by what TF32 makes of a network
    digest = without_promise(repository / "scale/1")
    async with agent(cpu_only=cpu_only) as running:
        running.desire(DesiredModel(name="scale", version=1, digest=digest, verification=Verification.GOLDEN))
        if cpu_only:
            report = await running.settled("scale", 1)
            assert (report.state, report.reason) == (ModelState.FAILED, Reason.GOLDEN_MISMATCH)
        else:
            assert (await running.serves("scale", 1)).verified


def without_promise(version: Path) -> str:
    """Let it run wherever there is a place, and be held to the tolerances of its types; its digest then."""
    config = version / VERSION_CONFIG
    config.write_text(config_text("scale", kind="KIND_AUTO"))
    manifest = Manifest.from_bytes((version / MANIFEST).read_bytes(), where=MANIFEST)
    record = FileRecord(sha256=hashlib.sha256(config.read_bytes()).hexdigest(), size=config.stat().st_size)
    verification = manifest.verification.model_copy(update={"rtol": None, "atol": None})
    files = {**manifest.files, VERSION_CONFIG: record}
    data = manifest.model_copy(update={"files": files, "verification": verification}).to_bytes()
    (version / MANIFEST).write_bytes(data)
    return digest_of(data)
