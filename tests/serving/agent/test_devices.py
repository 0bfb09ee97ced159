"""The devices that a model was given reach the real Triton, which has none here and says which ones it lacks."""

import pytest

from gravswell.serving.contracts import DesiredModel, ModelState, Reason, Verification

from .versions import publish


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
