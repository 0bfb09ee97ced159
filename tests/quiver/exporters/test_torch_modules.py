"""Modules as people hold them: compiled, in parallel, taking a dict, computing in another type than they take."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from gravswell import quiver as qv
from gravswell.errors import ExportError, InvalidInputError

X = {"x": (None, 4)}


class TakingDict(nn.Module):
    """``forward`` takes every tensor in one dict."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"y": self.embedding(batch["ids"]) + batch["a"]}


class Compact(nn.Module):
    """Keeps its weights in bfloat16, and computes in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 4, dtype=torch.bfloat16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.float())


class Remembering(nn.Module):
    """Keeps what it computed, in attributes of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.last: torch.Tensor | None = None
        self.calls = 0
        self.history: list[torch.Tensor | str] = ["before"]
        self.table = {"first": 1}
        self.running = torch.zeros(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.layer(x)
        self.calls += 1
        self.history.append(self.last)
        self.table[f"call {self.calls}"] = self.calls
        self.layer.seen = True
        with torch.no_grad():
            self.running += 1
        return self.last.relu()


class Picky(nn.Module):
    """Refuses every input, in some words."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError(self.words)


class Gated(nn.Module):
    """Has a branch on a weight, which only the tracing exporter takes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gate", torch.tensor(3.0))

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["a"] - batch["b"] if self.gate > 1 else batch["a"]


@pytest.mark.parametrize("wrapped", [torch.compile, nn.DataParallel, lambda m: nn.DataParallel(torch.compile(m))])
def test_a_wrapped_module_is_exported_as_what_it_wraps(entry: qv.Entry, wrapped: Callable[..., Any]) -> None:
    model = nn.Linear(4, 2)
    path = entry.export_version(wrapped(model), X, ["y"])
    assert "traced" not in entry.versions[-1].manifest.exporter
    x = np.ones((3, 4), np.float32)
    (y,) = ort.InferenceSession(path).run(None, {"x": x})
    np.testing.assert_allclose(y, model(torch.from_numpy(x)).detach().numpy(), rtol=1e-5)


def test_a_dict_of_inputs(entry: qv.Entry) -> None:
    path = entry.export_version(TakingDict(), {"ids": (None,), "a": (None, 4)}, input_types={"ids": "int64"})
    assert {name: record.data_type for name, record in entry.inputs.items()} == {"ids": "TYPE_INT64", "a": "TYPE_FP32"}
    assert list(entry.outputs) == ["y"]
    entry.export_version(TakingDict())
    assert ort.InferenceSession(path).run(None, {"ids": [1], "a": np.ones((1, 4), np.float32)})[0].shape == (1, 4)


def test_a_dict_of_inputs_by_tracing(entry: qv.Entry) -> None:
    entry.export_version(Gated(), {"b": (None, 4), "a": (None, 4)}, ["y"])
    assert "traced because" in entry.versions[-1].manifest.exporter
    assert sorted(entry.inputs) == ["a", "b"]


def test_more_inputs_than_parameters_is_said_as_it_is(entry: qv.Entry) -> None:
    class Two(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a + b

    with pytest.raises(InvalidInputError, match=r"^3 inputs \(x, y, z\) for Two\.forward\(a, b\)"):
        entry.export_version(Two(), dict.fromkeys("xyz", (None, 4)))


def test_weights_in_bfloat16(entry: qv.Entry) -> None:
    with pytest.raises(ExportError, match=r'input_types=\{"x": "float32"\} \(--input-type'):
        entry.export_version(Compact(), X)
    entry.export_version(Compact(), X, ["y"], input_types={"x": "float32"})
    assert (entry.inputs["x"].data_type, entry.outputs["y"].data_type) == ("TYPE_FP32", "TYPE_FP32")


def test_integers_are_taken_as_the_samples_have_them(entry: qv.Entry) -> None:
    model = nn.Embedding(50, 3)
    with pytest.raises(ExportError, match=r"ids TYPE_FP32 .*--input-type ids=int64"):
        entry.export_version(model, {"ids": (None, 7)})
    with pytest.raises(ExportError, match=r"fails on ids float32 \[1, 7\].*--input-type ids=int64"):
        entry.export_version(model, sample_inputs={"ids": np.zeros((2, 7), np.float32)})
    sample = {"ids": np.full((2, 7), 49)}
    entry.export_version(model, {"ids": (None, 7)}, ["y"], sample_inputs=sample)
    entry.export_version(model, sample_inputs=sample)
    assert (entry.inputs["ids"].data_type, entry.inputs["ids"].dims) == ("TYPE_INT64", (-1, 7))


def test_samples_alone_say_what_a_module_takes(entry: qv.Entry) -> None:
    entry.export_version(nn.Linear(4, 2).half(), sample_inputs={"x": [[1, 2, 3, 4], [5, 6, 7, 8]]})
    assert (entry.inputs["x"].data_type, entry.inputs["x"].dims) == ("TYPE_FP16", (-1, 4))


def test_a_model_of_other_inputs_than_the_entry_s(entry: qv.Entry) -> None:
    entry.export_version(nn.Linear(4, 2), X)
    with pytest.raises(ValueError, match=r"the entry's earlier versions: a model that takes others needs an entry"):
        entry.export_version(nn.Linear(5, 2))
    assert entry.versions == [1]


def test_attributes_are_what_they_were(entry: qv.Entry) -> None:
    model = Remembering()
    own = dict(vars(model))
    for _ in range(2):
        entry.export_version(model, X)
    assert vars(model) == own
    assert all(vars(model)[name] is value for name, value in own.items())
    assert (model.last, model.calls, model.history, model.table) == (None, 0, ["before"], {"first": 1})
    assert float(model.running) == 0
    assert not hasattr(model.layer, "seen")
    assert [name for name, _ in model.named_parameters()] == ["layer.weight", "layer.bias"]
    model(torch.zeros(1, 4)).sum().backward()


def test_a_lazy_module_is_exported_and_works_afterwards(entry: qv.Entry) -> None:
    model = nn.LazyLinear(2)
    entry.export_version(model, X)
    assert model(torch.zeros(3, 4)).shape == (3, 2)


@pytest.mark.parametrize(
    ("model", "shapes", "way_out"),
    [
        (nn.Embedding(50, 3), {"ids": (None, 7)}, "types"),
        (nn.Linear(5, 2), X, "shapes"),
        (Picky("all sizes must match exactly, but along dimension 0 they are 2 and 3"), X, "shapes"),
        (Picky("expected all longer ones of one size"), X, "shapes"),
        (Picky("expected Float but found Long"), X, "types"),
        (Picky("unknown categories in column 0"), X, "samples"),
        (Picky("no"), X, "types shapes samples"),
    ],
)
def test_a_module_that_fails_is_told_what_its_error_is_about(
    entry: qv.Entry, model: nn.Module, shapes: dict[str, Any], way_out: str
) -> None:
    with pytest.raises(ExportError, match="the model itself fails") as caught:
        entry.export_version(model, shapes)
    told = {"types": "--input-type", "shapes": "declare the shapes", "samples": "--sample-inputs"}
    assert {name for name, words in told.items() if words in str(caught.value)} == set(way_out.split())
