"""A Keras model of the torch backend as the plain torch module that torch's exporter wants."""

from collections.abc import Sequence
from typing import Any

import torch

from gravswell.quiver.exporters.base import InputSpec
from gravswell.quiver.exporters.keras.calling import Call


class Called(torch.nn.Module):
    """Takes the model's single tensor, or a dict of them by name, and returns its named answers."""

    def __init__(self, model: Any, specs: Sequence[InputSpec]) -> None:
        super().__init__()
        self.model = model
        self._name = specs[0].name
        self._call = Call(model, specs)

    def forward(self, inputs: Any) -> dict[str, Any]:
        """The answers by their names, in Keras's order."""
        return dict(self._call(inputs if isinstance(inputs, dict) else {self._name: inputs}))


def as_module(model: Any, specs: Sequence[InputSpec]) -> torch.nn.Module:
    """The module, of a class that is called as the model's own is: messages name it."""
    named: type[Called] = type(type(model).__name__, (Called,), {})
    return named(model, specs)
