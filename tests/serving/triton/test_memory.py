"""What a model's process frees stays with it: the next request finds its pages there."""

from pathlib import Path

import numpy as np

from gravswell.serving.triton import EmbeddedTriton

from .conftest import ask

STEPS = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = request.inputs()[0].as_numpy()
            twice = x * 2
            more = twice + 1
            y = more * 2
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]))
        return answers
"""

CONFIG = """
name: "steps"
backend: "python"
input { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1, 4 ] }
instance_group { count: 1 kind: KIND_CPU }
"""

REQUESTS = 20


def faults(pid: int) -> int:
    """Pages that a process and all below it had mapped in since they began."""
    folder = Path(f"/proc/{pid}")
    below = " ".join(listed.read_text() for listed in folder.glob("task/*/children")).split()
    own = int((folder / "stat").read_text().rpartition(")")[2].split()[7])
    return own + sum(faults(int(child)) for child in below)


def test_the_arrays_of_a_request_are_not_faulted_in_again_for_the_next(tmp_path: Path) -> None:
    """By glibc's own choice three arrays of 256 KiB go back to the system with each request, and all their pages."""
    (tmp_path / "steps/1").mkdir(parents=True)
    (tmp_path / "steps/1/model.py").write_text(STEPS)
    (tmp_path / "steps/config.pbtxt").write_text(CONFIG)
    x = np.ones((1 << 14, 4), np.float32)
    with EmbeddedTriton(tmp_path) as server:
        for _ in range(REQUESTS):
            np.testing.assert_array_equal(ask(server.grpc_address, "steps", x=x)["y"], x * 6)
        before = faults(server.process.pid)
        for _ in range(REQUESTS):
            ask(server.grpc_address, "steps", x=x)
        pages = (faults(server.process.pid) - before) / REQUESTS
    assert pages < x.nbytes / 4096, "fewer than one of its arrays has"
