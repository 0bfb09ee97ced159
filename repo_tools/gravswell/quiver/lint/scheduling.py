"""Checks of batching, instances, warm-up and ensembles."""

from collections.abc import Iterator

from tritonclient.grpc import model_config_pb2

from gravswell.quiver.lint import rules
from gravswell.quiver.lint.facts import ModelFacts, World
from gravswell.quiver.lint.rules import Finding

_Group = model_config_pb2.ModelInstanceGroup


def check_batching(model: ModelFacts) -> Iterator[Finding]:
    """Dynamic batching against ``max_batch_size``."""
    config, batching = model.config, model.config.dynamic_batching
    if not config.HasField("dynamic_batching"):
        return
    larger = [size for size in batching.preferred_batch_size if size > config.max_batch_size or size < 1]
    if larger:
        fact = f"preferred_batch_size {larger[0]} does not go with max_batch_size {config.max_batch_size}"
        yield rules.PREFERRED_SIZE.at(model.place, fact)
    elif 0 <= config.max_batch_size <= 1:
        fact = f"dynamic_batching is stated, and max_batch_size is {config.max_batch_size}"
        yield rules.BATCHING_UNUSED.at(model.place, fact)
    if batching.priority_levels and not 1 <= batching.default_priority_level <= batching.priority_levels:
        fact = (
            f"priority_levels is {batching.priority_levels}, default_priority_level {batching.default_priority_level}"
        )
        yield rules.PRIORITY_DEFAULT.at(model.place, fact)


def check_instances(model: ModelFacts) -> Iterator[Finding]:
    """Instance groups: kinds, counts, GPUs."""
    if model.ensemble:
        if model.config.instance_group:
            yield rules.ENSEMBLE_INSTANCES.at(model.place, "an ensemble has an instance_group")
        return
    for number, group in enumerate(model.config.instance_group):
        what = f"instance_group {number}"
        if group.gpus and group.kind in (_Group.KIND_CPU, _Group.KIND_AUTO):
            kind = _Group.Kind.Name(group.kind)
            yield rules.GROUP_GPUS.at(model.place, f"{what} is {kind} and names GPU {', '.join(map(str, group.gpus))}")
        if group.kind == _Group.KIND_GPU:
            yield rules.GROUP_NEEDS_GPU.at(model.place, f"{what} is KIND_GPU, count {group.count}")
        if group.count < 1:
            yield rules.GROUP_COUNT.at(model.place, f"{what} has count {group.count}")


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


def check_ensemble(model: ModelFacts, world: World) -> Iterator[Finding]:
    """The steps against the members that they name."""
    if not model.ensemble:
        return
    steps = model.config.ensemble_scheduling.step
    if not steps:
        yield rules.ENSEMBLE_EMPTY.at(model.place, "ensemble_scheduling has no step")
        return
    made = {tensor.name for tensor in model.config.input}
    made |= {tensor for step in steps for tensor in step.output_map.values()}
    wanted = [(f"step {k}", tensor) for k, step in enumerate(steps) for tensor in step.input_map.values()]
    wanted += [("the ensemble", tensor.name) for tensor in model.config.output]
    for who, tensor in wanted:
        if tensor not in made:
            yield rules.TENSOR_UNMADE.at(model.place, f"{who} needs {tensor!r}, which nothing makes")
    for k, step in enumerate(steps):
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


def _names(member: ModelFacts, side: str) -> set[str]:
    """The tensors that a member states, or that Triton fills in from its newest graph; empty where nobody knows."""
    stated = {tensor.name for tensor in getattr(member.config, side)}
    graph = next((version.graph for version in reversed(member.loaded) if version.graph is not None), None)
    if stated or graph is None:
        return stated
    return {record.name for record in (graph.inputs if side == "input" else graph.outputs)}
