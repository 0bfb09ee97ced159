"""An ensemble, run step by step as Triton's scheduler does: a step as soon as its tensors are there."""

from collections.abc import Callable, Mapping
from typing import Any

from gravswell.errors import VerificationError
from gravswell.quiver.golden import Array

CallVersion = Callable[[str, int, dict[str, Array]], Mapping[str, Array]]
"""Runs a version of an entry: arrays by its inputs' names to arrays by its outputs'."""


def run_ensemble(config: Any, given: Mapping[str, Array], call: CallVersion) -> dict[str, Array]:
    """The outputs of the ensemble ``config`` for the inputs that are ``given``, by name.

    VerificationError for one whose steps do not lead to its outputs, or write a tensor twice. Raises what ``call``
    raises.
    """
    tensors = {tensor.name: given[tensor.name] for tensor in config.input}
    waiting = list(config.ensemble_scheduling.step)
    while waiting:
        ready = [step for step in waiting if tensors.keys() >= set(step.input_map.values())]
        if not ready:
            wanted = sorted({name for step in waiting for name in step.input_map.values()} - tensors.keys())
            raise VerificationError(f"the ensemble makes no {', '.join(wanted)}, which its steps wait for")
        for step in ready:
            feed = {name: tensors[tensor] for name, tensor in step.input_map.items()}
            answer = call(step.model_name, step.model_version, feed)
            twice = sorted(tensors.keys() & set(step.output_map.values()))
            if twice:  # a server would start each step that reads it once more
                raise VerificationError(f"the ensemble writes {', '.join(twice)} twice: give each tensor its own name")
            tensors.update({tensor: answer[name] for name, tensor in step.output_map.items()})
        waiting = [step for step in waiting if step not in ready]
    return {tensor.name: tensors[tensor.name] for tensor in config.output}
