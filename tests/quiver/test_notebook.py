"""The notebook's local cells as they stand: names, arguments, return values, printed text, tree (seeds A 1-5, 8)."""

import multiprocessing
import time
from pathlib import Path
from queue import Empty

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton

from gravswell import quiver as qv
from gravswell import utils
from gravswell.serving.triton import EmbeddedTriton

INPUT_SIZE, HIDDEN_SIZES = 64, [256, 128, 64]

NAMED = 'name: "my-model"\nplatform: "onnxruntime_onnx"\n'
DESCRIBED = (
    NAMED
    + """\
input {
  name: "x"
  data_type: TYPE_FP32
  dims: -1
  dims: 64
}
output {
  name: "y"
  data_type: TYPE_FP32
  dims: -1
  dims: 1
}
"""
)
SCALED = (
    DESCRIBED
    + """\
instance_group {
  count: 4
  kind: KIND_GPU
}
"""
)


class MLP(torch.nn.Module):
    def __init__(self, input_size, hidden_sizes):
        super().__init__()

        self.layers = torch.nn.ModuleList()
        for size in hidden_sizes:
            self.layers.append(torch.nn.Linear(input_size, size))
            self.layers.append(torch.nn.ReLU())
            input_size = size

        self.layers.append(torch.nn.Linear(input_size, 1))
        self.layers.append(torch.nn.Sigmoid())

    def forward(self, x: torch.tensor) -> torch.tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_cells_13_to_18(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    inference_model = MLP(INPUT_SIZE, HIDDEN_SIZES)

    repo = qv.ModelRepository("my-repo")
    entry = repo.add("my-model", platform=qv.Platform.ONNX)
    print(entry.config, end="")
    assert capsys.readouterr().out == NAMED

    inference_model.to("cpu")
    export_path = entry.export_version(inference_model, input_shapes={"x": (None, INPUT_SIZE)}, output_names=["y"])
    assert export_path == "my-repo/my-model/1/model.onnx"
    print(entry.config, end="")
    assert capsys.readouterr().out == DESCRIBED

    utils.print_tree("my-repo")
    assert capsys.readouterr().out == (
        "my-repo/\n    my-model/\n        1/\n            model.onnx\n        config.pbtxt\n"
    )

    entry.export_version(inference_model)
    utils.print_tree("my-repo")
    assert capsys.readouterr().out == (
        "my-repo/\n    my-model/\n        1/\n            model.onnx\n"
        "        2/\n            model.onnx\n        config.pbtxt\n"
    )

    entry.config.add_instance_group(count=4)
    print(entry.config, end="")
    assert capsys.readouterr().out == SCALED
    assert (tmp_path / "my-repo/my-model/config.pbtxt").read_text() == SCALED

    repo.delete()
    assert list(tmp_path.iterdir()) == []


def test_cell_19_on_a_folder(root: Path) -> None:
    """The instance group is added before the first export, and is in the version and in the entry."""
    repo = qv.ModelRepository(root)
    entry = repo.add("my-model", platform=qv.Platform.ONNX)
    entry.config.add_instance_group(count=4)
    entry.export_version(MLP(INPUT_SIZE, [8]), input_shapes={"x": (None, INPUT_SIZE)}, output_names=["y"])
    assert sorted(p.name for p in (root / "my-model").iterdir()) == ["1", "config.pbtxt"]
    assert (root / "my-model/config.pbtxt").read_text() == SCALED
    assert (root / "my-model/1/.config.pbtxt").read_text() == SCALED
    assert str(entry.config) == SCALED


def test_cells_23_and_24_ask_for_every_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers come in any order and say nothing of their rows; each of them is that of one batch, and of another."""
    torch.manual_seed(0)
    inference_model = MLP(INPUT_SIZE, HIDDEN_SIZES)
    entry = qv.ModelRepository(root).add("my-model", platform=qv.Platform.ONNX)
    entry.config.add_instance_group(count=4)
    entry.export_version(inference_model, input_shapes={"x": (None, INPUT_SIZE)}, output_names=["y"])
    dataset = np.random.default_rng(0).standard_normal((4000, INPUT_SIZE)).astype(np.float32)
    answers = []
    with EmbeddedTriton(root) as server:
        monkeypatch.setenv(utils.METRICS_VARIABLE, f"http://{server.metrics_address}/metrics")
        end = time.monotonic() + 300

        client = triton.InferenceServerClient(server.grpc_address)
        assert client.is_server_live()
        assert client.is_model_ready("my-model")

        batch_size = 8

        metadata = client.get_model_metadata("my-model").inputs[0]
        shape = [i if i != -1 else batch_size for i in metadata.shape]
        input = triton.InferInput(metadata.name, shape, metadata.datatype)  # noqa: A001 - the cell's

        with utils.GpuUtilProgress() as progress:
            task_id = progress.add_task("Inference", total=len(dataset))

            def callback(result, error):
                answers.append((result, error))
                y = result.as_numpy("y")
                progress.update(task_id, advance=len(y))

            num_batches = len(dataset) // batch_size
            for x in np.split(dataset, num_batches):
                input.set_data_from_numpy(x)
                client.async_infer("my-model", inputs=[input], callback=callback)

            while not progress._tasks[task_id].finished:
                assert not [error for _, error in answers if error is not None]
                assert time.monotonic() < end, f"{len(answers)} of {num_batches} requests are answered"
                time.sleep(0.1)
        client.close()
    with torch.no_grad():
        expected = inference_model(torch.from_numpy(dataset)).numpy().reshape(num_batches, batch_size)
    outputs = np.stack([result.as_numpy("y")[:, 0] for result, _ in answers])
    batches = [int(np.abs(expected - y).max(axis=1).argmin()) for y in outputs]
    assert sorted(batches) == list(range(num_batches))
    np.testing.assert_allclose(outputs, expected[batches], rtol=1e-4, atol=1e-5)


def test_the_notebook_s_own_module_comes_along() -> None:
    """``utils.MLP`` and ``utils.do_some_inference``, as the cells on parallel inference use them."""
    model = utils.MLP(INPUT_SIZE, HIDDEN_SIZES)
    rows = np.random.default_rng(0).standard_normal((20, INPUT_SIZE)).astype(np.float32)
    outputs = list(utils.do_some_inference(model, rows))
    assert [len(y) for y in outputs] == [8, 8, 4]
    cleaned = list(utils.do_some_throttled_inference(utils.NoiseRemovalModel(INPUT_SIZE, [32, 16]), rows))
    assert cleaned[0].shape == (8, INPUT_SIZE)
    with pytest.raises(AttributeError):
        _ = utils.nothing_of_that_name


def parallel_inference(X, num_gpus, jobs_per_gpu, progbar):  # noqa: N803 - cell 7, but for the comments
    num_jobs = num_gpus * jobs_per_gpu
    task_id = progbar.add_task(f"[cyan]{num_gpus} GPUs/{num_jobs} jobs", total=len(X), start=False)

    smp = torch.multiprocessing.get_context("spawn")
    q = smp.Queue()
    sync = smp.Value("d", 0.0)

    args = (
        X,
        utils.MLP,
        [INPUT_SIZE, HIDDEN_SIZES],
        utils.do_some_inference,
        q,
        sync,
        jobs_per_gpu,
        num_gpus,
    )

    procs = torch.multiprocessing.spawn(utils.parallel_inference_task, args=args, nprocs=num_jobs, join=False)

    while sync.value < num_jobs:
        time.sleep(0.01)

    sync.value += 1
    progbar.start_task(task_id)

    outputs = []
    while True:
        try:
            y = q.get_nowait()
            progbar.update(task_id, advance=len(y))
            outputs.append(y)
        except Empty:
            if procs.join(0.01):
                break

    return np.concatenate(outputs, axis=0)


def test_cell_8_runs_jobs_that_start_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose progress is an unstarted task until they do; each job has a model of its own, so rows are counted."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    dataset = np.random.default_rng(0).standard_normal((405, INPUT_SIZE)).astype(np.float32)
    before = multiprocessing.active_children()
    try:
        with utils.GpuUtilProgress([0, 1]) as progbar:
            y = parallel_inference(dataset, num_gpus=1, jobs_per_gpu=2, progbar=progbar)
    finally:
        for job in multiprocessing.active_children():
            if job not in before:  # one that waits for another that failed would wait for ever
                job.kill()
    assert y.shape == (405, 1)
    (task,) = (task for task in progbar.tasks if not task.fields.get("gpu"))
    assert task.finished
