"""An ensemble by itself: its sections, and where its tensors come from and go to. Members are looked at elsewhere."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from gravswell.quiver.checks import rules
from gravswell.quiver.checks.backends import is_ensemble
from gravswell.quiver.checks.rules import Finding

_STEPS = "ensemble_scheduling.step"


def check(config: Any, place: str) -> Iterator[Finding]:
    """``ensemble_scheduling``, and what does not go with it."""
    if not is_ensemble(config):
        return
    if config.HasField("ensemble_scheduling") and (config.platform != "ensemble" or config.backend):
        fact = f"platform is {config.platform!r}, and backend {config.backend!r}"
        field = "backend" if config.backend else "platform"
        yield rules.ENSEMBLE_PLATFORM.at(place, fact, field, unfinished=True)
    if config.instance_group:
        yield rules.ENSEMBLE_INSTANCES.at(place, "an ensemble has an instance_group", "instance_group")
    for section, there in (
        ("optimization", config.HasField("optimization")),
        ("model_warmup", config.model_warmup),
    ):
        if there:
            yield rules.ENSEMBLE_SECTION.at(place, f"an ensemble has {section}", section)
    if not config.ensemble_scheduling.step:
        yield rules.ENSEMBLE_EMPTY.at(place, "ensemble_scheduling has no step", _STEPS, unfinished=True)
        return
    for k, step in enumerate(config.ensemble_scheduling.step):
        missing = [
            name for name in ("model_name", "model_version", "input_map", "output_map") if not getattr(step, name)
        ]
        if missing:
            fact = f"step {k} has no {', '.join(missing)}"
            yield rules.STEP_INCOMPLETE.at(place, fact, f"{_STEPS}[{k}]", unfinished=True)
    yield from _flow(config, place)


def _flow(config: Any, place: str) -> Iterator[Finding]:
    steps = config.ensemble_scheduling.step
    inputs = {tensor.name for tensor in config.input}
    outputs = {tensor.name for tensor in config.output}
    made = Counter(tensor for step in steps for tensor in step.output_map.values())
    for name, count in made.items():
        if count > 1:
            yield rules.TENSOR_REWRITTEN.at(place, f"{name!r} is made by {count} steps", _STEPS)
        elif name in inputs:
            yield rules.TENSOR_REWRITTEN.at(place, f"{name!r} is an input, and is made by a step", _STEPS)
    wanted = [(f"step {k}", f"{_STEPS}[{k}]", name) for k, step in enumerate(steps) for name in step.input_map.values()]
    wanted += [("the ensemble", "output", name) for name in outputs]
    for who, field, name in wanted:
        if name not in made and name not in inputs:
            yield rules.TENSOR_UNMADE.at(place, f"{who} needs {name!r}, which nothing makes", field, unfinished=True)
    if all(name in made or name in inputs for _, _, name in wanted):
        circle = set(made) - _reached(steps, inputs)
        if circle:
            fact = f"{', '.join(sorted(circle))} are made of one another"
            yield rules.TENSOR_UNMADE.at(place, fact, _STEPS, unfinished=True)
    taken = {name for step in steps for name in step.input_map.values()}
    for name in sorted((inputs - taken) | (set(made) - taken - outputs)):
        fact = f"{name!r} is taken by no step and is no output"
        yield rules.TENSOR_UNUSED.at(place, fact, "input" if name in inputs else _STEPS, unfinished=True)


def _reached(steps: Any, inputs: set[str]) -> set[str]:
    """The tensors that are there once every step has run whose inputs ever are."""
    there, before = set(inputs), -1
    while len(there) > before:
        before = len(there)
        for step in steps:
            if there.issuperset(step.input_map.values()):
                there.update(step.output_map.values())
    return there
