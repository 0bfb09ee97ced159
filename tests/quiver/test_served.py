"""What the exporters publish, in the real Triton: loaded unchanged, and its golden tensors reproduced by a client."""

from pathlib import Path
from typing import Any

import torch
import tritonclient.grpc as triton
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from gravswell import quiver as qv
from gravswell.quiver.golden import compare, load_golden
from gravswell.quiver.manifest import GOLDEN
from gravswell.serving.samples import joined, pieces
from gravswell.serving.triton import EmbeddedTriton


class Sum(nn.Module):
    """One number: of each row, or of all."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(self.dims) if self.dims else x.sum()


class Two(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"twice": x * 2, "positive": x > 0}


def test_every_kind_of_version_is_served(repo: qv.ModelRepository) -> None:
    rows: dict[str, Any] = {"x": (None, 4)}
    pixels, digits = load_digits(return_X_y=True)
    repo.add("linear").export_version(nn.Linear(4, 2), rows)
    repo.add("linear-batched").export_version(nn.Linear(4, 2), rows, max_batch_size=8)
    repo.add("scalar").export_version(Sum(), rows)
    repo.add("scalar-of-each-row").export_version(Sum(1), rows, max_batch_size=8)
    repo.add("two-outputs").export_version(Two(), rows)
    repo.add("embedding").export_version(nn.Embedding(10, 4), {"ids": (None, 7)}, input_types={"ids": "int64"})
    repo.add("text").export_version(LogisticRegression().fit(pixels / 16, [f"nr {d}" for d in digits]))
    with EmbeddedTriton(repo.url) as server:
        client = triton.InferenceServerClient(server.grpc_address)
        try:
            for name, entry in repo.models.items():
                _reproduce(client, name, entry)
        finally:
            client.close()


def _reproduce(client: triton.InferenceServerClient, name: str, entry: qv.Entry) -> None:
    types = {tensor.name: tensor.datatype for tensor in client.get_model_metadata(name).inputs}
    samples = load_golden(Path(entry.versions[-1].location).parent / GOLDEN)
    assert len(samples) >= 3  # an estimator gets one more, on its own scale
    for sample in samples:
        answers = []
        for piece in pieces(sample.inputs, entry.config.max_batch_size):
            inputs = []
            for key, array in piece.items():
                inputs.append(triton.InferInput(key, array.shape, types[key]))
                inputs[-1].set_data_from_numpy(array)
            answer = client.infer(name, inputs)
            answers.append({key: answer.as_numpy(key) for key in sample.outputs})
        compare(sample.outputs, joined(answers, sample.outputs))
