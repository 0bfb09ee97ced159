"""Whatever an export does, the user's model, its buffers and the random state stay as they were."""

import random

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from gravswell import quiver as qv
from gravswell.errors import VerificationError

from .modules import Counting, module

X = {"x": (None, 4)}


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(entry: qv.Entry, fails: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[0].eval()
    modes = [m.training for m in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}

    def chance() -> tuple[float, float, float]:
        return float(torch.rand(1)), float(np.random.rand()), random.random()

    def seed() -> None:
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)

    seed()
    expected = chance()
    seed()
    if fails:
        with pytest.raises(VerificationError):
            entry.export_version(nn.Sequential(model, module(lambda s, x: x + torch.rand_like(x))), input_shapes=X)
    else:
        entry.export_version(model, input_shapes=X)
    assert chance() == expected
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


def test_a_buffer_that_forward_changes_is_put_back(entry: qv.Entry) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x * 2

    model = Counting()
    entry.export_version(model, input_shapes=X)
    assert float(model.calls) == 0.0


def test_train_mode_dropout_is_exported_in_its_inference_form(entry: qv.Entry) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9)).train()
    path = entry.export_version(model, input_shapes=X, output_names=["y"])
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    (y,) = ort.InferenceSession(path).run(None, {"x": x})
    with torch.no_grad():
        np.testing.assert_allclose(y, model.eval()(torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-5)


def test_a_buffer_that_forward_puts_in_another_s_place_is_put_back(entry: qv.Entry) -> None:
    model = Counting()
    own = model.calls
    entry.export_version(model, input_shapes=X)
    assert model.calls is own
    assert float(own) == 0.0
