"""No version is loaded that no GPU has room for. This machine has none: what Triton's metrics say of GPUs is made up
here, in the format of the real ones; the Triton that loads is the real one, which runs on the CPU what may run there.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from onnx import helper, numpy_helper

from gravswell.serving.agent import gpumemory
from gravswell.serving.agent.gpumemory import free_bytes, least_bytes
from gravswell.serving.agent.triton import TritonControl
from gravswell.serving.contracts import DesiredModel, ModelState, Reason, Verification
from gravswell.serving.triton import EmbeddedTriton

from .running import KEY, until
from .test_devices import without_promise
from .versions import publish

MIB = 1 << 20


@dataclass
class Gpus:
    """GPUs that only metrics know: bytes left on each, of 1 MiB; None: the metrics are silent about GPUs."""

    address: str
    left: list[int] | None = None
    later: list[int] | None = None
    """What is left from the second look on, if not the same."""
    looks: int = 0

    def page(self) -> str:
        lines = ["# TYPE nv_inference_request_success counter", 'nv_inference_request_success{model="m"} 3']
        for number, left in enumerate(self.left or ()):
            uuid = f'{{gpu_uuid="GPU-{number}"}}'
            lines += [
                f"nv_gpu_memory_total_bytes{uuid} {float(MIB):.6f}",
                f"nv_gpu_memory_used_bytes{uuid} {float(MIB - left):.6f}",
            ]
        return "\n".join(lines) + "\n"


@pytest.fixture
async def gpus() -> AsyncIterator[Gpus]:
    async def metrics(_: web.Request) -> web.Response:
        page = made.page()
        made.looks += 1
        made.left = made.later or made.left
        return web.Response(text=page)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    made = Gpus(f"{host}:{port}")
    yield made
    await runner.cleanup()


@pytest.fixture(autouse=True)
def _never_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpumemory, "STALE_SECONDS", 0.1)


@pytest.mark.parametrize("verification", [Verification.GOLDEN, Verification.HASHES])
async def test_a_version_that_no_gpu_has_room_for_is_not_loaded_and_the_old_one_serves_on(
    agent, repository: Path, triton: EmbeddedTriton, gpus: Gpus, verification: Verification
):
    versions = [_version(repository, number, verification) for number in (1, 2)]
    gpus.left = [MIB, 0]
    async with agent(cpu_only=False, triton_metrics=gpus.address) as running:
        running.desire(versions[0])
        await running.serves("m", 1)
        gpus.left = [10, 20]
        running.desire(versions[1])
        report = await running.settled("m", 2)
        assert (report.state, report.reason, report.loaded_version) == (ModelState.FAILED, Reason.NO_MEMORY, 1)
        assert "none of its 2 GPUs has more than 0 MB" in report.message
        async with TritonControl(triton.http_address, key=KEY) as control:
            assert [row.name for row in await control.index()] == ["m"], "nothing was loaded to find that out"
        gpus.left = [10, MIB]  # somebody else's has gone
        await until(lambda: running.report_of("m").loaded_version == 2, "it was tried again")


async def test_what_was_unloaded_a_moment_ago_does_not_count(agent, repository: Path, gpus: Gpus):
    gpus.left, gpus.later = [0], [MIB]
    async with agent(cpu_only=False, triton_metrics=gpus.address) as running:
        running.desire(_version(repository, 1))
        await running.serves("m", 1)
        assert "NoMemory" not in running.server.report().to_json()
    assert gpus.looks >= 2


@pytest.mark.parametrize("silent", ["no GPU metrics", "no metrics", "on the CPU"])
async def test_where_nothing_is_known_of_gpus_nothing_is_held_against_a_version(
    agent, repository: Path, gpus: Gpus, silent: str
):
    gpus.left = [0] if silent == "on the CPU" else None
    address = "127.0.0.1:1" if silent == "no metrics" else gpus.address
    async with agent(cpu_only=silent == "on the CPU", triton_metrics=address) as running:
        running.desire(_version(repository, 1))
        await running.serves("m", 1)
    assert bool(gpus.looks) == (silent == "no GPU metrics")


def test_what_a_version_takes_of_one_gpu(tmp_path: Path):
    (tmp_path / "model.onnx").write_bytes(b"x" * 100)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/0.bin").write_bytes(b"x" * 900)
    (tmp_path / ".golden.npz").write_bytes(b"x" * 5000)

    def takes(*groups: dict[str, object], **more: object) -> int:
        return least_bytes({"platform": "onnxruntime_onnx", "instance_group": groups, **more}, tmp_path)

    assert takes() == 1000, "one instance on each"
    assert takes({"kind": "KIND_GPU", "count": 2}) == 2000
    assert takes({"count": 1}) == 1000, "Triton's choice, which is a GPU where there is one"
    assert takes({"kind": "KIND_GPU", "gpus": [0, 1, 2]}) == 1000
    assert takes({"kind": "KIND_GPU", "gpus": [0, 1], "count": 2}, {"kind": "KIND_GPU", "gpus": [1]}) == 3000
    assert takes({"kind": "KIND_GPU", "gpus": [1]}, {"kind": "KIND_GPU", "count": 2}) == 3000
    assert takes({"kind": "KIND_CPU", "count": 9}) == 0
    assert takes({"kind": "KIND_MODEL"}) == 0, "it goes where its backend wants"
    shared = {"share_session_between_instances": {"string_value": "true"}}
    assert takes({"kind": "KIND_GPU", "count": 4}, parameters=shared) == 1000
    engine = {"execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt"}]}}
    assert takes({"kind": "KIND_GPU"}, optimization=engine) == 0
    assert takes({"kind": "KIND_GPU"}, platform="", backend="python") == 0
    assert takes({"kind": "KIND_GPU"}, platform="", backend="tensorrt") == 1000


def test_the_tables_of_trees_stay_outside_the_gpu(tmp_path: Path):
    config = {"backend": "onnxruntime", "instance_group": [{"kind": "KIND_GPU"}]}
    file = tmp_path / "model.onnx"
    for domain, takes in (("", len), ("ai.onnx.ml", lambda _: 0)):
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 3)]
        tables = numpy_helper.from_array(np.zeros(1 << 20, np.float32), "tables")
        graph = helper.make_graph([], "g", [], [], [tables])
        file.write_bytes(helper.make_model(graph, opset_imports=opsets[: 2 if domain else 1]).SerializeToString())
        assert least_bytes(config, tmp_path) == takes(file.read_bytes())


def test_the_metrics_of_a_gpu_with_one_figure_alone_say_nothing_of_it():
    page = 'nv_gpu_memory_total_bytes{gpu_uuid="GPU-a"} 8.5e+10\nnv_gpu_memory_used_bytes{gpu_uuid="GPU-b"} 1\n'
    assert free_bytes(page) == {}
    page += 'nv_gpu_memory_used_bytes{gpu_uuid="GPU-a"} 5e+09\n'
    assert free_bytes(page) == {"GPU-a": 80_000_000_000}


def _version(repository: Path, number: int, verification: Verification = Verification.GOLDEN) -> DesiredModel:
    publish(repository, "m", number, float(number))
    digest = without_promise(repository / "m" / str(number))
    return DesiredModel(name="m", version=number, digest=digest, verification=verification)
