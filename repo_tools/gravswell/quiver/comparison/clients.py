"""What a change of tensors and batching means for those who call the model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gravswell.quiver.manifest import Signature, TensorRecord
from gravswell.quiver.signature import data_type_name


@dataclass(frozen=True, slots=True)
class Change:
    """One change that a client can see, and whether it breaks one that goes on as before."""

    what: str
    breaking: bool
    reason: str


def signature_changes(old: Signature, new: Signature, *, optional: frozenset[str] = frozenset()) -> list[Change]:
    """From ``old`` to ``new``. ``optional``: inputs of ``new`` that a request may leave out."""
    changes = [*_inputs(old.inputs, new.inputs, optional), *_outputs(old.outputs, new.outputs)]
    for side, a, b in (("inputs", old.inputs, new.inputs), ("outputs", old.outputs, new.outputs)):
        common = {r.name for r in a} & {r.name for r in b}
        before, after = ([r.name for r in records if r.name in common] for records in (a, b))
        if before != after:
            what = f"the {side} are in the order {', '.join(after)}, and were in {', '.join(before)}"
            changes.append(Change(what, False, "requests and answers name their tensors"))
    return changes


def _inputs(old: Sequence[TensorRecord], new: Sequence[TensorRecord], optional: frozenset[str]) -> Iterator[Change]:
    a, b = _by_name(old), _by_name(new)
    for name, record in a.items():
        if name not in b:
            yield Change(f"input {name!r} is gone", True, "requests that hold it are refused")
            continue
        yield from _type(f"input {name!r}", record, b[name], "requests of the old type are refused")
        before, after = record.dims, b[name].dims
        if before == after:
            continue
        what = f"input {name!r} takes {list(after)}, and took {list(before)}"
        if len(before) != len(after):
            yield Change(what, True, "requests of the old number of dims are refused")
        elif all(y in (-1, x) for x, y in zip(before, after, strict=True)):
            yield Change(what, False, "every size that was taken is taken still")
        else:
            yield Change(what, True, "sizes that were taken are refused")
    for name in b:
        if name not in a and name in optional:
            yield Change(f"input {name!r} is new, and optional", False, "requests may leave it out")
        elif name not in a:
            yield Change(f"input {name!r} is new", True, "requests without it are refused")


def _outputs(old: Sequence[TensorRecord], new: Sequence[TensorRecord]) -> Iterator[Change]:
    a, b = _by_name(old), _by_name(new)
    for name, record in a.items():
        if name not in b:
            yield Change(f"output {name!r} is gone", True, "requests that ask for it are refused")
            continue
        yield from _type(f"output {name!r}", record, b[name], "answers are of another type than clients read")
        before, after = record.dims, b[name].dims
        if before == after:
            continue
        what = f"output {name!r} gives {list(after)}, and gave {list(before)}"
        if len(before) != len(after):
            yield Change(what, True, "answers have another number of dims than clients read")
        elif all(x == -1 or y in (-1, x) for x, y in zip(before, after, strict=True)):
            yield Change(what, False, "each answer says its shape; only a client that counts on one size has to change")
        else:
            yield Change(what, True, "answers have another size than clients read")
    for name in b:
        if name not in a:
            yield Change(f"output {name!r} is new", False, "requests ask for outputs by name, or may pass over more")


def _type(what: str, old: TensorRecord, new: TensorRecord, reason: str) -> Iterator[Change]:
    if old.data_type != new.data_type:
        yield Change(f"{what} is {new.data_type}, and was {old.data_type}", True, reason)


def _by_name(records: Sequence[TensorRecord]) -> Mapping[str, TensorRecord]:
    return {record.name: record for record in records}


def config_changes(old: Any, new: Any) -> Iterator[Change]:
    """What else of two ``ModelConfig`` a client notices: the batch's limit, sequences, streams."""
    before, after = old.max_batch_size, new.max_batch_size
    if before != after:
        what = f"max_batch_size is {after}, and was {before}"
        if after and (after < before or not before):
            limited = f"requests of more than {after} rows are refused"
            yield Change(what, True, limited)
        else:
            yield Change(what, False, "every batch that was taken is taken still")
    if new.HasField("sequence_batching") != old.HasField("sequence_batching"):
        came = new.HasField("sequence_batching")
        what = f"sequence_batching {'came' if came else 'went'}"
        yield Change(what, came, "requests need a correlation id" if came else "a correlation id has no effect")
    streams = [config.model_transaction_policy.decoupled for config in (old, new)]
    if streams[0] != streams[1]:
        what = f"the model {'became' if streams[1] else 'is no longer'} decoupled"
        yield Change(what, True, "requests are answered another number of times, over a stream")


def client_signature(config: Any, stated: Signature | None) -> Signature:
    """What a client of a model with ``config`` sees, the batch included; ``stated`` where it names no tensors."""

    def records(tensors: Any) -> tuple[TensorRecord, ...]:
        lead = (-1,) if config.max_batch_size > 0 else ()
        return tuple(
            TensorRecord(name=t.name, data_type=data_type_name(t.data_type), dims=(*lead, *t.dims)) for t in tensors
        )

    empty = stated or Signature(inputs=(), outputs=())
    return Signature(
        inputs=records(config.input) if config.input else empty.inputs,
        outputs=records(config.output) if config.output else empty.outputs,
    )
