"""Modules that more than one test module exports."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Counting(nn.Module):
    """Counts its calls, in a buffer that each call puts in the other's place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1
        return x * 2


def module(forward: Callable[..., Any]) -> nn.Module:
    """A module with that ``forward``; its first parameter is the module itself."""
    return type("Given", (nn.Module,), {"forward": forward})()
