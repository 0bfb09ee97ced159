"""What a version takes and gives, against what the entry's configuration says of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tritonclient.grpc import model_config_pb2

from gravswell.errors import ExportError, InvalidInputError
from gravswell.quiver.checks.scheduling import filled_in, kept
from gravswell.quiver.datatypes import parse_data_type
from gravswell.quiver.manifest import Signature, TensorRecord

Shape = Sequence[int | None]


def data_type_name(value: int) -> str:
    """``TYPE_FP32``… for the number that a protobuf message holds."""
    return str(model_config_pb2.DataType.Name(value))


def data_type_value(name: str) -> int:
    """The number that a protobuf message holds for ``TYPE_FP32``…."""
    return int(model_config_pb2.DataType.Value(name))


def parse_shape(tensor: str, shape: Any) -> tuple[int | None, ...]:
    """A user's shape: None or -1 is dynamic. InvalidInputError for anything else that is no positive size."""
    if isinstance(shape, str | bytes | int) or not isinstance(shape, Iterable):
        raise InvalidInputError(f"the shape of {tensor!r} must be a sequence such as (None, 64), not {shape!r}")
    dims = tuple(None if dim in (None, -1) else dim for dim in shape)
    for dim in dims:
        if dim is not None and (isinstance(dim, bool) or not hasattr(dim, "__index__") or dim < 1):
            raise InvalidInputError(f"the shape of {tensor!r} holds {dim!r}: use sizes from 1 on, or None for any size")
    return tuple(None if dim is None else int(dim) for dim in dims)


def tensors_of(config: Any) -> Signature | None:
    """The signature that a configuration states, the batch dim included; None while it states no tensors."""
    if not config.input and not config.output:
        return None
    lead = (-1,) if config.max_batch_size > 0 else ()

    def records(tensors: Any) -> tuple[TensorRecord, ...]:
        return tuple(
            TensorRecord(
                name=tensor.name,
                data_type=data_type_name(tensor.data_type),
                dims=lead + tuple(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims),
                optional=getattr(tensor, "optional", False),  # which outputs have not
            )
            for tensor in tensors
        )

    return Signature(inputs=records(config.input), outputs=records(config.output))


def describe(config: Any, signature: Signature, *, batchable: bool, batching: int = 0) -> None:
    """State ``signature`` in ``config`` where it states nothing, and check it where it does.

    ``batching``: let the server put so many rows together, where nothing is stated yet and that can be.

    With a ``max_batch_size`` the leading dim is the server's and is not stated; nor is what it fills in and keeps for
    sequences. InvalidInputError (a ValueError) names the tensor that an earlier version has otherwise: clients rely on
    it.
    """
    stated = tensors_of(config)
    optional = [record.name for record in signature.inputs if record.optional]
    if batching and stated is None and not config.max_batch_size and batchable and not optional:
        config.max_batch_size = batching
        if batching > 1 and config.WhichOneof("scheduling_choice") is None:
            config.dynamic_batching.SetInParent()
    if config.max_batch_size > 0 and optional:
        raise InvalidInputError(
            f"max_batch_size={config.max_batch_size} and the input {optional[0]!r} of {config.name}, which a request "
            f"may leave out: Triton's onnxruntime backend takes no such input where it batches; export without "
            f"max_batch_size, or with models that all take the same inputs"
        )
    if config.max_batch_size > 0 and not batchable:
        raise ExportError(
            f"max_batch_size={config.max_batch_size} needs every input and output to lead with the batch, "
            f"as (None, …), and {config.name} has one that does not: export without it"
        )
    for side, records, have, servers in (
        ("input", signature.inputs, stated.inputs if stated else (), filled_in(config)),
        ("output", signature.outputs, stated.outputs if stated else (), kept(config)),
    ):
        servers -= {record.name for record in have}  # a configuration may state them all the same
        clients = [record for record in records if record.name not in servers]
        if have:
            _check(config.name, side, have, clients)
        else:
            _state(getattr(config, side), clients, config.max_batch_size > 0)


def without_sequences(config: Any, signature: Signature) -> Any:
    """The configuration of the graph alone: requests bring all that the server fills in or keeps for sequences."""
    alone = type(config)()
    alone.CopyFrom(config)
    alone.ClearField("sequence_batching")
    for side, records in ((alone.input, signature.inputs), (alone.output, signature.outputs)):
        stated = {tensor.name for tensor in side}
        _state(side, [record for record in records if record.name not in stated], config.max_batch_size > 0)
    return alone


def _check(entry: str, side: str, have: Sequence[TensorRecord], records: Sequence[TensorRecord]) -> None:
    stated: Mapping[str, TensorRecord] = {record.name: record for record in have}
    made: Mapping[str, TensorRecord] = {record.name: record for record in records}
    facts = [f"{side} {name!r} is new" for name in made if name not in stated]
    facts += [f"{side} {name!r} is gone" for name in stated if name not in made]
    for name, record in made.items():
        before = stated.get(name)
        # a configuration may state a number where the graph takes any size, never the other way round
        if before is not None and before.optional and not record.optional:
            facts.append(f"{side} {name!r} is needed in every request, and could be left out")
        if before is not None and (before.data_type != record.data_type or not _fits(before.dims, record.dims)):
            facts.append(
                f"{side} {name!r} is {record.data_type} {list(record.dims)}, "
                f"and was {before.data_type} {list(before.dims)}"
            )
    if facts:
        raise InvalidInputError(
            f"the model's signature is not that of {entry}: {'; '.join(facts)}. Clients rely on it: "
            f"make a new entry, or start this one over with add --force (add(…, force=True))"
        )


def _fits(stated: tuple[int, ...], made: tuple[int, ...]) -> bool:
    if not made:
        return stated in ((), (1,))  # Triton has no scalars: without batching they are stated as one element
    return len(stated) == len(made) and all(dim in (-1, have) for have, dim in zip(stated, made, strict=True))


def _state(tensors: Any, records: Sequence[TensorRecord], batched: bool) -> None:
    for record in records:
        dims = record.dims[1:] if batched else record.dims
        tensor = tensors.add(name=record.name, data_type=data_type_value(record.data_type), dims=dims or (1,))
        if record.optional:
            tensor.optional = True
        if not dims and batched:
            tensor.reshape.SetInParent()  # [1] outside and nothing inside; Triton refuses that without batching


def add_tensor(tensors: Any, name: str, shape: Shape, dtype: Any) -> Any:
    """Append an input or output to a configuration's list of them, and return it."""
    if any(tensor.name == name for tensor in tensors):
        raise InvalidInputError(f"there is a tensor {name!r} already: edit it, or remove it first")
    dims = [-1 if dim is None else dim for dim in parse_shape(name, shape)]
    return tensors.add(name=name, data_type=data_type_value(parse_data_type(dtype, tensor=name)), dims=dims)
