"""Sizes that no example has: a graph that is right only for some of them is never published."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import sympy
import torch
from torch import nn

from gravswell import quiver as qv
from gravswell.errors import ExportError, VerificationError
from gravswell.quiver.exporters import sampling
from gravswell.quiver.exporters.base import Assumption, InputSpec
from gravswell.quiver.exporters.proof import Runner, open_session, prove
from gravswell.quiver.exporters.torch import sizes as torch_sizes

ROWS = {"x": (None, 8)}
LENGTHS = {"x": (None, None, 8)}


class Tailed(nn.Module):
    """A layer, and what a test puts behind it."""

    def __init__(self, tail: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)
        self.tail = tail

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(x, self.layer(x))


class Positioned(nn.Module):
    """Knows 512 positions, and fails beyond them."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(512, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.positions[: x.shape[1]]


def a_term_for_each_window(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    y = y.mean(1)
    for k in range(x.shape[1] // 128):
        y = y + x[:, 128 * k : 128 * k + 128].mean((1, 2)).unsqueeze(1)
    return y


@pytest.mark.parametrize(
    ("shapes", "tail", "condition"),
    [
        (ROWS, lambda x, y: y * 2 if y.shape[0] > 8 else y, r"x\.shape\[0\] <= 8,"),
        (ROWS, lambda x, y: y * float(1 + x.shape[0] // 8), r"x\.shape\[0\] <= 7,"),
        (ROWS, lambda x, y: y + int(x.shape[0] / 100), r"x\.shape\[0\] <= 99,"),
        (LENGTHS, lambda x, y: y[:, -100:].amax(1) if x.shape[1] > 100 else y.amax(1), r"x\.shape\[1\] <= 100,"),
        (LENGTHS, lambda x, y: y * 2 if y[:, ::2].shape[1] > 300 else y, r"x\.shape\[1\] <= 600,"),
        (LENGTHS, a_term_for_each_window, r"x\.shape\[1\] <= 127,"),
        (LENGTHS, lambda x, y: y * 2 if x.shape[1] < 20 else y, r"x\.shape\[1\] >= 20,"),
        (
            LENGTHS,
            lambda x, y: y * 2 if x.shape[0] * x.shape[1] > 9000 else y,
            r"x\.shape\[.\]\*x\.shape\[.\] <= 9000,",
        ),
        (LENGTHS, lambda x, y: y * 2 if x.shape[1] == 1 else y, r"x\.shape\[1\] != 1,"),
    ],
)
def test_a_size_at_which_the_module_computes_otherwise_is_found(
    entry: qv.Entry, shapes: dict[str, Any], tail: Callable[..., torch.Tensor], condition: str
) -> None:
    with pytest.raises(ExportError, match=rf"right only while {condition} .*declare a number.*torch\.cond"):
        entry.export_version(Tailed(tail), shapes)
    assert entry.versions == []


def patches(x: torch.Tensor) -> torch.Tensor:
    y = x.reshape(x.shape[0], -1, 8, 8).sum(2)
    return y * 2 if x.shape[1] > 300 else y


def windows(x: torch.Tensor) -> torch.Tensor:
    y = x.reshape(x.shape[0], x.shape[1] // 8, 8, 8).sum(2)
    return y * 2 if x.shape[1] < 20 else y


def checked(x: torch.Tensor) -> torch.Tensor:
    """With a check that torch does not see, as many libraries leave theirs out of traces."""
    if not torch.compiler.is_compiling() and x.shape[1] % 32:
        raise ValueError("multiples of 32")
    y = x.sum(2)
    return y * 2 if x.shape[1] > 300 else y


def checked_below(x: torch.Tensor) -> torch.Tensor:
    """Likewise, of which no multiple lies right below the bound."""
    if not torch.compiler.is_compiling() and x.shape[1] % 8:
        raise ValueError("multiples of 8")
    y = x.sum(2)
    return y * 2 if x.shape[1] < 20 else y


def large_images(x: torch.Tensor) -> torch.Tensor:
    y = x.mean((2, 3))
    return y * 2 if x.shape[2] * x.shape[3] > 10**6 else y


@pytest.mark.parametrize(
    ("forward", "shapes", "condition"),
    [
        (patches, LENGTHS, "x.shape[1] <= 300"),
        (windows, LENGTHS, "x.shape[1] >= 20"),
        (checked, LENGTHS, "x.shape[1] <= 300"),
        (checked_below, LENGTHS, "x.shape[1] >= 20"),
        (large_images, {"x": (None, 3, None, None)}, "x.shape[2]*x.shape[3] <= 1000000"),
    ],
)
def test_a_branch_among_few_sizes_alone(
    entry: qv.Entry, forward: Callable[..., torch.Tensor], shapes: dict[str, Any], condition: str
) -> None:
    """The module refuses what is right behind the bound, and that proves nothing; or it is far away."""
    model = type("Given", (nn.Module,), {"forward": staticmethod(forward)})()
    with pytest.raises(ExportError, match=rf"right only while {re.escape(condition)},"):
        entry.export_version(model, shapes)
    assert entry.versions == []


def test_what_a_module_refuses_beyond_is_recorded_where_that_proves_nothing(entry: qv.Entry) -> None:
    def primes_alone(x: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling() and x.shape[1] not in (32, 64, 257, 1009):
            raise ValueError("a size of another kind")
        y = x.sum(2)
        return y * 2 if x.shape[1] > 900 else y

    model = type("Given", (nn.Module,), {"forward": staticmethod(primes_alone)})()
    entry.export_version(model, LENGTHS)
    assert entry.versions[-1].manifest.verification.within == ("x.shape[1] <= 900",)


def test_a_branch_on_the_length_of_two_inputs() -> None:
    """They are changed together, and both sizes behind the bound are asked for."""
    x, mask = (sympy.Symbol(f"{name}.shape[1]", integer=True, positive=True) for name in ("x", "mask"))
    groups = torch_sizes._joined([[], [x], [mask]], [sympy.Eq(mask, x)])
    assert [sorted(map(str, group)) for group in groups] == [[], ["mask.shape[1]", "x.shape[1]"]]


def test_a_bound_on_a_part_of_a_size_is_found() -> None:
    x = sympy.Symbol("x", integer=True, positive=True)
    ((sizes, *_), _, _) = torch_sizes._breaking(x / 8 <= 37, [[], [x]], {x: 32}, [])
    assert sizes == {x: 297}


def test_sizes_of_two_inputs_that_happen_to_be_alike(entry: qv.Entry) -> None:
    class Two(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a.sum(1) if a.shape[1] > b.shape[1] else b.sum(1)

    with pytest.raises(ExportError, match=r"right only while a\.shape\[1\] <= b\.shape\[1\],"):
        entry.export_version(Two(), {"a": (None, None), "b": (None, None)})


def test_samples_of_one_s_own_reach_other_sizes_too(entry: qv.Entry) -> None:
    model = Tailed(lambda x, y: y[:, -100:].sum(1) if x.shape[1] > 100 else y.sum(1))
    sample = {"x": np.random.default_rng(0).random((2, 40, 8), np.float32)}
    with pytest.raises(ExportError, match=r"right only while x\.shape\[1\] <= 100,"):
        entry.export_version(model, LENGTHS, sample_inputs=sample)


@pytest.mark.parametrize(
    ("shapes", "model"),
    [
        (LENGTHS, Positioned()),
        (LENGTHS, Tailed(lambda x, y: y[:, : min(x.shape[1], 128)] * (1 + x.shape[0] // 8))),
        (LENGTHS, Tailed(lambda x, y: y.reshape(x.shape[0], -1, 2, 3).sum(2))),
        (LENGTHS, nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
        ({"x": (None, 3, None, None)}, nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3))),
    ],
)
def test_limits_of_the_module_itself_are_none_of_the_graph(
    entry: qv.Entry, shapes: dict[str, Any], model: nn.Module
) -> None:
    path = entry.export_version(model, shapes, ["y"])
    x = np.random.default_rng(1).random([40 if dim is None else dim for dim in shapes["x"]], np.float32)
    (y,) = ort.InferenceSession(path).run(None, {"x": x})
    with torch.no_grad():
        np.testing.assert_allclose(y, model.eval()(torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-5)
    beyond = ("x.shape[1] <= 512",) if isinstance(model, Positioned) else ()
    assert entry.versions[-1].manifest.verification.within == beyond


def _one_is_large(length: int) -> Any:
    array = np.zeros((2, length, 1), np.float32)
    array[0, 0] = 3e4
    return array


def test_a_batch_beyond_is_held_to_the_scales_of_the_others(entry: qv.Entry) -> None:
    """Where the others are tens of thousands, what is near zero in a small one is rounding."""
    path = entry.export_version(nn.Flatten(), {"x": (None, None, 1)}, ["y"])
    prove(
        Runner.of(open_session(Path(path))),
        [{"x": _one_is_large(length)} for length in (32, 64)],
        lambda batch: {"y": batch["x"][:, :, 0] + np.float32(0.02)},
        framework="one that rounds",
        inputs="random",
        batched=True,
        rows_apart=False,
        rtol=None,
        atol=None,
        beyond=[Assumption("x.shape[1] >= 2", ({"x": (1, 1, 1)},))],
    )


def test_chance_is_told_before_sizes(entry: qv.Entry) -> None:
    model = Tailed(lambda x, y: (y if x.shape[1] < 100 else y * 2) + torch.rand_like(y))
    with pytest.raises(VerificationError, match="another answer each time"):
        entry.export_version(model, LENGTHS)


def cat(mask: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.cat([a, b], 1) * mask


def squared(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return x.sum(1) + y.sum(1) if x.shape[1] ** 2 == y.shape[1] else x.sum(1)


@pytest.mark.parametrize(
    ("forward", "shapes", "condition"),
    [
        (cat, {"mask": (2, 64), "a": (2, 31), "b": (2, 33)}, {"(a.shape[1] + b.shape[1])", "mask.shape[1]"}),
        (squared, {"y": (2, 64), "x": (2, 8)}, {"x.shape[1]*x.shape[1]", "y.shape[1]"}),
    ],
)
@pytest.mark.parametrize("deferred", [False, True])
def test_a_size_that_torch_composes_of_others(
    forward: Callable[..., torch.Tensor], shapes: dict[str, tuple[int, ...]], condition: set[str], deferred: bool
) -> None:
    """Without deferring, as torch may do by itself, it puts ``s1 + s2`` in the place of the first input's size."""
    given = {name: torch.ones(shape) for name, shape in shapes.items()}
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(
        type("Given", (nn.Module,), {"forward": staticmethod(forward)})(),
        tuple(given.values()),
        dynamic_shapes=tuple(dims for _ in given),
        prefer_deferred_runtime_asserts_over_guards=deferred,
    )
    specs = [InputSpec(name, None, (None, None)) for name in given]
    found = torch_sizes.assumptions(program, specs, {name: tensor.numpy() for name, tensor in given.items()})
    assert condition in {frozenset(assumption.condition.split(" == ")) for assumption in found}


def test_a_size_without_a_solution_takes_its_conditions_along(caplog: pytest.LogCaptureFixture) -> None:
    x, y, s, t, u = sympy.symbols("x y s t u", integer=True, positive=True)
    own, conditions = torch_sizes._solved({y: s + t, x: u, sympy.Symbol("z"): 2 * u})
    assert (own, conditions) == ({u: x}, [sympy.Eq(sympy.Symbol("z"), 2 * x)])
    assert "torch takes y for s + t of its own" in caplog.text


def test_conditions_that_cannot_be_read_are_told(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where another version of torch keeps them elsewhere."""
    monkeypatch.setattr(torch_sizes, "_conditions", lambda program, specs: program.guards_of_another_torch)
    with pytest.raises(
        ExportError, match=r"took for granted of the sizes cannot be read \(AttributeError.*declare num"
    ):
        entry.export_version(Tailed(lambda x, y: y), LENGTHS)


def test_a_traced_model_is_proved_far_from_its_example(entry: qv.Entry) -> None:
    entry.export_version(Tailed(lambda x, y: y), LENGTHS)
    proof = entry.versions[-1].manifest.verification
    assert (proof.batch_sizes, proof.samples) == ((1, 2, 5, 17), 5)


def test_far_batches_are_no_larger_than_their_answers_may_be(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores of a whole vocabulary for each token would be gigabytes, at a length where the tokens are nothing."""
    monkeypatch.setattr(sampling, "FAR_ANSWERS", 1000)
    entry.export_version(nn.Linear(4, 60), {"x": (None, None, 4)})
    proof = entry.versions[-1].manifest.verification
    assert (proof.batch_sizes, proof.samples) == ((1, 2, 5), 3)
