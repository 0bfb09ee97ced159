"""The samples that a model is run with before it is ready."""

from collections.abc import Iterator
from typing import Any

from tritonclient.grpc import model_config_pb2

from gravswell.quiver.checks import rules
from gravswell.quiver.checks.backends import is_ensemble
from gravswell.quiver.checks.rules import Finding
from gravswell.quiver.checks.scheduling import filled_in


def check(config: Any, place: str) -> Iterator[Finding]:
    """``model_warmup`` against what the model takes. A sample that is never run is not looked into."""
    if is_ensemble(config):
        return
    for k, sample in enumerate(config.model_warmup):
        field = f"model_warmup[{k}]"
        if not sample.batch_size:
            yield rules.WARMUP_SKIPPED.at(place, f"sample {sample.name!r} has no batch_size", field, unfinished=True)
            continue
        most = max(config.max_batch_size, 1)
        if sample.batch_size > most:
            fact = f"sample {sample.name!r} has {sample.batch_size} rows, with max_batch_size {config.max_batch_size}"
            yield rules.WARMUP_BATCH.at(place, fact, f"{field}.batch_size")
        yield from _inputs(config, sample, place, field)


def _inputs(config: Any, sample: Any, place: str, field: str) -> Iterator[Finding]:
    taken = {tensor.name: tensor for tensor in config.input}
    own = filled_in(config)
    for name, tensor in taken.items():
        if name not in sample.inputs and not tensor.optional:
            fact = f"sample {sample.name!r} lacks input {name!r}"
            yield rules.WARMUP_INPUT.at(place, fact, f"{field}.inputs", unfinished=True)
    for name in sorted(sample.inputs):
        value, where = sample.inputs[name], f"{field}.inputs[{name}]"
        stated = taken.get(name)
        if stated is None and taken and name not in own:
            fact = f"sample {sample.name!r} has {name!r}, which is no input of the model: {', '.join(taken)}"
            yield rules.WARMUP_INPUT.at(place, fact, where)
        if value.WhichOneof("input_data_type") is None:
            yield rules.WARMUP_INPUT.at(place, f"{name!r} has no data", where, unfinished=True)
        if any(dim < 0 for dim in value.dims):  # 0 is a size too
            fact = f"{name!r} has dims {list(value.dims)}: each is to be a size"
            yield rules.WARMUP_INPUT.at(place, fact, f"{where}.dims")
        elif stated is not None and value.dims and not _fits(value.dims, stated.dims):
            fact = f"{name!r} has dims {list(value.dims)}, and the model takes {list(stated.dims)}"
            yield rules.WARMUP_INPUT.at(place, fact, f"{where}.dims")
        if stated is not None and value.data_type != stated.data_type:
            names = [model_config_pb2.DataType.Name(of.data_type) for of in (value, stated)]
            fact = f"{name!r} is {names[0]}, and the model takes {names[1]}"
            yield rules.WARMUP_INPUT.at(place, fact, f"{where}.data_type", unfinished=not value.data_type)


def _fits(dims: Any, stated: Any) -> bool:
    return len(dims) == len(stated) and all(want in (-1, have) for have, want in zip(dims, stated, strict=True))
