"""Checks of the inputs and outputs that a config states, alone and against the graph."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gravswell.quiver.checks.scheduling import filled_in, kept
from gravswell.quiver.checks.tensors import is_whole
from gravswell.quiver.config import ModelConfig
from gravswell.quiver.lint import rules
from gravswell.quiver.lint.facts import ModelFacts, VersionFacts
from gravswell.quiver.lint.rules import Finding
from gravswell.quiver.manifest import TensorRecord
from gravswell.quiver.signature import data_type_name
from gravswell.targets import Target

if TYPE_CHECKING:
    from gravswell.quiver.exporters.inspection import GraphFacts

_GUESSED_BATCH = 4


def check_stated(model: ModelFacts) -> Iterator[Finding]:
    """What is stated at all."""
    missing = [side for side in ("input", "output") if not getattr(model.config, side)]
    if model.text is None:
        yield rules.CONFIG_MISSING.at(model.name, "there is no config.pbtxt")
    elif missing and model.backend == "onnxruntime":
        yield rules.TENSORS_GUESSED.at(model.place, f"no {' and no '.join(missing)} is stated", missing[0])


def check_graph(model: ModelFacts, version: VersionFacts, target: Target | None) -> Iterator[Finding]:
    """The graph, and the config against it."""
    graph = version.graph
    if graph is None:
        return
    place = f"{model.name}/{version.number}"
    if target is not None:
        yield from _age(place, graph, target)
    for tensor, location in graph.outside.items():
        yield rules.DATA_OUTSIDE.at(place, f"tensor {tensor!r} keeps its data in {location!r}")
    for tensor, location in graph.missing.items():
        yield rules.DATA_MISSING.at(place, f"tensor {tensor!r} keeps its data in {location!r}, which is not there")
    if graph.error is not None:
        yield rules.GRAPH_UNLOADABLE.at(place, graph.error)
    if graph.error is not None or graph.outside or graph.missing:
        return
    for tensor, kind in graph.unservable.items():
        yield rules.TENSOR_UNSERVABLE.at(place, f"{tensor!r} is a {kind}")
    if not graph.unservable:
        config = completed(model.config, graph)
        own = filled_in(config) | {name for batch_input in config.batch_input for name in batch_input.target_name}
        yield from _side(model, version, "input", config=config, records=graph.inputs, optional=graph.optional | own)
        yield from _side(
            model, version, "output", config=config, records=graph.outputs, optional=frozenset(kept(config))
        )


def _age(place: str, graph: "GraphFacts", target: Target) -> Iterator[Finding]:
    for domain, opset in graph.opsets.items():
        limit = target.limit(domain)
        if limit is not None and opset > limit:
            fact = f"the graph is in opset {opset} of {domain or 'ai.onnx'}; {target} takes up to {limit}"
            yield rules.OPSET_TOO_NEW.at(place, fact)
    if graph.ir_version > target.ir_version:
        fact = f"the graph is in IR version {graph.ir_version}; {target} takes up to {target.ir_version}"
        yield rules.IR_TOO_NEW.at(place, fact)


def completed(config: Any, graph: "GraphFacts") -> Any:
    """The config as Triton's ONNX Runtime backend completes it: nothing, where inputs and outputs are both stated."""
    if config.input and config.output:
        return config
    whole = ModelConfig()
    whole.CopyFrom(config)
    if all(record.dims[:1] == (-1,) for record in (*graph.inputs, *graph.outputs)):
        whole.max_batch_size = config.max_batch_size or _GUESSED_BATCH
    return whole


def _side(
    model: ModelFacts,
    version: VersionFacts,
    side: str,
    *,
    config: Any,
    records: tuple[TensorRecord, ...],
    optional: frozenset[str],
) -> Iterator[Finding]:
    place = f"{model.name}/{version.number}"
    stated = getattr(config, side)
    batched = config.max_batch_size > 0
    for record in records:
        if batched and record.name not in optional and record.dims[:1] != (-1,):
            fact = f"{side} {record.name!r} is {list(record.dims)}, with max_batch_size {config.max_batch_size}"
            yield rules.NOT_BATCHABLE.at(place, fact)
    known = {record.name: record for record in records}
    for tensor in stated:
        there = known.get(tensor.name)
        if there is None:
            has = ", ".join(known) or "none"
            yield rules.TENSOR_UNKNOWN.at(
                model.place, f"{side} {tensor.name!r} is not in version {version.number}: {has}"
            )
            continue
        stated_type = data_type_name(tensor.data_type)
        if tensor.data_type and stated_type != there.data_type:
            fact = f"{side} {tensor.name!r} is stated as {stated_type}; version {version.number} has {there.data_type}"
            yield rules.TYPE_DIFFERS.at(model.place, fact)
        dims = list(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)
        wanted = there.dims[1:] if batched else there.dims
        if not _fits(dims, there.dims, wanted, batched=batched, exact=side == "output") and is_whole(
            tensor, config.max_batch_size
        ):
            batch = f" behind the batch (max_batch_size {config.max_batch_size})" if batched else ""
            fact = f"{side} {tensor.name!r} is stated as {dims}; version {version.number} has {list(wanted)}{batch}"
            yield rules.DIMS_DIFFER.at(model.place, fact)
    missing = rules.OUTPUT_MISSING if side == "output" else rules.INPUT_MISSING
    for name in known.keys() - {tensor.name for tensor in stated} - optional if stated else ():
        yield missing.at(model.place, f"{side} {name!r} of version {version.number} is not stated")


def _fits(dims: list[int], whole: tuple[int, ...], wanted: tuple[int, ...], *, batched: bool, exact: bool) -> bool:
    if not whole:  # a scalar, or a shape that nobody knows
        return not batched and all(dim == 1 for dim in dims)
    return len(dims) == len(wanted) and all(
        have == want or (want == -1 and not exact) for have, want in zip(dims, wanted, strict=True)
    )
