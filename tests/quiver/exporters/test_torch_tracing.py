"""The tracing exporter records one run: what it may keep of that run, and what it may not."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from gravswell import quiver as qv
from gravswell.errors import ExportError
from gravswell.quiver.exporters.base import InputSpec
from gravswell.quiver.exporters.torch.tracing import nothing_frozen

from .modules import Counting

X = {"x": (None, 8)}


class Loud(nn.Module):
    """The branch is taken for inputs that no random ones are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.abs().max() > 10:
            x = x / x.abs().max()
        return x * 2


class Gated(nn.Module):
    """The branch depends on a weight, which torch's default exporter does not know from an input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gate", torch.tensor(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if self.gate > 1 else x


def test_a_branch_that_random_inputs_do_not_take_is_never_published(entry: qv.Entry) -> None:
    with pytest.raises(
        ExportError, match=r"Python boolean might cause the trace to be incorrect.*torch\.cond"
    ) as caught:
        entry.export_version(Loud(), X)
    line = Loud.forward.__code__.co_firstlineno + 1
    assert f"{Path(__file__).name}:{line} " in str(caught.value)
    assert entry.versions == []


def test_a_branch_on_a_weight_is_the_same_for_every_input(entry: qv.Entry) -> None:
    entry.export_version(Gated(), X)
    exporter = entry.versions[-1].manifest.exporter
    assert "traced because the default exporter failed:" in exporter
    assert "\x1b" not in exporter


def _traced(forward: Callable[..., Any], shape: tuple[int | None, ...] = (None, 8)) -> None:
    """``forward(x, gate)`` under the recording tracer that ``torch.onnx.export`` uses, with a weight."""
    model = type("Given", (nn.Module,), {"forward": forward})()
    model.register_buffer("gate", torch.tensor([3.0, 1.0]))
    x = torch.arange(16.0).reshape(2, 8)
    with nothing_frozen([InputSpec("x", "TYPE_FP32", shape)]):
        torch.jit._get_trace_graph(model, (x,))


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: x if x.sum() > 0 else -x,
        lambda s, x: x * x.sum().item(),
        lambda s, x: x * float(x.detach().mean()),
        lambda s, x: x * x.sum(1).tolist()[0],
        lambda s, x: x * float(np.asarray(x.detach())[0, 0]),
        lambda s, x: x * float(x.detach().numpy()[0, 0]),
        lambda s, x: x if torch.equal(x, x + 1) else -x,
        lambda s, x: x if torch.allclose(x, x + 1) else -x,
        lambda s, x: x if 3.0 in x else -x,
        lambda s, x: max(x.sum(), x.mean()) * x,
        lambda s, x: sum(x[:, i] for i in range((x.sum() * 0 + 2).long())),
        lambda s, x: x[:, : int(x.sum() * 0 + 2)],
        lambda s, x: torch.tensor([x.sum(), x.mean()]) + x.sum(),
        lambda s, x: torch.FloatTensor([x.sum()]) + x,
        lambda s, x: x if len(x.nonzero()) else -x,
        lambda s, x: x if x[x > 5].numel() > 0 else -x,
        lambda s, x: x if torch.unique(x).shape[0] > 3 else -x,
        lambda s, x: x.squeeze(0) if x.shape[0] == 1 else x,
        lambda s, x: nn.functional.pad(x, (0, 1)) if (x.size(0) + 1) % 2 else x,
        lambda s, x: x if any(x[:, 0] > 0) else -x,
        lambda s, x: x.reshape(int(x.shape[0]), -1),
        lambda s, x: x * len(x),
        lambda s, x: x * float(1 + x.shape[0] // 8),
        lambda s, x: x * (x.numel() // 8).item(),
        lambda s, x: sum(x[:, :1] for _ in range(1 + x.shape[0] // 8)),
        lambda s, x: x / torch.tensor([x.shape[0]]).sqrt(),
    ],
)
def test_what_the_next_input_may_have_otherwise_is_refused(forward: Callable[..., Any]) -> None:
    with pytest.raises(ExportError, match=rf"{re.escape(__file__)}:\d+ makes a Python value"):
        _traced(forward)


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: x if x.shape[1] == 8 else -x,
        lambda s, x: x.reshape(-1, int(x.shape[1])),
        lambda s, x: x * len(x.T) if x.dim() == 2 and x.ndim == 2 else x,
        lambda s, x: x.reshape(x.shape[0] * 2, -1)[: x.shape[0], : x.shape[1] // 2],
        lambda s, x: x.new_zeros(x.size(0), 8) + torch.ones(x.shape).cumsum(1) + torch.arange(x.size(0))[:, None],
        lambda s, x: nn.functional.interpolate(x[None], size=8).expand(x.shape[0], -1, -1),
        lambda s, x: sum(column for column in x.T),
        lambda s, x: x / torch.tensor([x.shape[1]]).sqrt(),
        lambda s, x: x * float(s.gate[0]),
        lambda s, x: x if torch.equal(s.gate, s.gate) else -x,
        lambda s, x: x if torch.zeros_like(x).sum() == 0 else -x,
        lambda s, x: x + torch.tensor([1.0]),
        lambda s, x: x * x[x > 5].shape[0],
        lambda s, x: x[:, : (x.sum() * 0 + 2).long()],
        lambda s, x: (f"{x.sum()} {x}", x)[1],
        lambda s, x: x.reshape(x.shape[0], 2, 4)[torch.arange(2).tolist()],
    ],
)
def test_what_is_the_same_for_every_input_is_kept(forward: Callable[..., Any]) -> None:
    _traced(forward)


class Behind(Gated):
    """A branch on a weight, which sends it to the tracer, and what a test puts behind it."""

    def __init__(self, tail: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.layer = nn.Conv1d(8, 4, 3, stride=2)
        self.tail = tail

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(x, self.layer(super().forward(x)))


@pytest.mark.parametrize(
    "tail",
    [
        lambda x, y: y * 2 if y.shape[0] > 8 else y,
        lambda x, y: y * float(1 + y.shape[0] // 8),
        lambda x, y: y[:, :, -100:] if y.shape[2] > 100 else y,
        lambda x, y: sum(y[:, :, :1] for _ in range(1 + y.shape[2] // 500)),
        lambda x, y: y * len(y),
        lambda x, y: y * 2 if y.numel() > 100000 else y,
    ],
)
def test_a_size_that_follows_from_a_dynamic_one_is_never_kept(entry: qv.Entry, tail: Callable[..., Any]) -> None:
    line = tail.__code__.co_firstlineno
    with pytest.raises(
        ExportError, match=rf"{re.escape(Path(__file__).name)}:{line} makes .* declared dynamic.*declare a number there"
    ):
        entry.export_version(Behind(tail), {"x": (None, 8, None)})
    assert entry.versions == []


def test_a_size_that_follows_from_a_fixed_one_is_kept(entry: qv.Entry) -> None:
    model = Behind(lambda x, y: y / float(y.shape[1]) ** 0.5 if y.shape[1] == 4 and y.dim() == 3 else y)
    entry.export_version(model, {"x": (None, 8, None)})
    assert "traced because" in entry.versions[-1].manifest.exporter


def test_sizes_of_inputs_given_by_name(entry: qv.Entry) -> None:
    class Optional(Gated):
        limit = 20

        def forward(
            self, x: torch.Tensor, mask: torch.Tensor | None = None, scale: torch.Tensor | None = None
        ) -> torch.Tensor:
            x = super().forward(x) if mask is None else mask
            both = torch.cat([x, x if scale is None else scale])
            return both[: x.shape[0]] * (2 if both.shape[1] == 8 and both.shape[0] > self.limit else 1)

    with pytest.raises(ExportError, match="a size that was declared dynamic"):
        entry.export_version(Optional(), {"x": (None, 8), "scale": (None, 8)})


def test_torchs_own_recurrent_layers_are_traced() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 4, batch_first=True)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x, _ = self.lstm(x)
            return self.attention(x, x, x)[0]  # type: ignore[no-any-return]

    with nothing_frozen([InputSpec("x", "TYPE_FP32", (None, None, 8))]), torch.no_grad():
        torch.jit._get_trace_graph(Recurrent().eval(), (torch.randn(2, 3, 8),))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("how", ["traced", "scripted", "frozen", "loaded"])
def test_torchscript_is_exported_with_its_branches(entry: qv.Entry, tmp_path: Path, how: str) -> None:
    given = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)).eval()
    model = torch.jit.trace(given, torch.zeros(1, 8)) if how == "traced" else torch.jit.script(given)
    if how == "frozen":
        model = torch.jit.freeze(model)
    if how == "loaded":
        torch.jit.save(torch.jit.trace(given, torch.zeros(1, 8)), tmp_path / "model.pt")
        model = torch.jit.load(tmp_path / "model.pt")
    path = entry.export_version(model, X, ["y"])
    x = np.full((3, 8), 50, np.float32)
    (y,) = ort.InferenceSession(path).run(None, {"x": x})
    np.testing.assert_allclose(y, given(torch.from_numpy(x)).detach().numpy(), rtol=1e-4)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_scripted_branch_stays_a_branch(entry: qv.Entry) -> None:
    model = torch.jit.script(Loud())
    path = entry.export_version(model, X, ["y"])
    for loud in (1, 50):
        x = np.full((3, 8), loud, np.float32)
        (y,) = ort.InferenceSession(path).run(None, {"x": x})
        np.testing.assert_allclose(y, model(torch.from_numpy(x)).numpy(), rtol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_scripted_module_is_left_as_it_was(entry: qv.Entry) -> None:
    model = torch.jit.script(Counting())
    entry.export_version(model, X)
    assert float(model.calls) == 0.0
    assert model.training
