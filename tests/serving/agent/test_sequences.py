"""Models that take sequences, served by the agent on the real Triton: proved whole, and asked in sequences of one."""

from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as http

from gravswell import quiver as qv
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving.contracts import DesiredModel, ModelState, Reason
from gravswell.serving.triton import EmbeddedTriton
from gravswell.serving.verification import verify_served

from ...sequences import START, STATE, beginning_told, running_sum
from .running import MakeAgent, until


@pytest.fixture(params=[{"direct": {}}, {"oldest": {"max_candidate_sequences": 4}}], ids=["direct", "oldest"])
def told(request: pytest.FixtureRequest, repository: Path) -> DesiredModel:
    entry = qv.ModelRepository(repository).add("told", qv.Platform.ONNX)
    entry.config.max_batch_size = 4
    how = {"control_input": [START], "max_sequence_idle_microseconds": 600_000_000, **request.param}
    entry.config.set_sequence_batching(**how)
    entry.export_version(beginning_told())
    return DesiredModel(name="told", version=1, digest=entry.version(1).digest)


def ask(client: http.InferenceServerClient, sequence: int, *, first: bool = False, last: bool = False) -> float:
    tensor = http.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
    answer = client.infer("told", [tensor], sequence_id=sequence, sequence_start=first, sequence_end=last)
    return float(answer.as_numpy("y")[0, 0])


async def test_a_control_reaches_the_graph(
    agent: MakeAgent, triton: EmbeddedTriton, told: DesiredModel, repository: Path
) -> None:
    async with agent() as running:
        running.desire(told)
        assert (await running.serves("told", 1)).verified, "by golden batches that hold the control too"
        with http.InferenceServerClient(triton.http_address) as client:
            answers = [
                ask(client, 7, first=True),
                ask(client, 8, first=True),
                ask(client, 7),
                ask(client, 8, last=True),
            ]
            assert answers == [101.0, 101.0, 1.0, 1.0]
            asked = client.get_inference_statistics("told")["model_stats"][0]["inference_stats"]["success"]["count"]

            def idle_probes() -> bool:
                stats = client.get_inference_statistics("told")["model_stats"][0]["inference_stats"]
                assert not stats["fail"].get("count", 0)
                return stats["success"]["count"] > asked

            await until(idle_probes, "the agent asks it while nobody else does")
            assert ask(client, 7, last=True) == 1.0, "the sequence of a client went on"
        (served,) = [s async for s in verify_served(RepositoryReader(str(repository)), triton.http_address, ["told"])]
        assert served.result == "unverified"
        assert "sequences" in served.message


async def test_implicit_state_is_refused_by_the_embedded_server(
    agent: MakeAgent, triton: EmbeddedTriton, repository: Path
) -> None:
    entry = qv.ModelRepository(repository).add("sum", qv.Platform.ONNX)
    entry.config.max_batch_size = 4
    entry.config.set_sequence_batching(state=[STATE], direct={})
    entry.export_version(running_sum())
    async with agent() as running:
        running.desire(DesiredModel(name="sum", version=1, digest=entry.version(1).digest))
        report = await running.settled("sum", 1)
        assert (report.state, report.reason) == (ModelState.FAILED, Reason.LOAD_FAILED)
        assert "implicit state" in report.message
