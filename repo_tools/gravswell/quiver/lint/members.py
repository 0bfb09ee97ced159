"""Checks of the files that a config names beside the versions, and of the members of a pipeline."""

from collections.abc import Iterator

from gravswell.errors import InvalidInputError
from gravswell.quiver.composition.config import pinned_members
from gravswell.quiver.lint import rules
from gravswell.quiver.lint.facts import ModelFacts, World
from gravswell.quiver.lint.rules import Finding


def check_side_files(model: ModelFacts) -> Iterator[Finding]:
    """Files that the config names beside the versions."""
    for output in model.config.output:
        if output.label_filename and output.label_filename not in model.side_files:
            fact = f"output {output.name!r} names {output.label_filename}, which is not there"
            yield rules.LABELS_MISSING.at(model.place, fact)
    for warmup in model.config.model_warmup:
        for name, value in warmup.inputs.items():
            file = value.input_data_file
            if file and f"warmup/{file}" not in model.side_files:
                fact = f"warm-up {warmup.name!r} names {file} for {name!r}, and there is no warmup/{file}"
                yield rules.WARMUP_FILE.at(model.place, fact)


def check_members(model: ModelFacts, world: World) -> Iterator[Finding]:
    """The steps of an ensemble against the members that they name."""
    steps = model.config.ensemble_scheduling.step
    for k, step in enumerate(steps):
        if not step.model_name:
            continue  # which is told as it is of every step
        member = world.model(step.model_name)
        if member is None:
            yield rules.STEP_MISSING.at(model.place, f"step {k} names {step.model_name!r}, which is not there")
            continue
        loaded = [version.number for version in member.loaded]
        if step.model_version > 0 and step.model_version not in loaded:
            there = ", ".join(map(str, loaded)) or "none"
            fact = f"step {k} names {step.model_name}/{step.model_version}; Triton loads of it: {there}"
            yield rules.STEP_VERSION.at(model.place, fact)
        for side, names in (("input", step.input_map), ("output", step.output_map)):
            known = _names(member, side)
            for name in names:
                if known and name not in known:
                    fact = f"step {k} maps {side} {name!r}; {step.model_name} has {', '.join(sorted(known))}"
                    yield rules.STEP_TENSOR.at(model.place, fact)


def check_called(model: ModelFacts, world: World) -> Iterator[Finding]:
    """The members that a pipeline of Python functions names in its parameters."""
    if model.ensemble:
        return
    try:
        pinned = pinned_members(model.config)
    except InvalidInputError as error:
        yield rules.MEMBER_MISSING.at(model.place, str(error))
        return
    for alias, name, number in pinned:
        member = world.model(name)
        if member is None or number not in member.numbers:
            yield rules.MEMBER_MISSING.at(model.place, f"member {alias} is {name}/{number}, which is not there")
        elif number not in (loaded := [version.number for version in member.loaded]):
            there = ", ".join(map(str, loaded)) or "none"
            fact = f"member {alias} is {name}/{number}; Triton loads of it: {there}"
            yield rules.MEMBER_VERSION.at(model.place, fact)


def _names(member: ModelFacts, side: str) -> set[str]:
    """The tensors that a member states, or that Triton fills in from its newest graph; empty where nobody knows."""
    stated = {tensor.name for tensor in getattr(member.config, side)}
    graph = next((version.graph for version in reversed(member.loaded) if version.graph is not None), None)
    if stated or graph is None:
        return stated
    return {record.name for record in (graph.inputs if side == "input" else graph.outputs)}
